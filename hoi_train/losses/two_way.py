"""Two-way loss: a sample's labels against one another, and a class's samples of the batch against one another."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import softplus

from hoi_train.losses.base import Loss
from hoi_train.losses.zlpr import log_sum_exp
from hoi_train.records import ClassCounts


class TwoWay(Loss):
    r"""Separate positives from negatives within each sample and within each class of the batch.

    ``l(Z) = softplus(T_n log sum_neg e^{z / T_n} + T_p log sum_pos e^{-z / T_p})`` compares the highest negative
    logits of a set Z with its lowest positive ones. The loss of a batch is the mean of ``l`` over the rows that have
    a label plus the mean of ``l`` over the columns that have one.
    Source: Kobayashi, "Two-way Multi-Label Loss", CVPR 2023, and the author's ``utils/criterion.py``, which has -100
    for what is left out of a sum, so that logits beyond that leak in; here it is exact. Labels between 0 and 1 give
    their share of each sum; there every label above 0 is a full positive.

    **The loss of a sample depends on its batch**: the mean over columns is part of every row, and the rows with a
    label bear that of the rows; so the mean over samples is the author's loss. A row without labels teaches only
    through the columns. With several processes each has its own columns. A rare class has a say only in the batches
    that hold it. Scores are for ranking, ``sigmoid(z)`` is no probability.

    Args:
        class_counts: of the training split, multi-label; only their number C is used.
        temperature_pos: T_p > 0; the higher, the more positives have a say.
        temperature_neg: T_n > 0; the higher, the more negatives have a say.

    >>> import torch
    >>> loss = TwoWay(ClassCounts.multi([6, 3], num_samples=9))
    >>> loss(torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))  # one row and one column: log(1 + 1) each
    tensor([2.0794, 0.6931])
    """

    labels = frozenset({"multi"})

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        temperature_pos: Annotated[float, Gt(0)] = 4.0,
        temperature_neg: Annotated[float, Gt(0)] = 1.0,
    ) -> None:
        super().__init__(class_counts)
        self.temperature_pos = temperature_pos
        self.temperature_neg = temperature_neg

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return each row's own loss, scaled by N over the rows with labels, plus the mean of the columns', ``[N]``."""
        rows = self._compare(logits, target, dim=1) * len(logits)
        return rows / _labelled(target, dim=1) + self._compare(logits, target, dim=0).sum() / _labelled(target, dim=0)

    def _compare(self, logits: Tensor, target: Tensor, dim: int) -> Tensor:
        """Return ``l`` of each row (``dim = 1``) or column (``dim = 0``); 0 where all labels are of one kind."""
        positive = log_sum_exp(-logits / self.temperature_pos, target, dim)
        negative = log_sum_exp(logits / self.temperature_neg, 1 - target, dim)
        return softplus(self.temperature_neg * negative + self.temperature_pos * positive)


def _labelled(target: Tensor, dim: int) -> Tensor:
    """Return how many rows or columns have a label, at least 1."""
    return (target > 0).any(dim).sum().clamp(min=1)
