"""What the measures of human-object interactions share: scores, the best candidates of a frame, and true pairs met."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch

from hoi_train.core.pairs import Bools, EvaluatedFrames, Floats, Ints, PredictedPairs

Score = Callable[[PredictedPairs, Ints], Floats]


class Candidates(NamedTuple):
    """M kept candidates, each one predicate of one predicted pair: frame after frame, in a frame the best first.

    Args:
        rows: int64 ``[M]``, row of the predicted pair.
        predicates: int64 ``[M]``, id of the predicate.
        scores: float64 ``[M]``, what they were ranked by.
        matches: int64 ``[M]``, row of the true pair that the candidate may hit; -1 where there is none.
    """

    rows: Ints
    predicates: Ints
    scores: Floats
    matches: Ints


def product(predicted: PredictedPairs, rows: Ints) -> Floats:
    """Return ``(predicate score * person score) * object score`` of the rows, float64 ``[len(rows), P]``.

    The order of the factors is part of the protocol: another order may differ in the last bit, and bits rank.
    """
    of_person, of_object = predicted.person_scores[rows, None], predicted.object_scores[rows, None]
    return predicted.scores[rows] * of_person * of_object


def log_sum(predicted: PredictedPairs, rows: Ints) -> Floats:
    """Return ``(ln predicate score + ln person score) + ln object score`` of the rows, float64 ``[len(rows), P]``.

    The logarithm of a score of 0 is that of 1e-300, so a smaller positive score ranks below it.
    """
    of_person, of_object = predicted.person_scores[rows, None], predicted.object_scores[rows, None]
    return _log(predicted.scores[rows]) + _log(of_person) + _log(of_object)


def _log(values: Floats) -> Floats:
    # Not np.log: it differs in the last bit from the C library's logarithm (0.3 % of values), which the official code
    # takes, and that decides between near-equal sums.
    positive = np.where(values > 0, values, 1e-300)
    return np.fromiter(map(math.log, positive.ravel().tolist()), np.float64, values.size).reshape(values.shape)


def overlaps(evaluated: EvaluatedFrames, true_rows: Ints, predicted_rows: Ints, iou_threshold: float) -> Floats:
    """Return how well predicted pairs of one frame lie on its true pairs.

    A predicted pair lies on a true one if the object classes are equal and both boxes overlap enough. Box areas have
    no +1: ``IoU = I / (|A| + |B| - I)``.

    Args:
        evaluated: holds the pairs.
        true_rows: int64 ``[m]``, the frame's rows of the ground truth.
        predicted_rows: int64 ``[n]``, the frame's rows of the predictions.
        iou_threshold: least intersection over union for the person and for the object, above 0 up to 1.

    Returns:
        float64 ``[n, m]``, the smaller of the two intersections over union; -1 where a pair does not lie on the other.
    """
    # Imported on first use: it costs seconds, and most commands never evaluate.
    from torchvision.ops import box_iou

    truth, predicted = evaluated.truth, evaluated.predicted
    of_person, of_object = (
        box_iou(torch.from_numpy(ours[predicted_rows]), torch.from_numpy(theirs[true_rows])).numpy()
        for ours, theirs in ((predicted.person_boxes, truth.person_boxes), (predicted.object_boxes, truth.object_boxes))
    )
    same_class = predicted.object_class[predicted_rows, None] == truth.object_class[true_rows]
    # Two boxes without area give 0 / 0, and nan is below every threshold too.
    fits = same_class & (of_person >= iou_threshold) & (of_object >= iou_threshold)
    return np.where(fits, np.minimum(of_person, of_object), -1.0)


def best_candidates(
    evaluated: EvaluatedFrames,
    frames: Iterable[tuple[Ints, Ints]],
    score: Score,
    top: int,
    iou_threshold: float,
) -> Candidates:
    """Return the ``top`` best candidates of each frame with the true pair that each may hit.

    Of equal scores the later row comes first, then the higher predicate. The cut takes no account of classes. A
    candidate may hit a true pair that it lies on (see :func:`overlaps`) and that carries its predicate; of several
    the one it overlaps best, of equals the first.

    Args:
        evaluated: holds the pairs.
        frames: rows of the ground truth and of the predictions, see :meth:`EvaluatedFrames.by_frame`.
        score: :func:`log_sum` or :func:`product`.
        top: candidates kept of a frame, at least 1.
        iou_threshold: see :func:`overlaps`.
    """
    none = np.empty(0, dtype=np.int64)
    kept = [Candidates(none, none, none.astype(np.float64), none)]
    for true_rows, predicted_rows in frames:
        if not len(predicted_rows):
            continue
        scores = score(evaluated.predicted, predicted_rows)
        ranking = np.argsort(scores.ravel(), kind="stable")[::-1][:top]
        pairs, predicates = np.divmod(ranking, scores.shape[1])
        matches = np.full(len(ranking), -1, dtype=np.int64)
        if len(true_rows):
            overlap = overlaps(evaluated, true_rows, predicted_rows, iou_threshold)[pairs]
            carries = evaluated.truth.predicates[true_rows[:, None], predicates].T
            matches = best_match(np.where(carries, overlap, -1.0), true_rows)
        kept.append(Candidates(predicted_rows[pairs], predicates, scores.ravel()[ranking], matches))
    return Candidates(*(np.concatenate(column) for column in zip(*kept, strict=True)))


def best_match(overlap: Floats, true_rows: Ints) -> Ints:
    """Return for each line of ``overlap [n, m]``, m >= 1, the true row it overlaps best, or -1; of equals the first."""
    return np.where(overlap.max(axis=1) >= 0, true_rows[overlap.argmax(axis=1)], -1)


def first_claims(matches: Ints) -> Bools:
    """Return where a true row is named for the first time, bool ``[M]``; never for -1.

    >>> first_claims(np.array([4, -1, 4, 2])).tolist()
    [True, False, False, True]
    """
    claimed, first = np.unique(matches, return_index=True)
    claims = np.zeros(len(matches), dtype=np.bool_)
    claims[first[claimed >= 0]] = True
    return claims


def check_iou_threshold(iou_threshold: float) -> None:
    """Raise ``ValueError`` unless the threshold is above 0, at most 1."""
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be above 0, at most 1, got {iou_threshold}")
