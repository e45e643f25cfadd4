"""Two-way loss: contrasts the labels of each sample, and the samples of each class in the batch."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor
from torch.nn.functional import softplus

from hoi_train.core.ranks import stacked_over_ranks, sum_over_ranks
from hoi_train.core.records import ClassCounts
from hoi_train.losses.base import Loss
from hoi_train.losses.zlpr import log_sum_exp


class TwoWay(Loss):
    r"""Separate positives from negatives within each sample and within each class of the batch.

    ``l(Z) = softplus(T_n log sum_neg e^{z / T_n} + T_p log sum_pos e^{-z / T_p})`` compares the highest negative
    logits of a set Z with its lowest positive ones. The loss of a batch is the mean of ``l`` over the rows that have
    a label plus the mean of ``l`` over the columns that have one.
    Source: Kobayashi, "Two-way Multi-Label Loss", CVPR 2023, and the author's ``utils/criterion.py``, which uses -100
    for terms outside a sum, so that logits below that leak in; here it is exact. Labels between 0 and 1 enter each sum
    with their share; there every label above 0 is a full positive.

    **The loss of a sample depends on its batch**: the mean over columns is added to every row, and the mean over rows
    is shared by the rows with a label, so that the mean over samples is the author's loss. A row without labels
    contributes only through the columns, a rare class only in batches with a positive. The batch is that of all
    processes. Scores are for ranking; ``sigmoid(z)`` is no probability.

    Args:
        class_counts: of the training split, multi-label; only C is used.
        temperature_pos: T_p > 0; higher values include more positives.
        temperature_neg: T_n > 0; higher values include more negatives.

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
        """Return each row's loss times N over the number of rows with labels, plus the columns' mean, ``[N]``."""
        held = (target > 0).to(logits.dtype)
        mine = torch.cat([logits.new_tensor([len(logits)]), held.amax(1).sum()[None], held.sum(0)])
        num_rows, labelled, *_ = whole = sum_over_ranks(mine) if self.training else mine
        rows = softplus(self._gap(logits, target, 1)) * num_rows / labelled.clamp(min=1)
        columns = softplus(self._gap(logits, target, 0)).sum() / whole[2:].clamp(max=1).sum().clamp(min=1)
        # Over ranks the columns' mean is weighted by a rank's share of the rows; its gradient, of this rank's rows
        # only, counts in full.
        columns = columns.detach() + (columns - columns.detach()) * num_rows / max(len(logits), 1)
        losses: Tensor = rows + columns
        return losses

    def _gap(self, logits: Tensor, target: Tensor, dim: int) -> Tensor:
        """Return the excess of negatives over positives in each row (``dim = 1``) or column (``dim = 0``)."""
        positive = log_sum_exp(-logits / self.temperature_pos, target, dim)
        negative = log_sum_exp(logits / self.temperature_neg, 1 - target, dim)
        if dim == 0 and self.training:  # in evaluation every rank has all samples
            positive, negative = (stacked_over_ranks(part).logsumexp(0) for part in (positive, negative))
        return self.temperature_neg * negative + self.temperature_pos * positive
