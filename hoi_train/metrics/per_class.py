"""What both label kinds share: rates from counts, exact average precision, means over the classes with support.

The counts come from torchmetrics; the divisions are made here, because torchmetrics divides in float32 and is
1e-7 away from the exact value (measured against scikit-learn).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class PerClass(NamedTuple):
    """What one evaluation yields before averaging.

    Args:
        support: int64 ``[C]``, rows that carry each class.
        vectors: float64 ``[C]`` each: ``recall``, ``precision``, ``f1``, ``ap``; nan for a class without support.
        accuracy: ``top1`` and ``top5`` of single-label tasks, else empty.
        confusion: int64 ``[C, C]``, rows truth, columns prediction; single-label only.
    """

    support: Tensor
    vectors: dict[str, Tensor]
    accuracy: dict[str, float]
    confusion: Tensor | None


def rates(hits: Tensor, predicted: Tensor, support: Tensor) -> dict[str, Tensor]:
    """Return recall, precision and F1 of each class.

    ``recall = hits / support``, ``precision = hits / predicted``, ``f1 = 2 hits / (support + predicted)``.

    Args:
        hits: int64 ``[C]``, rows that carry the class and were predicted to.
        predicted: int64 ``[C]``, rows predicted to carry the class.
        support: int64 ``[C]``, rows that carry the class.

    Returns:
        float64 ``[C]`` each, in 0..1. A class without support is nan in all three; a class with support that was
        never predicted has precision 0.

    >>> rates(torch.tensor([1, 0, 0]), torch.tensor([4, 0, 2]), torch.tensor([2, 3, 0]))["precision"].tolist()
    [0.25, 0.0, nan]
    """
    hits, predicted, support = hits.double(), predicted.double(), support.double()
    vectors = {
        "recall": hits / support.clamp(min=1),
        "precision": hits / predicted.clamp(min=1),
        "f1": 2 * hits / (support + predicted).clamp(min=1),
    }
    return {name: vector.masked_fill(support == 0, math.nan) for name, vector in vectors.items()}


def average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    """Return the exact average precision of each column.

    ``AP = Σ_k (R_k − R_{k−1}) P_k`` over the distinct scores in falling order: rows of equal score enter together,
    so their order in the file does not matter. No interpolation, no bins; equals scikit-learn's
    ``average_precision_score``.

    Args:
        scores: float64 ``[N, C]``; only their order within a column counts.
        truth: bool ``[N, C]``.

    Returns:
        float64 ``[C]`` in 0..1; nan for a column without a positive.

    >>> average_precision(torch.tensor([[0.9], [0.5], [0.5]]), torch.tensor([[True], [False], [True]])).item()
    0.8333333333333333
    """
    columns = zip(scores.T, truth.T, strict=True)
    return torch.tensor([_column_ap(column, positives) for column, positives in columns], dtype=torch.float64)


def _column_ap(scores: Tensor, truth: Tensor) -> float:
    if not truth.any():
        return math.nan
    ranked, order = scores.sort(descending=True)
    last_of_ties = torch.cat([ranked[1:] != ranked[:-1], ranked.new_ones(1, dtype=torch.bool)]).nonzero().flatten()
    hits = truth[order].cumsum(0)[last_of_ties].double()
    precision = hits / (last_of_ties + 1)
    new_hits = hits.diff(prepend=hits.new_zeros(1))
    # fsum is exactly rounded, so the result cannot depend on the number of threads.
    return math.fsum((new_hits * precision).tolist()) / hits[-1].item()


def counted(support: Tensor, ids: Sequence[int] | None = None) -> int:
    """Return how many of the classes ``ids`` (all when left out) have support."""
    return int((_pick(support, ids) > 0).sum())


def counted_mean(vector: Tensor, ids: Sequence[int] | None = None) -> float:
    """Return the mean of the classes ``ids`` (all when left out) without the nan ones; nan when none is left.

    >>> counted_mean(torch.tensor([0.5, math.nan, 1.0])), counted_mean(torch.tensor([0.5, math.nan]), ids=(1,))
    (0.75, nan)
    """
    values = [value for value in _pick(vector, ids).tolist() if not math.isnan(value)]
    return math.fsum(values) / len(values) if values else math.nan


def _pick(vector: Tensor, ids: Sequence[int] | None) -> Tensor:
    return vector if ids is None else vector[list(ids)]
