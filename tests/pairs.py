"""A small set of human-object pairs: a red square (the person) and a green or blue one (the object) in each film."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_tools.encoding import write_mp4
from hoi_train.core.randomness import seed_of
from hoi_train.core.records import ClassList, Split, Task
from hoi_train.data.manifest import read_manifest, write_manifest

PREDICATE = Task(
    "predicate", ClassList(("left_of", "right_of", "moves", "idle")), "multi", of="pair", mirrored=((0, 1),)
)
OBJECTS = ClassList(("cup", "plate"))
SIDE, FRAMES, SQUARE = 48, 8, 10
COLOURS = {"person": (230, 0, 0), "cup": (0, 230, 0), "plate": (0, 0, 230)}
KEY_FRAMES = (2, 5)


def make_pair_data(folder: Path, *, tracks: bool = True) -> Path:
    """Write videos and manifest below a folder; return the manifest's path. The first film of a split has no pairs."""
    rows: list[dict[str, Any]] = []
    for split, count in (("train", 9), ("val", 5), ("test", 4)):
        rows += [_film(folder, split, number, tracks) for number in range(count)]
    return write_manifest(folder / "manifest.parquet", rows, [PREDICATE], root=folder, object_classes=OBJECTS)


def _film(folder: Path, split: Split, number: int, tracks: bool) -> dict[str, Any]:
    name, draw = f"{split}_{number}", np.random.default_rng(seed_of("pairs", split, number))
    frames = np.zeros((FRAMES, SIDE, SIDE, 3), np.uint8)
    places = {0: draw.integers(2, 34, 2)}
    moves = number % 2 == 0
    kinds = ("cup", "plate")[: 1 + number % 2]
    for object_id, _ in enumerate(kinds, start=1):
        while True:
            places[object_id] = draw.integers(2, 34, 2)
            others = [place for other, place in places.items() if other != object_id]
            if all(abs(places[object_id] - place).max() > SQUARE + 2 for place in others):
                break
    boxes = {number: [] for number in places}
    for t in range(FRAMES):
        for track, place in places.items():
            x, y = place + (np.array([0, t // 3]) if moves and track == 0 else 0)
            frames[t, y : y + SQUARE, x : x + SQUARE] = COLOURS["person" if track == 0 else kinds[track - 1]]
            boxes[track].append([float(x), float(y), float(x + SQUARE), float(y + SQUARE)])
    write_mp4(folder / f"{name}.mp4", frames, fps=8)
    pairs = [
        {
            "frame": frame,
            "person_id": 0,
            "object_id": object_id,
            "person_box": boxes[0][frame],
            "object_box": boxes[object_id][frame],
            "object_class": kind,
            "predicates": _predicates(places, object_id, moves),
        }
        for object_id, kind in enumerate(kinds, start=1)
        for frame in KEY_FRAMES
    ]
    return {
        "clip_id": name,
        "path": f"{name}.mp4",
        "split": split,
        "num_frames": FRAMES,
        "pairs": pairs if number else [],
        "tracks": [{"track_id": k, "start_frame": 0, "boxes": boxes[k]} for k in boxes] if tracks else None,
    }


def _predicates(places: dict[int, Any], object_id: int, moves: bool) -> list[str]:
    left = places[0][0] < places[object_id][0]
    return ["left_of" if left else "right_of", "moves" if moves else "idle"]


def middle_of(picture: torch.Tensor, channel: int) -> tuple[float, float]:
    """Return the centre (x, y) of what is bright in one channel only, of uint8 ``[3, S, S]``."""
    others = picture.float().sum(0) - picture[channel].float()
    y, x = ((picture[channel] > 120) & (others < 120)).nonzero().double().mean(0).tolist()
    return x + 0.5, y + 0.5


def detections_like(manifest: Path, score: float = 1.0) -> list[dict[str, Any]]:
    """Return rows of a file of detections that say what the manifest's annotation says."""
    rows = read_manifest(manifest).table.select(["clip_id", "pairs", "tracks"]).to_pylist()
    for row in rows:
        for pair in row["pairs"] or ():
            del pair["predicates"]
            pair |= {"person_score": score, "object_score": score}
    return rows
