"""Top-k accuracy of single-label tasks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hoi_train.metrics.metric import SINGLE, Place, Scalar, ScalarMetric


def top_k(logits: Tensor, target: Tensor, k: int) -> float:
    """Return the share of rows whose true class is among the ``k`` largest logits; nan without rows.

    Among equal logits the lower class id comes first, so top-1 agrees with ``argmax`` and no tie is left to chance.
    With fewer than ``k`` classes it is 1.

    >>> top_k(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([1]), 1), top_k(torch.zeros(1, 3), torch.tensor([1]), 2)
    (0.0, 1.0)
    """
    if not len(target):
        return math.nan
    true_logit = logits.gather(1, target[:, None])
    lower_id = torch.arange(logits.shape[1]) < target[:, None]
    before = (logits > true_logit) | ((logits == true_logit) & lower_id)
    return int((before.sum(1) < k).sum()) / len(target)


def _metric(k: int, *places: Place) -> ScalarMetric:
    name, reads = f"top{k}", Scalar(f"top-{k}", places=frozenset(places))
    return ScalarMetric(name, lambda rows: {name: top_k(rows.logits, rows.target, k)}, {name: reads}, labels=SINGLE)


TOP1 = _metric(1, "epoch", "compare", "curves")
TOP5 = _metric(5, "epoch")
