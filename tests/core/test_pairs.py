"""The records of human-object-interaction evaluation check themselves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.metrics.hoi_cases import case_of, evaluated_frames, predicted_row, true_row

SOUND = evaluated_frames(case_of([true_row("a", [0])] * 2, [predicted_row("a", [1, 0, 0])] * 2))


@pytest.mark.parametrize(
    ("side", "changes", "message"),
    [
        ("truth", {"frame_ids": np.array([1, 2])}, r"frame_ids must be str \[N\], got int64 \[2\]"),
        ("truth", {"object_class": np.array([0])}, r"object_class must be int64 \[2\], got int64 \[1\]"),
        (
            "truth",
            {"object_class": np.array([0, -3])},
            "object_class must be at least 0, got -3 in row 1, frame 'a'; 1 of 2 rows are wrong",
        ),
        ("truth", {"person_index": np.array([0.0, 1.0])}, r"person_index must be int64 \[2\], got float64 \[2\]"),
        ("truth", {"object_boxes": np.zeros((2, 5))}, r"object_boxes must be float64 \[2, 4\], got float64 \[2, 5\]"),
        ("truth", {"predicates": np.ones((2, 3))}, r"predicates must be bool \[2, P\], got float64 \[2, 3\]"),
        (
            "predicted",
            {"person_boxes": np.full((2, 4), math.nan)},
            r"person_boxes must be finite, got \[nan, nan, nan, nan\] in row 0, frame 'a'; 2 of 2 rows are wrong",
        ),
        ("predicted", {"scores": np.full((2, 3), 1.5)}, r"scores must lie in 0..1, got \[1.5, 1.5, 1.5\] in row 0"),
        ("predicted", {"object_scores": np.array([0.5, -1])}, "object_scores must lie in 0..1, got -1.0 in row 1"),
        ("predicted", {"person_scores": np.array([0.5, math.nan])}, "person_scores must lie in 0..1, got nan in row 1"),
        ("predicted", {"scores": np.ones(2)}, r"scores must be float64 \[2, P\], got float64 \[2\]"),
    ],
)
def test_pairs_that_do_not_hold_together_are_refused(side: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(getattr(SOUND, side), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": ("a", "b", "b")}, "frames must be listed once each, 1 repeated, first 'b'"),
        ({"frames": ("b",)}, "2 of 2 ground-truth pairs are on frames that are not evaluated, first row 0, frame 'a'"),
        (
            {"predicted": replace(SOUND.predicted, frame_ids=np.array(["a", "c"]))},
            "1 of 2 predicted pairs are on frames that are not evaluated, first row 1, frame 'c'; leave the rows out",
        ),
        (
            {"predicted": replace(SOUND.predicted, scores=np.ones((2, 4)))},
            "the ground truth has 3 predicates, the predictions have scores for 4",
        ),
    ],
)
def test_frames_that_do_not_fit_the_pairs_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SOUND, **changes)


def test_the_rows_of_a_frame_keep_their_order_wherever_they_stand() -> None:
    rows = [true_row(frame, [0]) for frame in "bab"]
    evaluated = evaluated_frames(case_of(rows, [], ("a", "empty", "b")))
    assert [(true.tolist(), predicted.tolist()) for true, predicted in evaluated.by_frame()] == [
        ([1], []),
        ([], []),
        ([0, 2], []),
    ]
