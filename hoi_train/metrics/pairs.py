"""The published evaluation protocols for human-object interactions, as metrics of pair tasks."""

from __future__ import annotations

from typing import get_args

from hoi_train.core.pairs import EvaluatedFrames
from hoi_train.metrics.metric import PairMetric, Place, Scalar
from hoi_train.metrics.person_top_k import MEASURES, person_top_k
from hoi_train.metrics.triplet_map import Protocol, TripletClasses, triplet_map

TOP_K = 5  # candidates per person of the reported person-wise metrics
THRESHOLD = 0.5
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
GROUPS = ("full", "rare", "non_rare")


def triplet_names(protocol: str, group: str) -> tuple[str, str]:
    """Return the names of a protocol's mAP over a group of triplet classes, and of the number of these classes."""
    suffix = "" if group == "full" else f"_{group}"
    return f"{protocol}_map{suffix}", f"{protocol}_classes{suffix}"


def _triplets(protocol: Protocol, heading: str, shown: dict[str, frozenset[Place]]) -> PairMetric:
    """Return the metric of one protocol: mAP over all, the rare and the non-rare triplet classes."""

    def value(evaluated: EvaluatedFrames) -> dict[str, float]:
        result = triplet_map(evaluated, protocol)
        found: dict[str, float] = {}
        for group in GROUPS:
            classes: TripletClasses = getattr(result, group)
            found |= dict(zip(triplet_names(protocol, group), (classes.mean_ap, float(len(classes))), strict=True))
        return found

    numbers: dict[str, Scalar] = {}
    for group, words in zip(GROUPS, ("mAP", "rare", "non-rare"), strict=True):
        mean, classes = triplet_names(protocol, group)
        numbers[mean] = Scalar(f"{heading} {words}", places=shown[group])
        numbers[classes] = Scalar(f"{heading} {words} classes", direction=None, share=False)
    return PairMetric(protocol, value, numbers)


def _person_top_k(evaluated: EvaluatedFrames) -> dict[str, float]:
    found = person_top_k(evaluated, thresholds=(THRESHOLD,), ks=(TOP_K,))
    return {f"person_top{TOP_K}_{name}": float(found.values[name][0, 0]) for name in MEASURES}


_COMPARED: frozenset[Place] = frozenset({"compare", "curves"})
_CURVES: frozenset[Place] = frozenset({"curves"})
VIDHOI = _triplets("vidhoi", "VidHOI", {"full": _COMPARED | {"epoch"}, "rare": _COMPARED, "non_rare": _COMPARED})
PER_TRIPLET = _triplets("per_triplet", "per-triplet", dict.fromkeys(GROUPS, _CURVES))
PERSON_TOP_K = PairMetric(
    f"person_top{TOP_K}",
    _person_top_k,
    {f"person_top{TOP_K}_{name}": Scalar(f"person top-{TOP_K} {name}") for name in MEASURES},
)
