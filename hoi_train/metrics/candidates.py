"""Steps shared by the pair metrics: ranking scores, the top candidates per frame, matching with the ground truth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch

from hoi_train.core.pairs import Bools, EvaluatedFrames, Floats, Ints, PredictedPairs

Score = Callable[[PredictedPairs, Ints], Floats]


class Candidates(NamedTuple):
    """M kept candidates, each one predicate of one predicted pair; by frame, the highest score first.

    Args:
        rows: int64 ``[M]``, row of the predicted pair.
        predicates: int64 ``[M]``, id of the predicate.
        scores: float64 ``[M]``, the score that ranks them.
        matches: int64 ``[M]``, row of the true pair that the candidate matches; -1 for no match.
    """

    rows: Ints
    predicates: Ints
    scores: Floats
    matches: Ints


def product(predicted: PredictedPairs, rows: Ints) -> Floats:
    """Return ``(predicate score * person score) * object score`` of the rows, float64 ``[len(rows), P]``.

    The order of the factors is part of the protocol: another order may differ in the last bit, which changes ranks.
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
    # Not np.log: for 0.3 % of values its last bit differs from the C library's logarithm, which the official code
    # uses, and that changes the order of near-equal sums.
    positive = np.where(values > 0, values, 1e-300)
    return np.fromiter(map(math.log, positive.ravel().tolist()), np.float64, values.size).reshape(values.shape)


def overlaps(evaluated: EvaluatedFrames, true_rows: Ints, predicted_rows: Ints, iou_threshold: float) -> Floats:
    """Return the overlap of the predicted and the true pairs of one frame.

    Two pairs overlap if their object classes are equal and the intersection over union of both boxes reaches the
    threshold. Box areas are computed without +1: ``IoU = I / (|A| + |B| - I)``.

    Args:
        evaluated: holds the pairs.
        true_rows: int64 ``[m]``, the frame's rows of the ground truth.
        predicted_rows: int64 ``[n]``, the frame's rows of the predictions.
        iou_threshold: least intersection over union for the person and for the object, above 0 up to 1.

    Returns:
        float64 ``[n, m]``, the smaller of the two intersections over union; -1 where the pairs do not overlap.
    """
    # Imported on first use: it costs seconds, and most commands never evaluate.
    from torchvision.ops import box_iou

    truth, predicted = evaluated.truth, evaluated.predicted
    of_person, of_object = (
        box_iou(torch.from_numpy(boxes[predicted_rows]), torch.from_numpy(true_boxes[true_rows])).numpy()
        for boxes, true_boxes in (
            (predicted.person_boxes, truth.person_boxes),
            (predicted.object_boxes, truth.object_boxes),
        )
    )
    same_class = predicted.object_class[predicted_rows, None] == truth.object_class[true_rows]
    # The IoU of two boxes without area is 0 / 0 = nan, which fails the comparison.
    fits = same_class & (of_person >= iou_threshold) & (of_object >= iou_threshold)
    return np.where(fits, np.minimum(of_person, of_object), -1.0)


def best_candidates(
    evaluated: EvaluatedFrames,
    frames: Iterable[tuple[Ints, Ints]],
    score: Score,
    top: int,
    iou_threshold: float,
) -> Candidates:
    """Return the ``top`` best candidates of each frame, of all classes together, with the true pair each matches.

    Of equal scores the later row comes first, then the higher predicate. A candidate matches the true pair with its
    predicate that it overlaps most (see :func:`overlaps`), the first of equals.

    Args:
        evaluated: holds the pairs.
        frames: rows of the ground truth and of the predictions, see :meth:`EvaluatedFrames.by_frame`.
        score: :func:`log_sum` or :func:`product`.
        top: candidates kept per frame, at least 1.
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
    """Return the true row of the largest (first of equals) overlap per row of ``overlap [n, m]``, m >= 1; else -1."""
    return np.where(overlap.max(axis=1) >= 0, true_rows[overlap.argmax(axis=1)], -1)


def first_claims(matches: Ints) -> Bools:
    """Return where each true row is matched for the first time, bool ``[M]``; False for -1.

    >>> first_claims(np.array([4, -1, 4, 2])).tolist()
    [True, False, False, True]
    """
    claimed, first = np.unique(matches, return_index=True)
    claims = np.zeros(len(matches), dtype=np.bool_)
    claims[first[claimed >= 0]] = True
    return claims


def check_iou_threshold(iou_threshold: float) -> None:
    """Raise ``ValueError`` unless the threshold is above 0 and at most 1."""
    if not 0 < iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be above 0, at most 1, got {iou_threshold}")
