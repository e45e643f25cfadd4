"""Learning to Reweight: weights by the alignment of a clip's gradient with that of a balanced set."""

from __future__ import annotations

from torch import Tensor

from hoi_train.core.batches import ClipBatch
from hoi_train.core.ranks import sum_over_ranks
from hoi_train.methods.fit import Step
from hoi_train.methods.lookahead import SampleLosses, inner_products, mean_gradient, trainable
from hoi_train.methods.meta_set import MetaWeighted


class LearningToReweight(MetaWeighted):
    r"""Weight each clip by the decrease of a balanced meta batch's loss along the clip's gradient.

    With ``theta'(eps) = theta - lr grad sum_i eps_i l_i(theta)`` and ``L`` the mean loss of the meta batch::

        u_i = max(0, -dL(theta'(eps)) / d eps_i at eps = 0),   w_i = u_i / sum_j u_j,   loss = sum_i w_i l_i

    Source: Ren et al., "Learning to Reweight Examples for Robust Deep Learning", ICML 2018, equations 7 to 9 and
    algorithm 1; ``uber-research/learning-to-reweight-examples``, ``models/reweight_model.py``. If no clip helps, all
    weights are 0 and the step has only momentum and weight decay, as there.

    At ``eps = 0``, ``theta' = theta``: ``u_i = lr max(0, <grad l_i, grad L>)``, and the inner learning rate cancels.
    The paper computes second-order gradients; here one pass of forward differentiation gives all inner products
    (``lookahead``), equal up to rounding. No state is kept between steps.

    The authors remove the meta set from the training images (10 per CIFAR class). Several ranks weight their joint
    batch.

    Args:
        context: the run.
        per_class: clips per class in the meta set.
        split: source of the meta set: ``val`` is disjoint from training, but validation is then no longer independent;
            ``train`` overlaps with training.
        task: task whose classes are balanced; the run's first by default.
        meta_batch_size: clips per meta batch and rank; by default that of training.

    Raises:
        ValueError: see `MetaSet`.
    """

    def weights(self, batch: ClipBatch, meta: ClipBatch, step: Step) -> Tensor:
        """Return this rank's weights, ``[N]``; over all ranks they sum to 1, or are all 0."""
        now = trainable(step.network)
        direction = mean_gradient(SampleLosses(step, meta), now)
        return normalised(inner_products(SampleLosses(step, batch), now, direction))


def normalised(products: Tensor) -> Tensor:
    """Clamp products at 0 and divide by their sum over all ranks unless it is 0.

    >>> import torch
    >>> normalised(torch.tensor([3.0, -5.0, 1.0])), normalised(torch.tensor([-1.0, 0.0]))
    (tensor([0.7500, 0.0000, 0.2500]), tensor([0., 0.]))
    """
    helpful = products.clamp(min=0)
    total = sum_over_ranks(helpful.sum())
    return helpful / total.where(total != 0, 1.0)
