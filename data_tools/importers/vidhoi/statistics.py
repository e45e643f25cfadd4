"""How often every predicate, object and triplet occurs in the annotation of VidHOI, and which are rare.

A triplet class is (person, predicate, object class); every record is one instance of one, as the authors count. A
class is rare with fewer than 25 instances in the frames that are evaluated.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.importers.vidhoi.classes import PARTS, PERSON, Classes, read_groups
from data_tools.importers.vidhoi.reading import read_annotations
from data_tools.importers.vidhoi.records import Records
from hoi_train.data.manifest.problems import Problems

RARE_BELOW = 25
REPORT = "vidhoi_statistics.json"

Triplets = Mapping[str, int]


def count_triplets(records: Records, classes: Classes) -> dict[str, int]:
    """Return the instances of every triplet class that occurs, by ``person-<predicate>-<object>``, in class order."""
    width = len(classes.objects)
    ids, counts = np.unique(records.predicate.astype(np.int64) * width + records.object_class, return_counts=True)
    return {
        triplet_name(classes.predicates.names[id_ // width], classes.objects.names[id_ % width]): count
        for id_, count in zip(ids.tolist(), counts.tolist(), strict=True)
    }


def triplet_name(predicate: str, object_class: str) -> str:
    """Return the published name of a triplet class.

    >>> triplet_name("hold", "ball/sports_ball")
    'person-hold-ball/sports_ball'
    """
    return f"{PERSON}-{predicate}-{object_class}"


def count_predicates(triplets: Triplets, predicates: Sequence[str]) -> dict[str, int]:
    """Return the instances of every predicate, in the order given, from those of the triplet classes."""
    counts: Counter[str] = Counter()
    for name, count in triplets.items():
        counts[name.split("-")[1]] += count
    return {predicate: counts[predicate] for predicate in predicates}


def rare_triplets(triplets: Triplets, below: int = RARE_BELOW) -> tuple[list[str], list[str]]:
    """Divide the triplet classes that occur into rare and non-rare ones.

    >>> rare_triplets({"person-hold-cup": 25, "person-lick-cup": 24, "person-lick-dog": 0})
    (['person-lick-cup'], ['person-hold-cup'])
    """
    rare = [name for name, count in triplets.items() if 0 < count < below]
    return rare, [name for name, count in triplets.items() if count >= below]


def unseen_triplets(train: Triplets, other: Triplets) -> list[str]:
    """Return the triplet classes that occur in another part but never in train."""
    return [name for name, count in other.items() if count and not train.get(name)]


def make_report(
    triplets: Mapping[str, Triplets], classes: Classes, groups: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return the statistics as plain values.

    Args:
        triplets: instances of the triplet classes, by part.
        classes: the class lists.
        groups: predicates by group.
    """
    parts: dict[str, Any] = {}
    for part, counts in triplets.items():
        rare, common = rare_triplets(counts)
        predicates = count_predicates(counts, classes.predicates.names)
        parts[part] = {
            "num_triplets": sum(counts.values()),
            "num_triplet_classes": len(rare) + len(common),
            "num_rare": len(rare),
            "predicates": predicates,
            "groups": {name: sum(predicates[of] for of in members) for name, members in groups.items()},
            "triplets": dict(counts),
            "rare": rare,
        }
    unseen = unseen_triplets(triplets["train"], triplets["val"]) if {*PARTS} <= {*triplets} else None
    return {
        "rare_below": RARE_BELOW,
        "objects": list(classes.objects),
        "predicates": list(classes.predicates),
        "groups": {name: list(members) for name, members in groups.items()},
        "parts": parts,
        "val_never_in_train": unseen,
    }


def show_statistics(annotations: Path, out: Path) -> dict[str, Any]:
    """Count the annotation files in a folder, print a summary and write ``vidhoi_statistics.json`` below ``out``.

    Args:
        annotations: folder of the annotation files, as for the command vidhoi.
        out: folder for vidhoi_statistics.json.

    Raises:
        ManifestError: with what is wrong in the files.
    """
    problems = Problems()
    records, classes = read_annotations(annotations, problems)
    groups = read_groups(annotations, classes.predicates, problems)
    problems.raise_if_any()
    part_of = np.array([video.part for video in records.videos])[records.video]
    parts = {part: records.where(part_of == part) for part in PARTS if (part_of == part).any()}
    report = make_report({part: count_triplets(of, classes) for part, of in parts.items()}, classes, groups)
    for part, of in parts.items():
        keys = np.stack([of.video, of.frame, of.person_id, of.object_id])
        numbers = report["parts"][part]
        numbers["num_videos"], numbers["num_key_frames"], numbers["num_pairs"] = (
            np.unique(keys[:rows], axis=1).shape[1] for rows in (1, 2, 4)
        )
        print(
            f"{part}: {len(of):,} triplets of {numbers['num_triplet_classes']:,} classes, {numbers['num_rare']:,} "
            f"of them rare; {numbers['num_pairs']:,} pairs in {numbers['num_key_frames']:,} key frames of "
            f"{numbers['num_videos']:,} videos"
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"report: {out / REPORT}")
    return report
