"""Simulate detections of a demo clip: its pairs with perturbed boxes and scores, with misses and false positives.

Each box of the hand or an object is shifted by up to 0.2 of its sides, by the same offset throughout the clip; the
score falls with the offset. Of the objects 10 % are never found and 5 % have the wrong class; 10 % of the pairs are
missed, and 30 % of the clips have a false object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from data_tools.demo.objects import NOUNS
from data_tools.demo.shapes import Array
from hoi_train.core.randomness import seed_of

UNFOUND, MISTAKEN, MISSED, IMAGINED = 0.1, 0.05, 0.1, 0.3
SPREAD, FARTHEST = 0.06, 0.2  # standard deviation and maximum of a corner's offset, in sides of the box


def detect(row: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return the simulated detections of a clip as a row of the detections file.

    Args:
        row: manifest row with ``clip_id``, ``pairs`` and ``tracks``.
        seed: seed of the demo set.
    """
    rng = np.random.default_rng(seed_of(seed, "demo", "detections", row["clip_id"]))
    tracks = {track["track_id"]: track for track in row["tracks"]}
    off = {number: np.clip(rng.normal(0, SPREAD, 4), -FARTHEST, FARTHEST) for number in tracks}
    found = {number for number in tracks if number == 0 or rng.random() >= UNFOUND}
    classes = {number: str(rng.choice(NOUNS)) for number in found if rng.random() < MISTAKEN}
    fake = max(tracks) + 1
    if rng.random() < IMAGINED:  # next to an object, of its size, of a random class
        seen = int(rng.choice(sorted(tracks)[1:]))
        tracks[fake] = tracks[seen]
        off[fake], classes[fake] = off[seen] + rng.choice((-1.0, 1.0)), str(rng.choice(NOUNS))
    pairs = []
    for pair in row["pairs"]:
        for number in (pair["object_id"], *([fake] if tracks.get(fake) is tracks[pair["object_id"]] else [])):
            if (number in found or number == fake) and rng.random() >= MISSED:
                pairs.append(_pair(pair, number, off, classes))
    kept = {0, *(pair["object_id"] for pair in pairs)}
    moved = [{**tracks[k], "track_id": k, "boxes": _shift_boxes(tracks[k]["boxes"], off[k])} for k in sorted(kept)]
    return {"clip_id": row["clip_id"], "pairs": pairs, "tracks": moved}


def _pair(pair: Mapping[str, Any], number: int, off: Mapping[int, Array], classes: Mapping[int, str]) -> dict[str, Any]:
    return {
        **{"frame": pair["frame"], "person_id": pair["person_id"], "object_id": number},
        "person_box": _shift_boxes(pair["person_box"], off[pair["person_id"]]),
        "object_box": _shift_boxes(pair["object_box"], off[number]),
        "object_class": classes.get(number, pair["object_class"]),
        "person_score": _score(off[pair["person_id"]]),
        "object_score": _score(off[number]),
    }


def _shift_boxes(boxes: Any, off: Array) -> Any:
    """Return boxes ``[…, 4]`` whose corners are shifted by ``off`` ``[4]``, in sides of the box."""
    corners = np.asarray(boxes, np.float64)
    sides = corners[..., 2:] - corners[..., :2]
    return np.round(corners + np.concatenate([sides, sides], axis=-1) * off, 2).tolist()


def _score(off: Array) -> float:
    return round(float(np.clip(1 - 3 * np.abs(off).mean(), 0.3, 1)), 2)
