"""Inputs of the pair metrics for human-object interactions: true pairs, predicted pairs, evaluated frames.

A pair is a person and an object of one frame. Pairs are columns of N rows; the order of the rows of a frame matters,
because it breaks ties. P is the number of predicates. If predictions use the boxes of the ground truth ("oracle"), the
scores of the boxes are 1.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Pairs:
    """The columns of true and predicted pairs.

    Args:
        frame_ids: str ``[N]``, the frame of each pair, unique over all videos.
        person_index, object_index: int64 ``[N]``, number of the box in its frame, from 0; true and predicted boxes
            are numbered separately.
        person_boxes, object_boxes: float64 ``[N, 4]``, ``(x0, y0, x1, y1)`` in any one unit. A box without area, or
            with swapped corners, is accepted and matches nothing.
        object_class: int64 ``[N]``, class id of the object; 0 is a person.

    Raises:
        ValueError: wrong type or shape, a number that is not finite, or a negative index.
    """

    frame_ids: NDArray[np.str_]
    person_index: Ints
    object_index: Ints
    person_boxes: Floats
    object_boxes: Floats
    object_class: Ints

    def __post_init__(self) -> None:
        rows = len(self)
        if self.frame_ids.ndim != 1 or self.frame_ids.dtype.kind != "U":
            raise ValueError(f"frame_ids must be str [N], got {_describe(self.frame_ids)}")
        for name in ("person_index", "object_index", "object_class"):
            column = getattr(self, name)
            _check_form(name, column, np.int64, (rows,))
            self._check_rows(name, column, column >= 0, "must be at least 0")
        for name in ("person_boxes", "object_boxes"):
            column = getattr(self, name)
            _check_form(name, column, np.float64, (rows, 4))
            self._check_rows(name, column, np.isfinite(column), "must be finite")

    def __len__(self) -> int:
        return len(self.frame_ids)

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns of `Pairs` by name."""
        return {column.name: getattr(self, column.name) for column in fields(Pairs)}

    def _check_rows(self, name: str, column: NDArray[Any], sound: Bools, wanted: str) -> None:
        if sound.all():
            return
        bad = np.flatnonzero(~sound.reshape(len(self), -1).all(axis=1))
        row, frame = bad[0], str(self.frame_ids[bad[0]])
        raise ValueError(
            f"{name} {wanted}, got {column[row].tolist()} in row {row}, frame {frame!r}; "
            f"{len(bad)} of {len(self)} rows are wrong"
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class TruePairs(Pairs):
    """The ground truth.

    Args:
        predicates: bool ``[N, P]``, the predicates that hold, possibly none.
    """

    predicates: Bools

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_form("predicates", self.predicates, np.bool_, (len(self), None))


@dataclass(frozen=True, eq=False, kw_only=True)
class Detections(Pairs):
    """Pairs of detected boxes.

    Args:
        person_scores, object_scores: float64 ``[N]`` in 0..1, the detector's scores of the boxes.
    """

    person_scores: Floats
    object_scores: Floats

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_scores("person_scores", (len(self),))
        self._check_scores("object_scores", (len(self),))

    def predicted(self, scores: Floats) -> PredictedPairs:
        """Return predictions with these predicate scores, float64 ``[N, P]``."""
        people, objects = self.person_scores, self.object_scores
        return PredictedPairs(**self.columns, person_scores=people, object_scores=objects, scores=scores)

    def _check_scores(self, name: str, shape: tuple[int | None, ...]) -> None:
        column = getattr(self, name)
        _check_form(name, column, np.float64, shape)
        self._check_rows(name, column, (column >= 0) & (column <= 1), "must lie in 0..1")


@dataclass(frozen=True, eq=False, kw_only=True)
class PredictedPairs(Detections):
    """The predictions.

    Args:
        scores: float64 ``[N, P]`` in 0..1, the network's score of each predicate.
    """

    scores: Floats

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_scores("scores", (len(self), None))


@dataclass(frozen=True, eq=False, kw_only=True)
class EvaluatedFrames:
    """The evaluated frames and all pairs on them.

    Args:
        frames: the evaluated frames in order, also those without pairs: without ground truth every prediction is
            wrong, without predictions everything is missed. The published numbers with detected boxes leave out the
            168 of VidHOI's 22,976 validation frames without detections.
        truth: the true pairs in any order, all on evaluated frames.
        predicted: the predicted pairs, likewise.

    Raises:
        ValueError: a frame is listed twice, a pair is on a frame that is not listed, or truth and predictions differ
            in their number of predicates.
    """

    frames: tuple[str, ...]
    truth: TruePairs
    predicted: PredictedPairs

    def __post_init__(self) -> None:
        repeated = [frame for frame, count in Counter(self.frames).items() if count > 1]
        if repeated:
            raise ValueError(f"frames must be listed once each, {len(repeated)} repeated, first {repeated[0]!r}")
        true, predicted = self.truth.predicates.shape[1], self.predicted.scores.shape[1]
        if true != predicted:
            raise ValueError(f"the ground truth has {true} predicates, the predictions have scores for {predicted}")
        if not true:
            raise ValueError("there must be at least one predicate")
        self.by_frame()

    @property
    def num_predicates(self) -> int:
        """Number of predicates P."""
        return int(self.truth.predicates.shape[1])

    def by_frame(self) -> list[tuple[Ints, Ints]]:
        """Return the rows of the ground truth and the rows of the predictions of each frame."""
        true = self._rows("ground-truth", self.truth)
        return list(zip(true, self._rows("predicted", self.predicted), strict=True))

    def _rows(self, kind: str, pairs: Pairs) -> list[Ints]:
        position = {frame: number for number, frame in enumerate(self.frames)}
        frame_ids = pairs.frame_ids.tolist()
        frames = np.array([position.get(frame, -1) for frame in frame_ids], dtype=np.int64)
        strays = np.flatnonzero(frames < 0)
        if len(strays):
            raise ValueError(
                f"{len(strays)} of {len(pairs)} {kind} pairs are on frames that are not evaluated, first row "
                f"{strays[0]}, frame {frame_ids[strays[0]]!r}; leave the rows out or list their frames"
            )
        order = np.argsort(frames, kind="stable")
        ends = np.searchsorted(frames[order], np.arange(1, len(self.frames)))
        return np.split(order, ends) if self.frames else []


def _check_form(name: str, column: NDArray[Any], dtype: type[np.generic], shape: tuple[int | None, ...]) -> None:
    fits = len(column.shape) == len(shape) and column.dtype == dtype
    if not fits or any(want not in (None, got) for want, got in zip(shape, column.shape, strict=True)):
        letters = ", ".join("P" if side is None else str(side) for side in shape)
        raise ValueError(f"{name} must be {np.dtype(dtype)} [{letters}], got {_describe(column)}")


def _describe(column: NDArray[Any]) -> str:
    return f"{column.dtype} {list(column.shape)}"
