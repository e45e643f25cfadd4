"""Look ahead of a step: how would it change the loss of other clips, and through which samples?

A method that weighs samples asks how the loss of a meta batch after one plain step,
``L(theta')`` with ``theta' = theta - lr sum_i c_i g_i`` and ``g_i = grad l_i(theta)``, depends on each coefficient::

    dL(theta') / dc_i = -lr <g_i, grad L(theta')>

These inner products are the derivatives of all ``l_i`` in one direction, so one pass of forward differentiation gives
them: no gradient of a gradient, no gradient of a single sample, and memory is that of a pass without gradients.

All passes leave the network as it is. Its buffers are copied for every pass: batch norms in training mode use the
statistics of the batch they see and forget them, as in the released codes, which look ahead on a copy of the network
(Meta-Weight-Net) or in graphs whose averages are never updated (Learning to Reweight). Passes draw what comes next
from torch's generators and put it back: dropout drops the same features in each pass over the same batch, and in the
step that follows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from hoi_train.core.batches import ClipBatch
from hoi_train.core.ranks import of_all_ranks, sum_over_ranks
from hoi_train.methods.fit import Step

Parameters = dict[str, Tensor]


def trained(network: nn.Module) -> Parameters:
    """Return the values of the parameters that train, by name, without a graph."""
    return {name: value.detach() for name, value in network.named_parameters() if value.requires_grad}


@dataclass(frozen=True)
class LossesAt:
    """The loss of each sample of a batch, ``[N]``, as a function of the parameters.

    Args:
        step: whose network is asked, in the mode it is in.
        batch: the step's own or another, where the network is.
    """

    step: Step
    batch: ClipBatch

    def __call__(self, parameters: Parameters) -> Tensor:
        """Return the losses, with what graph the parameters give."""
        network, video = self.step.network, self.batch.video
        buffers = {name: value.clone() for name, value in network.named_buffers()}
        with torch.random.fork_rng([video.device] if video.device.type == "cuda" else []):
            logits = functional_call(network, (parameters, buffers), kwargs=self.batch.inputs)
        return self.step.losses(self.batch, logits)


def pull_back(at: LossesAt, parameters: Parameters) -> tuple[Tensor, Callable[[Tensor], Parameters]]:
    """Return the losses, ``[N]``, and what makes ``sum_i c_i g_i`` from coefficients ``[N]``.

    The sum is over the samples of all ranks; it can be asked for once. Computed in the precision of the run.
    Samples whose loss is not finite are noted.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    with at.step.autocast():
        losses = at(leaves)
    sound = losses.isfinite()
    at.step.note(at.batch, sound | ~sound.any())  # where all fail it is the parameters that do, and others are to blame

    def gradient(coefficients: Tensor) -> Parameters:
        found = torch.autograd.grad(losses, list(leaves.values()), coefficients.to(losses), materialize_grads=True)
        return {name: sum_over_ranks(value) for name, value in zip(leaves, found, strict=True)}

    return losses.detach(), gradient


def mean_gradient(at: LossesAt, parameters: Parameters) -> Parameters:
    """Return the gradient of the mean loss over the equally large batches of all ranks."""
    losses, gradient = pull_back(at, parameters)
    return gradient(torch.full_like(losses, 1 / len(of_all_ranks(losses))))


def inner_products(at: Callable[[Parameters], Tensor], parameters: Parameters, direction: Parameters) -> Tensor:
    """Return ``<g_i, direction>`` of each sample of this rank, ``[N]``, with ``g_i`` the gradient of its loss.

    Computed in the type of the parameters also where the run is in mixed precision: torch's forward differentiation
    of convolutions fails under autocast, and rounding to bfloat16 would decide the sign of small products.

    >>> at = lambda parameters: parameters["w"] ** 2 * torch.tensor([1.0, -2.0])
    >>> inner_products(at, {"w": torch.tensor(3.0)}, {"w": torch.tensor(1.0)})
    tensor([  6., -12.])
    """
    with warnings.catch_warnings():
        # At its first use torch's forward differentiation compiles some rules with what torch has deprecated.
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script", category=Warning)
        products: Tensor = jvp(at, (parameters,), (direction,))[1]
    return products
