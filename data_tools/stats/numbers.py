"""How long a tail is, and how far two splits are apart: numbers made from class counts alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hoi_train.core.records import Split

Numbers = NDArray[np.float64]
Counts = Mapping[Split, tuple[int, ...]]

MANY, FEW = 100, 20  # Liu et al., "Large-Scale Long-Tailed Recognition in an Open World" (CVPR 2019)


def by_count(counts: Counts) -> list[int]:
    """Return class ids, the most frequent in the first split (train, if there is one) first; of equals the lower id."""
    first = next(iter(counts.values()))
    return sorted(range(len(first)), key=lambda class_id: (-first[class_id], class_id))


def imbalance(counts: Sequence[int]) -> float:
    """Return the imbalance factor: the count of the most frequent class over that of the rarest that occurs.

    >>> imbalance([100, 20, 0])
    5.0
    """
    present = [count for count in counts if count]
    return max(present) / min(present) if present else math.nan


def gini(counts: Sequence[int]) -> float:
    """Return the Gini coefficient of the counts: 0 if all are alike, (C - 1) / C if one class has all.

    >>> gini([5, 5]), gini([0, 0, 0, 8])
    (0.0, 0.75)
    """
    ordered, number = np.sort(np.asarray(counts, np.float64)), len(counts)
    if not ordered.sum():
        return math.nan
    ranks = np.arange(1, number + 1)
    return float((2 * ranks - number - 1) @ ordered / (number * ordered.sum()))


def shots(counts: Sequence[int]) -> dict[str, int]:
    """Return how many classes are many-shot (more than 100), medium-shot (20 to 100), few-shot (1 to 19) and absent.

    Liu et al. (CVPR 2019) have no absent classes.

    >>> shots([500, 100, 20, 19, 0])
    {'many': 1, 'medium': 2, 'few': 1, 'none': 1}
    """
    values = np.asarray(counts)
    return {
        "many": int((values > MANY).sum()),
        "medium": int(((values >= FEW) & (values <= MANY)).sum()),
        "few": int(((values > 0) & (values < FEW)).sum()),
        "none": int((values == 0).sum()),
    }


def shares(counts: Sequence[int]) -> Numbers:
    """Return the counts as parts of their sum, ``[C]``; zeros if there is none."""
    values = np.asarray(counts, np.float64)
    parts: Numbers = values / max(float(values.sum()), 1.0)
    return parts


def share_ratios(train: Sequence[int], other: Sequence[int]) -> Numbers:
    """Return each class's share in another split over its share in train, ``[C]``; nan where train has none of it.

    >>> share_ratios([8, 2, 0], [2, 2, 1]).round(2).tolist()
    [0.5, 2.0, nan]
    """
    before, after = shares(train), shares(other)
    ratios: Numbers = np.divide(after, before, out=np.full(len(before), np.nan), where=before > 0)
    return ratios


def jensen_shannon(one: Sequence[int], other: Sequence[int]) -> float:
    """Return the Jensen-Shannon divergence of two class distributions in bits: 0 if alike, 1 if they share no class.

    >>> jensen_shannon([1, 1], [2, 2]), jensen_shannon([3, 0], [0, 1])
    (0.0, 1.0)
    """
    if not (sum(one) and sum(other)):
        return math.nan
    first, second = shares(one), shares(other)
    middle = (first + second) / 2
    return (_divergence(first, middle) + _divergence(second, middle)) / 2


def spread(values: ArrayLike) -> dict[str, float] | None:
    """Return minimum, median, mean and maximum; ``None`` of nothing."""
    numbers = np.asarray(values, np.float64)
    if not numbers.size:
        return None
    return {
        "min": float(numbers.min()),
        "median": float(np.median(numbers)),
        "mean": float(numbers.mean()),
        "max": float(numbers.max()),
    }


def _divergence(one: Numbers, other: Numbers) -> float:
    held = one > 0
    return float(one[held] @ np.log2(one[held] / other[held]))
