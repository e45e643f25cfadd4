"""Learning to Reweight: a clip counts as much as its gradient helps a balanced set."""

from __future__ import annotations

from torch import Tensor

from hoi_train.core.batches import ClipBatch
from hoi_train.core.ranks import sum_over_ranks
from hoi_train.methods.fit import Step
from hoi_train.methods.lookahead import LossesAt, inner_products, mean_gradient, trained
from hoi_train.methods.meta_set import MetaWeighted


class LearningToReweight(MetaWeighted):
    r"""Weigh each clip by how much a step along its gradient would lower the loss of a balanced meta batch.

    With ``theta'(eps) = theta - lr grad sum_i eps_i l_i(theta)`` and ``L`` the mean loss of the meta batch::

        u_i = max(0, -dL(theta'(eps)) / d eps_i at eps = 0),   w_i = u_i / sum_j u_j,   loss = sum_i w_i l_i

    Source: Ren et al., "Learning to Reweight Examples for Robust Deep Learning", ICML 2018, equations 7 to 9 and
    algorithm 1; ``uber-research/learning-to-reweight-examples``, ``models/reweight_model.py``. Where no clip helps, all
    weights are 0 and the step is one of momentum and weight decay alone, as there.

    At ``eps = 0`` nothing has moved yet, ``theta' = theta``: ``u_i = lr max(0, <grad l_i, grad L>)``, and the inner
    learning rate cancels. The paper takes the gradient of a gradient; here one pass of forward differentiation gives
    all inner products (``lookahead``), equal up to rounding. Nothing is kept from step to step.

    The authors take the meta set out of the training images (10 of each CIFAR class). Several ranks weigh their
    joint batch.

    Args:
        context: the run.
        per_class: clips of each class in the meta set.
        split: where they come from: ``val`` is disjoint from training, but then validation is not from what trains;
            ``train`` overlaps with training.
        task: whose classes the meta set balances; the run's first task if not given.
        meta_batch_size: clips of a meta batch and rank; that of training if not given.

    Raises:
        ValueError: the meta set cannot be made.
    """

    def weights(self, batch: ClipBatch, meta: ClipBatch, step: Step) -> Tensor:
        """Return this rank's weights, ``[N]``; those of all ranks sum to 1, or are all 0."""
        now = trained(step.network)
        direction = mean_gradient(LossesAt(step, meta), now)
        return normalised(inner_products(LossesAt(step, batch), now, direction))


def normalised(products: Tensor) -> Tensor:
    """Set negative products to 0 and divide by their sum over all ranks, if it is not 0.

    >>> import torch
    >>> normalised(torch.tensor([3.0, -5.0, 1.0])), normalised(torch.tensor([-1.0, 0.0]))
    (tensor([0.7500, 0.0000, 0.2500]), tensor([0., 0.]))
    """
    helpful = products.clamp(min=0)
    total = sum_over_ranks(helpful.sum())
    return helpful / total.where(total != 0, 1.0)
