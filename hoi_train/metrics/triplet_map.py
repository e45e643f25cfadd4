"""Mean average precision over (person, predicate, object) classes of human-object interactions in video.

Two published protocols, whose numbers must not be compared with each other:

- ``vidhoi``: the data set's own (Chiou et al., "ST-HOI", ICDAR workshop at ICMR 2021; coldmanck/VidHOI,
  ``vidor_eval.ipynb`` at c906d7e).
- ``per_triplet``: the gaze transformer's (Ni et al., "Human-object interaction prediction in videos through gaze
  following", CVIU 2023; nizhf/hoi-prediction-gaze-transformer, ``common/metrics.py`` at b56583e).

| | ``vidhoi`` | ``per_triplet`` |
|---|---|---|
| matches of a true pair | one, whatever its predicates | any number, for each predicate |
| frames without a true triplet | every prediction is a false positive | left out |
| score | sum of logarithms | product |
| rare and non-rare | each evaluated separately, without the other's classes | the full evaluation, divided by class |

Both sort equal scores of a class by frame, then by the order in the frame; the released code leaves that to an
unstable sort, so its result depends on the machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

import numpy as np

from hoi_train.core.pairs import Bools, EvaluatedFrames, Floats, Ints, TruePairs
from hoi_train.core.records import nearest
from hoi_train.metrics.candidates import (
    Candidates,
    best_candidates,
    check_iou_threshold,
    first_claims,
    log_sum,
    product,
)

Protocol = Literal["vidhoi", "per_triplet"]

# Products in floating point, as published: 3 * 0.1, 6 * 0.1 and 7 * 0.1 lie just above 0.3, 0.6 and 0.7, so a recall
# of exactly 3/10 misses its point.
RECALL_POINTS = np.array([i * 0.1 for i in range(11)])


@dataclass(frozen=True, eq=False)
class TripletClasses:
    """Per-class results of the K triplet classes that have ground truth.

    Args:
        triplets: int64 ``[K, 3]``, (person 0, predicate id, object class id), by object, then by predicate.
        n_gt: int64 ``[K]``, instances in the ground truth, at least 1.
        n_pred: int64 ``[K]``, kept candidates of the class.
        n_tp: int64 ``[K]``, true positives among them.
        ap: float64 ``[K]`` in 0..1, 11-point average precision; 0 without predictions.
        max_recall: float64 ``[K]``, ``n_tp / n_gt``; may exceed 1 where a true pair may be matched repeatedly.
    """

    triplets: Ints
    n_gt: Ints
    n_pred: Ints
    n_tp: Ints
    ap: Floats
    max_recall: Floats

    def __post_init__(self) -> None:
        for column in fields(self):
            shape = getattr(self, column.name).shape
            wanted = (len(self.triplets), 3) if column.name == "triplets" else (len(self.triplets),)
            if shape != wanted:
                raise ValueError(f"{column.name} must be {list(wanted)}, got {list(shape)}")

    def __len__(self) -> int:
        return len(self.triplets)

    @property
    def mean_ap(self) -> float:
        """The mAP: the unweighted mean over classes; nan without classes."""
        return _mean(self.ap)

    def where(self, chosen: Bools) -> TripletClasses:
        """Return the chosen classes; ``chosen`` is bool ``[K]``."""
        return TripletClasses(*(getattr(self, column.name)[chosen] for column in fields(self)))


@dataclass(frozen=True, eq=False)
class TripletMap:
    """The result of one protocol with its settings.

    Args:
        protocol: ``vidhoi`` or ``per_triplet``.
        top: candidates kept per frame.
        iou_threshold: least intersection over union of a match, for both boxes.
        rare_below: classes with fewer instances in the evaluated frames are rare.
        full: every class with ground truth.
        rare, non_rare: the two groups as the protocol evaluates them.
    """

    protocol: Protocol
    top: int
    iou_threshold: float
    rare_below: int
    full: TripletClasses
    rare: TripletClasses
    non_rare: TripletClasses


def triplet_map(
    evaluated: EvaluatedFrames,
    protocol: Protocol = "vidhoi",
    *,
    top: int = 100,
    iou_threshold: float = 0.5,
    rare_below: int = 25,
) -> TripletMap:
    """Measure the mean average precision over triplet classes.

    The classes are those with ground truth in the evaluated frames. The ``top`` best candidates (pair and predicate) of
    each frame count, of all classes together. ``AP = 1/11 Σ_i max{precision : recall >= i * 0.1}``, i = 0..10.

    Args:
        evaluated: frames, ground truth and predictions.
        protocol: ``vidhoi`` or ``per_triplet``, see the module.
        top: candidates kept per frame, at least 1; 100 in both codes.
        iou_threshold: above 0, at most 1; 0.5 in both codes.
        rare_below: classes with fewer instances in the evaluated frames are rare, at least 1; 25 in both codes.

    Raises:
        ValueError: an option is out of range, or there is no such protocol.

    >>> from hoi_train.core.pairs import PredictedPairs, TruePairs
    >>> box, index = np.array([[0.0, 0.0, 9.0, 9.0]]), np.array([0])
    >>> pair = {"frame_ids": np.array(["a"]), "person_index": index, "object_index": index + 1}
    >>> pair |= {"person_boxes": box, "object_boxes": box + 5, "object_class": index + 7}
    >>> truth = TruePairs(**pair, predicates=np.array([[True, True]]))
    >>> sure = np.ones(1)
    >>> predicted = PredictedPairs(**pair, person_scores=sure, object_scores=sure, scores=np.array([[0.9, 0.8]]))
    >>> evaluated = EvaluatedFrames(frames=("a",), truth=truth, predicted=predicted)
    >>> triplet_map(evaluated).full.mean_ap, triplet_map(evaluated, "per_triplet").full.mean_ap
    (0.5, 1.0)
    """
    if protocol not in get_args(Protocol):
        allowed = get_args(Protocol)
        raise ValueError(f"protocol must be {' or '.join(allowed)}, got {protocol!r}{nearest(str(protocol), allowed)}")
    for name, number in (("top", top), ("rare_below", rare_below)):
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
    check_iou_threshold(iou_threshold)
    groups = (_vidhoi if protocol == "vidhoi" else _per_triplet)(evaluated, top, iou_threshold, rare_below)
    return TripletMap(protocol, top, iou_threshold, rare_below, *groups)


Groups = tuple[TripletClasses, TripletClasses, TripletClasses]  # full, rare, non-rare


def _vidhoi(evaluated: EvaluatedFrames, top: int, iou_threshold: float, rare_below: int) -> Groups:
    kept = best_candidates(evaluated, evaluated.by_frame(), log_sum, top, iou_threshold)
    classes, n_gt = _true_classes(evaluated.truth)
    of_class = _class_of(kept, evaluated)

    def measure_group(chosen: Bools) -> TripletClasses:
        in_group = np.isin(of_class, classes[chosen])
        # As published: a candidate whose best true pair is already claimed does not fall back to another one.
        hits = first_claims(np.where(in_group, kept.matches, -1))
        return _measure(classes[chosen], n_gt[chosen], of_class, kept.scores, hits, evaluated.num_predicates)

    is_rare = n_gt < rare_below
    return measure_group(np.ones_like(is_rare)), measure_group(is_rare), measure_group(~is_rare)


def _per_triplet(evaluated: EvaluatedFrames, top: int, iou_threshold: float, rare_below: int) -> Groups:
    predicates = evaluated.truth.predicates
    frames = (rows for rows in evaluated.by_frame() if predicates[rows[0]].any())
    kept = best_candidates(evaluated, frames, product, top, iou_threshold)
    classes, n_gt = _true_classes(evaluated.truth)
    of_class, hits = _class_of(kept, evaluated), kept.matches >= 0
    full = _measure(classes, n_gt, of_class, kept.scores, hits, evaluated.num_predicates)
    return full, full.where(n_gt < rare_below), full.where(n_gt >= rare_below)


# A triplet class is coded as one number: object class * P + predicate.


def _true_classes(truth: TruePairs) -> tuple[Ints, Ints]:
    """Return the numbers of the classes with ground truth, ascending, and their instances."""
    pairs, predicates = truth.predicates.nonzero()
    return np.unique(truth.object_class[pairs] * truth.predicates.shape[1] + predicates, return_counts=True)


def _class_of(kept: Candidates, evaluated: EvaluatedFrames) -> Ints:
    """Return the number of each candidate's class, int64 ``[M]``."""
    return evaluated.predicted.object_class[kept.rows] * evaluated.num_predicates + kept.predicates


def _measure(
    classes: Ints, n_gt: Ints, of_class: Ints, scores: Floats, hits: Bools, num_predicates: int
) -> TripletClasses:
    order = np.lexsort((-scores, of_class))  # stable: equal scores keep the order of the frames
    of_class, hits = of_class[order], hits[order]
    starts, ends = np.searchsorted(of_class, classes, "left"), np.searchsorted(of_class, classes, "right")
    ranked = [hits[start:end] for start, end in zip(starts, ends, strict=True)]
    n_tp = np.array([ranking.sum() for ranking in ranked], dtype=np.int64)
    ap = np.array([_average_precision(*pair) for pair in zip(ranked, n_gt, strict=True)], dtype=np.float64)
    objects, predicates = np.divmod(classes, num_predicates)
    triplets = np.stack([np.zeros_like(classes), predicates, objects], axis=1)
    return TripletClasses(triplets, n_gt, ends - starts, n_tp, ap, n_tp / n_gt)


def _average_precision(hits: Bools, n_gt: int) -> float:
    """Return the 11-point average precision of one class from its hits, the highest score first."""
    true_positives = np.cumsum(hits)
    precision = true_positives / np.arange(1, len(hits) + 1)
    best_from_here = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    reached = np.searchsorted(true_positives / n_gt, RECALL_POINTS)
    return math.fsum(best_from_here[reached]) / len(RECALL_POINTS)


def _mean(values: Floats) -> float:
    return math.fsum(values) / len(values) if len(values) else math.nan
