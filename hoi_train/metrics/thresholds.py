"""The score from which on a class of a multi-label task is predicted, chosen for each class on validation."""

from __future__ import annotations

import torch
from torch import Tensor

DEFAULT = 0.5


def fit_thresholds(logits: Tensor, target: Tensor) -> Tensor:
    """Return the threshold of each class that gives the highest F1 on these rows.

    It lies halfway between two scores, or between the lowest and 0; of equally good ones the highest is taken. A
    class that no row carries keeps 0.5: nothing can be learned about it.

    Args:
        logits: floating ``[N, C]``.
        target: ``[N, C]`` of zeros and ones.

    Returns:
        float64 ``[C]`` in 0..1; a class is predicted where ``sigmoid(logit)`` is above it.

    >>> logits = torch.tensor([[2.0], [1.0], [-1.0], [-2.0]])
    >>> round(fit_thresholds(logits, torch.tensor([[1], [1], [1], [0]])).item(), 4)  # between 0.2689 and 0.1192
    0.1941
    """
    columns = zip(logits.double().sigmoid().T, target.bool().T, strict=True)
    return torch.stack([_fit(scores, truth) for scores, truth in columns])


def _fit(scores: Tensor, truth: Tensor) -> Tensor:
    if not truth.any():
        return scores.new_tensor(DEFAULT)
    ranked, order = scores.sort(descending=True)
    below = torch.cat([ranked[1:], ranked.new_zeros(1)])
    predicted = torch.arange(1, len(ranked) + 1)
    f1 = 2 * truth[order].cumsum(0) / (predicted + truth.sum())
    f1[below == ranked] = -1.0  # a threshold cannot part equal scores
    best = int(f1.argmax())
    return (ranked[best] + below[best]) / 2
