"""Look-ahead steps: how the loss of other clips after a step depends on the weights of its samples.

A method that weights samples needs the derivative of the loss of a meta batch after one plain step,
``L(theta')`` with ``theta' = theta - lr sum_i c_i g_i`` and ``g_i = grad l_i(theta)``, by each coefficient::

    dL(theta') / dc_i = -lr <g_i, grad L(theta')>

These inner products are the derivatives of all ``l_i`` in one direction, computed by one pass of forward
differentiation: without second-order or per-sample gradients, and with the memory of a pass without gradients.

No pass changes the network. Its buffers are copied for every pass: batch norms in training mode use the statistics of
their batch and discard them, as in the released codes, which look ahead on a copy of the network (Meta-Weight-Net) or
in graphs whose averages are never updated (Learning to Reweight). Passes restore the state of torch's generators:
dropout drops the same features in each pass over the same batch, and in the following step.
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


def trainable(network: nn.Module) -> Parameters:
    """Return the values of the trainable parameters, by name, detached."""
    return {name: value.detach() for name, value in network.named_parameters() if value.requires_grad}


@dataclass(frozen=True)
class SampleLosses:
    """The per-sample losses of a batch, ``[N]``, as a function of the parameters.

    Args:
        step: the step with the network, used in its current mode.
        batch: the step's or another batch, on the network's device.
    """

    step: Step
    batch: ClipBatch

    def __call__(self, parameters: Parameters) -> Tensor:
        """Return the losses, with a graph if the parameters require gradients."""
        network, video = self.step.network, self.batch.video
        buffers = {name: value.clone() for name, value in network.named_buffers()}
        with torch.random.fork_rng([video.device] if video.device.type == "cuda" else []):
            logits = functional_call(network, (parameters, buffers), kwargs=self.batch.inputs)
        return self.step.losses(self.batch, logits)


def pull_back(at: SampleLosses, parameters: Parameters) -> tuple[Tensor, Callable[[Tensor], Parameters]]:
    """Return the losses, ``[N]``, and a function that computes ``sum_i c_i g_i`` from coefficients ``[N]``, once.

    The sum is over the samples of all ranks, in the precision of the run. Samples with a loss that is not finite are
    noted.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
    with at.step.autocast():
        losses = at(leaves)
    sound = losses.isfinite()
    at.step.note(at.batch, sound | ~sound.any())  # if all fail, the parameters are at fault

    def gradient(coefficients: Tensor) -> Parameters:
        found = torch.autograd.grad(losses, list(leaves.values()), coefficients.to(losses), materialize_grads=True)
        return {name: sum_over_ranks(value) for name, value in zip(leaves, found, strict=True)}

    return losses.detach(), gradient


def mean_gradient(at: SampleLosses, parameters: Parameters) -> Parameters:
    """Return the gradient of the mean loss over the batches, of equal size, of all ranks."""
    losses, gradient = pull_back(at, parameters)
    return gradient(torch.full_like(losses, 1 / len(of_all_ranks(losses))))


def inner_products(at: Callable[[Parameters], Tensor], parameters: Parameters, direction: Parameters) -> Tensor:
    """Return ``<g_i, direction>`` of each sample of this rank, ``[N]``, with the gradient ``g_i`` of its loss.

    Computed in the parameters' type, also in mixed precision: torch's forward differentiation of convolutions fails
    under autocast, and rounding to bfloat16 would change the sign of small products.

    >>> at = lambda parameters: parameters["w"] ** 2 * torch.tensor([1.0, -2.0])
    >>> inner_products(at, {"w": torch.tensor(3.0)}, {"w": torch.tensor(1.0)})
    tensor([  6., -12.])
    """
    with warnings.catch_warnings():
        # At its first use, torch's forward differentiation compiles rules with deprecated functions.
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script", category=Warning)
        products: Tensor = jvp(at, (parameters,), (direction,))[1]
    return products
