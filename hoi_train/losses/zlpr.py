"""ZLPR: ranks the true labels of a sample above, and the other labels below, the threshold 0."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from hoi_train.core.records import ClassCounts
from hoi_train.losses.base import Loss


class ZLPR(Loss):
    r"""Rank true labels above 0 and the others below: ``log(1 + sum_neg e^z) + log(1 + sum_pos e^-z)``.

    The multi-label form of softmax cross-entropy: the largest wrong logit and the smallest right one have nearly all
    of the gradient, so that many easy negatives do not dominate. A label is predicted if z > 0. Classes are not
    independent, and ``sigmoid(z)`` is no probability.
    Source: Su et al., "ZLPR: A Novel Loss for Multi-label Classification", 2022. Labels between 0 and 1 enter each sum
    with their share. The mean over samples.

    Args:
        class_counts: of the training split, multi-label; only C is used.

    >>> loss = ZLPR(ClassCounts.multi([6, 3, 1], num_samples=9))
    >>> loss(torch.zeros(2, 3), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])).exp()
    tensor([6., 4.])
    """

    labels = frozenset({"multi"})

    def __init__(self, class_counts: ClassCounts) -> None:
        super().__init__(class_counts)

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each row, ``[N]``."""
        return softplus(log_sum_exp(logits, 1 - target, dim=1)) + softplus(log_sum_exp(-logits, target, dim=1))


def log_sum_exp(values: Tensor, shares: Tensor, dim: int) -> Tensor:
    """Return ``log sum shares e^values`` along a dimension; if all shares are 0, the type's lowest number.

    The lowest number replaces -inf, which would give a nan gradient.

    Args:
        values: floating ``[N, C]``.
        shares: as ``values``, >= 0.
        dim: of the sum.

    >>> log_sum_exp(torch.tensor([[0.0, 1.0, 9.0]]), torch.tensor([[1.0, 1.0, 0.0]]), dim=1).exp()
    tensor([3.7183])
    """
    lowest = torch.finfo(values.dtype).min
    return torch.where(shares == 0, lowest, values + shares.log()).logsumexp(dim)
