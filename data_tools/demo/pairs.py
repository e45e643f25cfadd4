"""The exact truth of a demo film as pairs of the person and each object, with boxes and predicates.

The person is present through a hand, and the person's box is the box of the hand without the arm. Let H and O be
the boxes of hand and object, not cut at the frame, and lengths be in units of the frame's side:

- ``next_to``: H and O are apart, by at most 0.15.
- ``in_front_of``: H and O overlap; the hand is always nearer to the camera.
- ``above``, ``beneath``: the middle of H is higher in the picture than all of O, or lower.
- ``toward``, ``away``: the distance between their middles changes by more than 0.01 a frame.
- ``touch``: the fingers are on the object.
- ``hold``: they have a grip on it, or on its handle or lid. Pushing, pulling and pressing is touching.
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
EVERY = 4  # frames from one annotated frame to the next, the first is 0: six a second


def annotate(film: Film) -> list[PairAnnotation]:
    """Return every pair in every fourth frame, where at least a pixel of both boxes is in the frame."""
    count, size = film.frames.shape[:2]
    pairs = []
    for number, thing in enumerate(film.tracks, 1):
        holds = {**_relations(film.hand / size, thing.box / size), "touch": thing.touched, "hold": thing.held}
        for frame in range(0, count, EVERY):
            person_box, object_box = (_cut(boxes[frame], size) for boxes in (film.hand, thing.box))
            if person_box and object_box:
                names = tuple(name for name in PREDICATES if holds[name][frame])
                pairs.append(PairAnnotation(frame, 0, number, person_box, object_box, thing.kind, names))
    return sorted(pairs, key=lambda pair: (pair.frame, pair.object_id))


def follow(film: Film) -> list[Track]:
    """Return where the hand (0) and the objects (from 1) are in every frame, also beyond the picture."""
    import torch  # takes seconds, which the help of a command need not wait for

    boxes = [film.hand, *(thing.box for thing in film.tracks)]
    return [Track(number, 0, torch.from_numpy(box.copy())) for number, box in enumerate(boxes)]


def _relations(hand: Array, thing: Array) -> Mapping[str, Array]:
    """Return the predicates of place and motion as bool ``[F]`` each, from boxes ``[F, 4]``."""
    between = np.maximum(hand[:, :2] - thing[:, 2:], thing[:, :2] - hand[:, 2:])  # below 0 where they overlap
    gap = np.hypot(*np.maximum(between, 0).T)
    overlap = (between < 0).all(axis=1)
    middle = (hand[:, :2] + hand[:, 2:]) / 2
    apart = middle - (thing[:, :2] + thing[:, 2:]) / 2
    speed = np.gradient(np.hypot(*apart.T))
    return {
        "next_to": ~overlap & (gap <= NEAR),
        "in_front_of": overlap,
        "above": middle[:, 1] < thing[:, 1],
        "beneath": middle[:, 1] > thing[:, 3],
        "toward": speed < -MOVES,
        "away": speed > MOVES,
    }


def _cut(box: Array, size: int) -> tuple[float, float, float, float] | None:
    """Return a box cut at the frame, or ``None`` if less than a pixel of it is left."""
    x0, y0, x1, y1 = (round(float(value), 2) for value in np.clip(box, 0, size))
    return (x0, y0, x1, y1) if x1 - x0 >= 1 and y1 - y0 >= 1 else None
