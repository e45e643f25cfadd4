"""Person-wise top-k recall, precision, accuracy and F1 of human-object interactions in video.

The metric of the gaze transformer (Ni et al., "Human-object interaction prediction in videos through gaze
following", CVIU 2023; nizhf/hoi-prediction-gaze-transformer, ``common/metrics.py`` at b56583e), over the k best
candidates of each predicted person, among all of its pairs. Equal scores keep the order of the pairs, then of the
predicates; the released code leaves that to an unstable sort.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hoi_train.core.pairs import Bools, EvaluatedFrames, Floats, Ints
from hoi_train.metrics.candidates import best_match, check_iou_threshold, first_claims, overlaps, product

MEASURES = ("recall", "precision", "accuracy", "f1")


@dataclass(frozen=True, eq=False)
class PersonTopK:
    """The result, for T thresholds and K numbers of candidates.

    Args:
        thresholds: T predicate scores; a kept candidate counts as predicted if its score reaches the threshold.
        ks: candidates kept per person.
        iou_threshold: least intersection over union of a match, for both boxes.
        values: ``recall``, ``precision``, ``accuracy`` and ``f1``, float64 ``[T, K]`` each, in 0..1; nan where no
            frame has a value.
        counted: by the same names int64 ``[T, K]``, number of averaged values: one per frame with predictions, one per
            true person of a frame without.
    """

    protocol: ClassVar[str] = "person_top_k"

    thresholds: tuple[float, ...]
    ks: tuple[int, ...]
    iou_threshold: float
    values: Mapping[str, Floats]
    counted: Mapping[str, Ints]

    def __post_init__(self) -> None:
        shape = (len(self.thresholds), len(self.ks))
        for name in MEASURES:
            for grid in (self.values[name], self.counted[name]):
                if grid.shape != shape:
                    raise ValueError(f"{name} must be {list(shape)}, got {list(grid.shape)}")


def person_top_k(
    evaluated: EvaluatedFrames,
    *,
    thresholds: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    ks: tuple[int, ...] = (1, 3, 5, 10, 20),
    iou_threshold: float = 0.5,
) -> PersonTopK:
    """Measure the candidates of each predicted person.

    Each predicted pair is matched with the true pair it overlaps most, unless an earlier pair is matched with that one.
    Its labels are the predicates of the matched pair; without a match there are none. With n labels on a person's
    pairs, pp predictions among its k best candidates and tp labels among these predictions: ``recall = tp / n``,
    ``precision = tp / pp``, ``accuracy = tp / (pp + n - tp)``, ``f1 = 2 tp / (n + pp)``, each averaged over the people
    of the frame for whom its divisor is not 0. If precision is defined for nobody in a frame and a label is among the k
    best, it is 0. A frame without predictions counts as 0 for each of its true persons, except in precision. A person
    without predicted pairs lowers recall in frames without predictions only.

    Args:
        evaluated: frames, ground truth and predictions; the person's and the object's score rank, too.
        thresholds: in 0..1, at least one.
        ks: at least one, each at least 1; people with fewer candidates have all of them kept.
        iou_threshold: above 0, at most 1; 0.5 in the published code.

    Raises:
        ValueError: an option is out of range.
    """
    if not thresholds or not all(0 <= threshold <= 1 for threshold in thresholds):
        raise ValueError(f"thresholds must be scores in 0..1, at least one, got {thresholds}")
    if not ks or min(ks) < 1:
        raise ValueError(f"ks must be numbers of at least 1, at least one, got {ks}")
    check_iou_threshold(iou_threshold)
    shape = (len(MEASURES), len(thresholds), len(ks))
    total, counted = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    for true_rows, predicted_rows in evaluated.by_frame():
        if len(predicted_rows):
            labels = _matched_labels(evaluated, true_rows, predicted_rows, iou_threshold)
            frame = _frame_measures(evaluated, predicted_rows, labels, np.array(thresholds), np.array(ks))
            total += np.where(np.isnan(frame), 0.0, frame)
            counted += ~np.isnan(frame)
        else:
            people = len(np.unique(evaluated.truth.person_index[true_rows]))
            counted += people * np.array([name != "precision" for name in MEASURES])[:, None, None]
    values = _ratio(total, counted)
    return PersonTopK(
        tuple(thresholds),
        tuple(ks),
        iou_threshold,
        dict(zip(MEASURES, values, strict=True)),
        dict(zip(MEASURES, counted, strict=True)),
    )


def _matched_labels(evaluated: EvaluatedFrames, true_rows: Ints, predicted_rows: Ints, iou_threshold: float) -> Bools:
    """Return the labels of the predicted pairs of a frame, bool ``[n, P]``."""
    labels = np.zeros((len(predicted_rows), evaluated.num_predicates), dtype=np.bool_)
    if len(true_rows):
        matches = best_match(overlaps(evaluated, true_rows, predicted_rows, iou_threshold), true_rows)
        taken = first_claims(matches)
        labels[taken] = evaluated.truth.predicates[matches[taken]]
    return labels


def _frame_measures(evaluated: EvaluatedFrames, rows: Ints, labels: Bools, thresholds: Floats, ks: Ints) -> Floats:
    """Return the four measures of a frame with predictions, float64 ``[4, T, K]``; nan where undefined."""
    predicted = evaluated.predicted
    ranks, people = product(predicted, rows), predicted.person_index[rows]
    counts = [
        _person_counts(labels[own], predicted.scores[rows[own]], ranks[own], thresholds, ks)
        for own in (people == person for person in np.unique(people))
    ]
    # Over A people: [A, T, K], labels on all pairs [A, 1, 1], labels among the k best [A, 1, K].
    tp, pp, found = (np.stack(column) for column in zip(*(person[:3] for person in counts), strict=True))
    n = np.array([person[3] for person in counts])[:, None, None]
    grids = (_ratio(tp, n), _ratio(tp, pp), _ratio(tp, pp + n - tp), _ratio(2 * tp, n + pp))
    recall, precision, accuracy, f1 = (_mean_over_people(grid) for grid in grids)
    precision = np.where(np.isnan(precision) & found.any(axis=0), 0.0, precision)
    return np.stack([recall, precision, accuracy, f1])


def _person_counts(
    labels: Bools, scores: Floats, ranks: Floats, thresholds: Floats, ks: Ints
) -> tuple[Ints, Ints, Bools, int]:
    """Return one person's tp and pp ``[T, K]``, whether a label is among the k best ``[1, K]``, and its labels n."""
    best = np.argsort(-ranks.ravel(), kind="stable")[: ks.max()]
    last = np.minimum(ks, len(best)) - 1
    kept = labels.ravel()[best]
    positive = scores.ravel()[best] >= thresholds[:, None]
    tp, pp = (marks.cumsum(axis=1, dtype=np.int64)[:, last] for marks in (positive & kept, positive))
    return tp, pp, kept.cumsum()[None, last] > 0, int(labels.sum())


def _ratio(part: Floats | Ints, whole: Ints) -> Floats:
    """Return part / whole, nan where the whole is 0."""
    ratio = np.full(np.broadcast_shapes(part.shape, whole.shape), math.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _mean_over_people(grid: Floats) -> Floats:
    defined = ~np.isnan(grid)
    return _ratio(np.where(defined, grid, 0.0).sum(axis=0), defined.sum(axis=0))
