"""Cases of human-object-interaction evaluation: read from their plain rows, drawn at random, or as large as VidHOI.

A case is a mapping with ``frames``, ``n_predicates``, ``ground_truth`` and ``predictions``, rows as in the golden file.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hoi_train.core.pairs import EvaluatedFrames, PredictedPairs, TruePairs

Row = dict[str, Any]
Case = Mapping[str, Any]
BOX = [10.0, 20.0, 50.0, 80.0]


def true_row(frame: str, predicates: Sequence[int], object_class: int = 1, **changes: Any) -> Row:
    row = {"frame": frame, "person_index": 0, "object_index": 1, "person_box": BOX, "object_box": BOX}
    return {**row, "object_class": object_class, "predicates": list(predicates), **changes}


def predicted_row(frame: str, scores: Sequence[float], object_class: int = 1, **changes: Any) -> Row:
    row = true_row(frame, (), object_class)
    del row["predicates"]
    return {**row, "person_score": 1.0, "object_score": 1.0, "scores": list(scores), **changes}


def case_of(true: list[Row], predicted: list[Row], frames: tuple[str, ...] = ("a",), n_predicates: int = 3) -> Case:
    return {"frames": frames, "n_predicates": n_predicates, "ground_truth": true, "predictions": predicted}


def evaluated_frames(case: Case) -> EvaluatedFrames:
    """Return the records of a case."""
    frames, num_predicates = tuple(case["frames"]), case["n_predicates"]
    true, predicted = (
        [row for row in case[side] if row["frame"] in frames] for side in ("ground_truth", "predictions")
    )
    carries = np.zeros((len(true), num_predicates), dtype=bool)
    for number, row in enumerate(true):
        carries[number, row["predicates"]] = True
    scores = {name: floats(predicted, name) for name in ("person_score", "object_score", "scores")}
    truth = TruePairs(**pair_columns(true), predicates=carries)
    predictions = PredictedPairs(
        **pair_columns(predicted),
        person_scores=scores["person_score"],
        object_scores=scores["object_score"],
        scores=scores["scores"].reshape(len(predicted), num_predicates),
    )
    return EvaluatedFrames(frames=frames, truth=truth, predicted=predictions)


def pair_columns(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "frame_ids": np.array([row["frame"] for row in rows], dtype=np.str_),
        **{name: np.array([row[name] for row in rows], dtype=np.int64) for name in ("person_index", "object_index")},
        "person_boxes": floats(rows, "person_box").reshape(len(rows), 4),
        "object_boxes": floats(rows, "object_box").reshape(len(rows), 4),
        "object_class": np.array([row["object_class"] for row in rows], dtype=np.int64),
    }


def floats(rows: Sequence[Row], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], dtype=np.float64)


def random_case(seed: int) -> Case:
    """Draw a small case: few boxes on a coarse grid, few scores, so that ties, edges and duplicates all come up."""
    draw = random.Random(seed)
    num_predicates, num_classes = draw.randint(1, 4), draw.randint(1, 2)
    frames = [f"f{number}" for number in range(draw.randint(0, 5))]
    draw.shuffle(frames)
    boxes = [_box(draw) for _ in range(draw.randint(1, 5))]
    levels = draw.choice([(0.0, 0.5, 1.0), (0.0, 1e-301, 1e-200, 0.2, 0.3), tuple(draw.random() for _ in range(9))])
    true, predicted = [], []
    for frame in frames:
        here = [_pair(draw, frame, boxes, num_classes, num_predicates) for _ in range(draw.choice((0, 1, 2, 3, 5)))]
        if here and draw.random() < 0.3:
            here.append(here[0])  # the same pair twice
        true += here
        for _ in range(draw.choice((0, 1, 3, 6))):
            row = _pair(draw, frame, boxes, num_classes, 0)
            if here and draw.random() < 0.7:  # on a true pair, with one box or both
                row |= {name: draw.choice(here)[name] for name in draw.sample(_PLACE, draw.randint(2, 3))}
            del row["predicates"]
            row |= {"person_score": draw.choice(levels), "object_score": draw.choice((1.0, *levels))}
            predicted.append({**row, "scores": [draw.choice(levels) for _ in range(num_predicates)]})
    if draw.random() < 0.3:  # rows of a frame need not stand together
        draw.shuffle(true)
        draw.shuffle(predicted)
    return {"frames": frames, "n_predicates": num_predicates, "ground_truth": true, "predictions": predicted}


_PLACE = ("person_box", "object_box", "object_class")


def _box(draw: random.Random) -> list[float]:
    x, y = draw.randint(0, 1), draw.randint(0, 1)
    return [float(x), float(y), float(x + draw.choice((2, 3, 3, 4))), float(y + draw.choice((3, 3, 3, 4, 5, 0, -1)))]


def _pair(draw: random.Random, frame: str, boxes: list[list[float]], num_classes: int, num_predicates: int) -> Row:
    held = [predicate for predicate in range(num_predicates) if draw.random() < 0.5]
    person, thing = draw.randrange(len(boxes)), draw.randrange(len(boxes))
    boxed = {"person_box": boxes[person], "object_box": boxes[thing]}
    numbered = {"person_index": draw.randint(0, 2), "object_index": draw.randint(0, 2)}
    return true_row(frame, held, draw.randrange(num_classes), **boxed, **numbered)


def vidhoi_sized(num_frames: int) -> EvaluatedFrames:
    """Draw frames as full as those of VidHOI's validation: 7 true and 10 predicted pairs each, 50 predicates."""
    draw = np.random.default_rng(0)
    frames = tuple(f"{number:06d}/{number:010d}_000015" for number in range(num_frames))
    true, predicted, people, things = 7, 10, 3, 8
    corners = draw.uniform(0, 600, (num_frames, people + things, 2))
    boxes = np.concatenate([corners, corners + draw.uniform(20, 300, corners.shape)], axis=2)
    classes = draw.zipf(1.6, (num_frames, things)) % 78
    frequency = np.minimum(0.5, 1.5 / np.arange(1, 51) ** 1.2)

    def columns(pairs: int, jitter: float) -> dict[str, Any]:
        person, thing = (draw.integers(0, limit, (num_frames, pairs)) for limit in (people, things))
        place = np.arange(num_frames)[:, None]
        shift = draw.normal(0, jitter, (2, num_frames, pairs, 4)) if jitter else np.zeros((2, 1, 1, 1))
        return {
            "frame_ids": np.repeat(np.array(frames, dtype=np.str_), pairs),
            "person_index": person.ravel(),
            "object_index": thing.ravel() + people,
            "person_boxes": (boxes[place, person] + shift[0]).reshape(-1, 4),
            "object_boxes": (boxes[place, thing + people] + shift[1]).reshape(-1, 4),
            "object_class": classes[place, thing].ravel(),
        }

    rows = num_frames * predicted
    return EvaluatedFrames(
        frames=frames,
        truth=TruePairs(**columns(true, 0.0), predicates=draw.random((num_frames * true, 50)) < frequency),
        predicted=PredictedPairs(
            **columns(predicted, 8.0),
            person_scores=draw.uniform(0.5, 1, rows),
            object_scores=draw.uniform(0.3, 1, rows),
            scores=draw.random((rows, 50)) ** 4,
        ),
    )
