"""What a detector might find in a demo film: its pairs with other boxes and with scores; some are missed, some wrong.

Each box of the hand or an object is off by up to a fifth of its sides, the same way throughout the film, and the score
says about how far. Of the objects 1 in 10 is never found and 1 in 20 has the wrong class, 1 pair in 10 is missed, and
in 3 of 10 films there is an object where none is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from data_tools.demo.objects import NOUNS
from data_tools.demo.shapes import Array
from hoi_train.core.randomness import seed_of

UNFOUND, MISTAKEN, MISSED, IMAGINED = 0.1, 0.05, 0.1, 0.3
SPREAD, FARTHEST = 0.06, 0.2  # of the corners, in sides of the box


def detect(row: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return the detections of a film, a row of the file of detections.

    Args:
        row: of the manifest, with ``clip_id``, ``pairs`` and ``tracks``.
        seed: of the demo set.
    """
    rng = np.random.default_rng(seed_of(seed, "demo", "detections", row["clip_id"]))
    tracks = {track["track_id"]: track for track in row["tracks"]}
    off = {number: np.clip(rng.normal(0, SPREAD, 4), -FARTHEST, FARTHEST) for number in tracks}
    found = {number for number in tracks if number == 0 or rng.random() >= UNFOUND}
    classes = {number: str(rng.choice(NOUNS)) for number in found if rng.random() < MISTAKEN}
    ghost = max(tracks) + 1
    if rng.random() < IMAGINED:  # beside an object, as large, and of any class
        seen = int(rng.choice(sorted(tracks)[1:]))
        tracks[ghost] = tracks[seen]
        off[ghost], classes[ghost] = off[seen] + rng.choice((-1.0, 1.0)), str(rng.choice(NOUNS))
    pairs = []
    for pair in row["pairs"]:
        for number in (pair["object_id"], *([ghost] if tracks.get(ghost) is tracks[pair["object_id"]] else [])):
            if (number in found or number == ghost) and rng.random() >= MISSED:
                pairs.append(_pair(pair, number, off, classes))
    kept = {0, *(pair["object_id"] for pair in pairs)}
    moved = [{**tracks[k], "track_id": k, "boxes": _moved(tracks[k]["boxes"], off[k])} for k in sorted(kept)]
    return {"clip_id": row["clip_id"], "pairs": pairs, "tracks": moved}


def _pair(pair: Mapping[str, Any], number: int, off: Mapping[int, Array], classes: Mapping[int, str]) -> dict[str, Any]:
    return {
        **{"frame": pair["frame"], "person_id": pair["person_id"], "object_id": number},
        "person_box": _moved(pair["person_box"], off[pair["person_id"]]),
        "object_box": _moved(pair["object_box"], off[number]),
        "object_class": classes.get(number, pair["object_class"]),
        "person_score": _score(off[pair["person_id"]]),
        "object_score": _score(off[number]),
    }


def _moved(boxes: Any, off: Array) -> Any:
    """Return boxes ``[…, 4]`` with their corners moved by so many of their sides."""
    corners = np.asarray(boxes, np.float64)
    sides = corners[..., 2:] - corners[..., :2]
    return np.round(corners + np.concatenate([sides, sides], axis=-1) * off, 2).tolist()


def _score(off: Array) -> float:
    return round(float(np.clip(1 - 3 * np.abs(off).mean(), 0.3, 1)), 2)
