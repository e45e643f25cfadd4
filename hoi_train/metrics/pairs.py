"""What a pair task is measured by after an epoch: the published protocols with the boxes of the ground truth."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from hoi_train.metrics.detections import EvaluatedFrames, PredictedPairs, TruePairs
from hoi_train.metrics.person_top_k import MEASURES, person_top_k
from hoi_train.metrics.triplet_map import TripletClasses, triplet_map

TOP_K = 5  # the headline of the person-wise metrics
THRESHOLD = 0.5
PROTOCOLS = ("vidhoi", "per_triplet")
GROUPS = ("full", "rare", "non_rare")


def oracle_scalars(truth: TruePairs, logits: Tensor, _target: Tensor) -> dict[str, float]:
    """Measure the predicates of true pairs by every protocol, each named in its results.

    Boxes, their scores (1) and classes of objects are those of the ground truth; frames without a pair are left out,
    since nothing is predicted there.

    Args:
        truth: the pairs of a split.
        logits: floating ``[M, P]`` of the same pairs.

    Returns:
        ``<protocol>_map`` and ``<protocol>_classes`` of all triplet classes, and with ``_rare`` and ``_non_rare``;
        ``person_top5_recall``, ``_precision``, ``_accuracy`` and ``_f1``; in 0..1, nan where there is nothing.
    """
    sure = np.ones(len(truth))
    predicted = PredictedPairs(
        frame_ids=truth.frame_ids,
        person_index=truth.person_index,
        object_index=truth.object_index,
        person_boxes=truth.person_boxes,
        object_boxes=truth.object_boxes,
        object_class=truth.object_class,
        person_scores=sure,
        object_scores=sure,
        scores=logits.double().sigmoid().numpy(),
    )
    frames = tuple(dict.fromkeys(truth.frame_ids.tolist()))
    evaluated = EvaluatedFrames(frames=frames, truth=truth, predicted=predicted)
    scalars: dict[str, float] = {}
    for protocol in PROTOCOLS:
        result = triplet_map(evaluated, protocol)  # type: ignore[arg-type]
        for group in GROUPS:
            classes: TripletClasses = getattr(result, group)
            scalars |= dict(zip(_names(protocol, group), (classes.mean_ap, float(len(classes))), strict=True))
    people = person_top_k(evaluated, thresholds=(THRESHOLD,), ks=(TOP_K,))
    return scalars | {f"person_top{TOP_K}_{name}": float(people.values[name][0, 0]) for name in MEASURES}


def oracle_scalar_names() -> tuple[str, ...]:
    """Return the names of what ``oracle_scalars`` measures."""
    triplets = (name for protocol in PROTOCOLS for group in GROUPS for name in _names(protocol, group))
    return (*triplets, *(f"person_top{TOP_K}_{name}" for name in MEASURES))


def _names(protocol: str, group: str) -> tuple[str, str]:
    suffix = "" if group == "full" else f"_{group}"
    return f"{protocol}_map{suffix}", f"{protocol}_classes{suffix}"
