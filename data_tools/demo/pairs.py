"""Derive the ground truth of a demo clip: pairs of the person and each object, with boxes and predicates.

Only a hand of the person is visible; the person's box is that of the hand without the arm. Let H and O be the boxes of
hand and object, not clipped to the frame, with lengths in units of the frame's side:

- ``next_to``: H and O are apart, by at most 0.15.
- ``in_front_of``: H and O overlap; the hand is always nearer to the camera.
- ``above``, ``beneath``: the middle of H is higher in the picture than all of O, or lower.
- ``toward``, ``away``: the distance between their middles changes by more than 0.01 per frame.
- ``touch``: the fingers are on the object.
- ``hold``: they grip it, or its handle or lid. Pushing, pulling and pressing count as ``touch`` only.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_tools.demo.camera import Film
from data_tools.demo.shapes import Array
from hoi_train.core.records import PairAnnotation, Track

PREDICATES = ("next_to", "in_front_of", "above", "beneath", "toward", "away", "touch", "hold")
NEAR = 0.15
MOVES = 0.01
EVERY = 4  # every fourth frame is annotated, from frame 0: 6 per second


def annotate(film: Film) -> list[PairAnnotation]:
    """Return the pairs in every fourth frame whose boxes both have at least one pixel in the frame."""
    count, size = film.frames.shape[:2]
    pairs = []
    for number, item in enumerate(film.tracks, 1):
        holds = {**_relations(film.hand / size, item.box / size), "touch": item.touched, "hold": item.held}
        for frame in range(0, count, EVERY):
            person_box, object_box = (_cut(boxes[frame], size) for boxes in (film.hand, item.box))
            if person_box and object_box:
                names = tuple(name for name in PREDICATES if holds[name][frame])
                pairs.append(PairAnnotation(frame, 0, number, person_box, object_box, item.kind, names))
    return sorted(pairs, key=lambda pair: (pair.frame, pair.object_id))


def follow(film: Film) -> list[Track]:
    """Return the tracks of the hand (id 0) and the objects (ids from 1) in all frames, also outside the image."""
    import torch  # slow import, not needed for a command's help

    boxes = [film.hand, *(item.box for item in film.tracks)]
    return [Track(number, 0, torch.from_numpy(box.copy())) for number, box in enumerate(boxes)]


def _relations(hand: Array, item: Array) -> Mapping[str, Array]:
    """Return the predicates of position and motion, bool ``[F]`` each, from boxes ``[F, 4]``."""
    between = np.maximum(hand[:, :2] - item[:, 2:], item[:, :2] - hand[:, 2:])  # below 0 where they overlap
    gap = np.hypot(*np.maximum(between, 0).T)
    overlap = (between < 0).all(axis=1)
    middle = (hand[:, :2] + hand[:, 2:]) / 2
    apart = middle - (item[:, :2] + item[:, 2:]) / 2
    speed = np.gradient(np.hypot(*apart.T))
    return {
        "next_to": ~overlap & (gap <= NEAR),
        "in_front_of": overlap,
        "above": middle[:, 1] < item[:, 1],
        "beneath": middle[:, 1] > item[:, 3],
        "toward": speed < -MOVES,
        "away": speed > MOVES,
    }


def _cut(box: Array, size: int) -> tuple[float, float, float, float] | None:
    """Return a box clipped to the frame, or ``None`` if less than one pixel is left."""
    x0, y0, x1, y1 = (round(float(value), 2) for value in np.clip(box, 0, size))
    return (x0, y0, x1, y1) if x1 - x0 >= 1 and y1 - y0 >= 1 else None
