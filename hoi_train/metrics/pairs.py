"""What a pair task is measured by: the published protocols, with the boxes of the ground truth or of a detector."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from hoi_train.core.pairs import Detections, EvaluatedFrames, TruePairs
from hoi_train.metrics.person_top_k import MEASURES, person_top_k
from hoi_train.metrics.triplet_map import TripletClasses, triplet_map

TOP_K = 5  # the headline of the person-wise metrics
THRESHOLD = 0.5
PROTOCOLS = ("vidhoi", "per_triplet")
GROUPS = ("full", "rare", "non_rare")


def oracle_scalars(truth: TruePairs, logits: Tensor, _target: Tensor) -> dict[str, float]:
    """Measure the predicates of true pairs, as after each epoch.

    Boxes, their scores (1) and classes of objects are those of the ground truth.

    Args:
        truth: the pairs of a split.
        logits: floating ``[N, P]`` of the same pairs.

    Returns:
        As ``detected_scalars``.
    """
    sure = np.ones(len(truth))
    return detected_scalars(truth, Detections(**truth.columns, person_scores=sure, object_scores=sure), logits)


def detected_scalars(truth: TruePairs, detections: Detections, logits: Tensor) -> dict[str, float]:
    """Measure the predicates of detected pairs by every protocol, each named in its results.

    The evaluated frames are those with a true pair. Where nothing was detected in one of them, all of its pairs are
    missed; the published numbers are without those 168 of VidHOI's frames.

    Args:
        truth: the pairs of a split.
        detections: on its frames.
        logits: floating ``[N, P]`` of the detected pairs.

    Returns:
        ``<protocol>_map`` and ``<protocol>_classes`` of all triplet classes, and with ``_rare`` and ``_non_rare``;
        ``person_top5_recall``, ``_precision``, ``_accuracy`` and ``_f1``; in 0..1, nan where there is nothing.
    """
    frames = tuple(dict.fromkeys(truth.frame_ids.tolist()))
    predicted = detections.predicted(logits.double().sigmoid().numpy())
    evaluated = EvaluatedFrames(frames=frames, truth=truth, predicted=predicted)
    scalars: dict[str, float] = {}
    for protocol in PROTOCOLS:
        result = triplet_map(evaluated, protocol)  # type: ignore[arg-type]
        for group in GROUPS:
            classes: TripletClasses = getattr(result, group)
            scalars |= dict(zip(triplet_names(protocol, group), (classes.mean_ap, float(len(classes))), strict=True))
    people = person_top_k(evaluated, thresholds=(THRESHOLD,), ks=(TOP_K,))
    return scalars | {f"person_top{TOP_K}_{name}": float(people.values[name][0, 0]) for name in MEASURES}


def oracle_scalar_names() -> tuple[str, ...]:
    """Return the names of what ``oracle_scalars`` and ``detected_scalars`` measure."""
    triplets = (name for protocol in PROTOCOLS for group in GROUPS for name in triplet_names(protocol, group))
    return (*triplets, *(f"person_top{TOP_K}_{name}" for name in MEASURES))


def triplet_names(protocol: str, group: str) -> tuple[str, str]:
    """Return the names of the mAP of a protocol and a group, and of the number of classes it is the mean over."""
    suffix = "" if group == "full" else f"_{group}"
    return f"{protocol}_map{suffix}", f"{protocol}_classes{suffix}"
