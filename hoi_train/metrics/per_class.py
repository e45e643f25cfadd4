"""Recall, precision, F1 and average precision of each class.

Counts are divided here and not by torchmetrics, which divides in float32 and is 1e-7 away from the exact value
(measured against scikit-learn).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hoi_train.metrics.metric import BOTH, MULTI, SINGLE, PerClassMetric, Shown
from hoi_train.metrics.rows import EvaluatedRows


def recall(rows: EvaluatedRows) -> Tensor:
    """Return ``hits / support``."""
    return _rate(rows, rows.counts.hits, rows.support)


def precision(rows: EvaluatedRows) -> Tensor:
    """Return ``hits / predicted``; 0 for a class with support that was never predicted, as in the CDB code."""
    return _rate(rows, rows.counts.hits, rows.counts.predicted)


def f1(rows: EvaluatedRows) -> Tensor:
    """Return ``2 hits / (support + predicted)``."""
    return _rate(rows, 2 * rows.counts.hits, rows.support + rows.counts.predicted)


def _rate(rows: EvaluatedRows, part: Tensor, whole: Tensor) -> Tensor:
    """Return float64 ``[C]`` in 0..1; nan for a class without support, 0 where only the whole is 0."""
    return (part.double() / whole.double().clamp(min=1)).masked_fill(rows.support == 0, math.nan)


def ap(rows: EvaluatedRows) -> Tensor:
    """Return the average precision of each class against the rest.

    Single-label rows are ranked by softmax scores. Multi-label rows are ranked by the logits themselves: the sigmoid
    keeps their order but makes equal what lies beyond ±37.
    """
    return average_precision(rows.logits.softmax(1) if rows.task.labels == "single" else rows.logits, rows.truth)


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


RECALL = PerClassMetric(
    "recall",
    recall,
    "recall",
    "rec",
    shown={"epoch": Shown(BOTH, BOTH), "compare": Shown(BOTH, SINGLE), "curves": Shown(BOTH, SINGLE)},
)
PRECISION = PerClassMetric(
    "precision",
    precision,
    "precision",
    "prec",
    shown={"epoch": Shown(BOTH, BOTH), "compare": Shown(BOTH, SINGLE)},
)
F1 = PerClassMetric("f1", f1, "F1")
AP = PerClassMetric(
    "ap",
    ap,
    "mAP",
    class_heading="AP",
    average="map",
    overall="map",
    shown={"epoch": Shown(overall=BOTH), "compare": Shown(MULTI, MULTI), "curves": Shown(MULTI, MULTI)},
)
