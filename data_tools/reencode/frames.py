"""From the frames of a source to those of a clip at a constant rate, and the annotation along with them.

Frame number n of the result belongs to the time n / rate after the clip's first frame. It shows the frame of the source
that is nearest to that time and at most half a frame away, and where there is none what the frame before it shows. So a
source at the rate keeps all its frames, a slower one has frames repeated, and of a faster one some are left out. Labels
of a frame that is left out cannot be kept exactly and are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hoi_train.data.manifest_columns import TRACKS
from hoi_train.records import Track, UserError

Indices = npt.NDArray[np.int64]

MAX_FRAMES = 2_000_000  # of a clip: times that are wrong by years must not fill a disk
MAX_RATE = 1000
ANY_RATE = Fraction(30)  # for a file of one frame


class InexactError(UserError):
    """Labels that the new frame rate cannot keep."""


@dataclass(frozen=True)
class Made:
    """How a clip was made; what its record keeps.

    Args:
        rate: frames a second of the result.
        size, source_size: width and height of the result and of its source.
        first, count: frames of the source that the clip shows: the first one, and how many.
        frames: which of the source's frames each of the result shows, ascending; ``None`` for each of them once.
    """

    rate: Fraction
    size: tuple[int, int]
    source_size: tuple[int, int]
    first: int
    count: int
    frames: Indices | None

    @property
    def num_frames(self) -> int:
        """Number of frames of the result, K."""
        return self.count if self.frames is None else len(self.frames)

    @property
    def sources(self) -> Indices:
        """The source's frame that each frame of the result shows, int64 ``[K]``."""
        return np.arange(self.first, self.first + self.count) if self.frames is None else self.frames

    def facts(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        frames = None if self.frames is None else self.frames.tolist()
        return {**self.__dict__, "rate": str(self.rate), "frames": frames}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Made:
        """Return what ``facts`` was made from."""
        frames = None if facts["frames"] is None else np.array(facts["frames"], np.int64)
        size, source_size = tuple(facts["size"]), tuple(facts["source_size"])
        return cls(Fraction(facts["rate"]), size, source_size, facts["first"], facts["count"], frames)

    def places(self, frames: Sequence[int]) -> Indices:
        """Return where frames of the clip, counted from its first, are in the result.

        Raises:
            InexactError: one is left out of the result.
        """
        wanted = self.first + np.asarray(frames, np.int64)
        places = np.searchsorted(self.sources, wanted)
        shown = self.sources[np.minimum(places, len(self.sources) - 1)] == wanted
        if not shown.all():
            lost = int(wanted[~shown][0]) - self.first
            raise InexactError(
                f"labels are of frame {lost}, which is left out at {float(self.rate):g} frames a second; "
                "give a higher --fps, one at which every labelled frame stays"
            )
        return places


def rate_of(seconds: npt.NDArray[np.float64]) -> Fraction:
    """Return the constant rate that is nearest to the times of a file's frames.

    Args:
        seconds: float64 ``[F]``, ascending.

    Returns:
        A usual rate (24, 25, 30000/1001 …) if every frame is within half a frame of its place at it; else the mean
        rate if that holds; for a truly variable one the rate of the median distance.
    """
    if len(seconds) < 2:
        return ANY_RATE
    mean = float(np.clip((len(seconds) - 1) / (seconds[-1] - seconds[0]), 1 / MAX_RATE, MAX_RATE))
    usual = sorted((Fraction(round(mean)), Fraction(round(mean * 1.001) * 1000, 1001)), key=lambda r: abs(r - mean))
    close = [rate for rate in usual if rate and abs(rate / mean - 1) < 0.005]
    for rate in (*close, Fraction(mean).limit_denominator(1001)):
        if rate and np.array_equal(_slots(seconds, rate), np.arange(len(seconds))):
            return rate
    typical = float(np.clip(1 / np.median(np.diff(seconds)), 1 / MAX_RATE, MAX_RATE))
    return Fraction(typical).limit_denominator(1001)


def frames_at(seconds: npt.NDArray[np.float64], window: range, end: float | None, rate: Fraction) -> Indices | None:
    """Return which frames of a file are shown by a clip of it at a constant rate.

    Args:
        seconds: float64 ``[F]``, when each frame is shown.
        window: frames of the clip.
        end: when the clip ends; by default its last frame is held as long as the next one is away.
        rate: frames a second.

    Returns:
        Ascending numbers of frames, int64 ``[K]``, or ``None`` if those are the window itself.

    Raises:
        ValueError: they would be too many.
    """
    times = seconds[window.start : window.stop] - seconds[window.start]
    slots = _slots(times, rate)
    if np.array_equal(slots, np.arange(len(window))):
        return None
    typical = float(np.median(np.diff(seconds))) if len(seconds) > 1 else float(1 / rate)
    following = seconds[window.stop] if window.stop < len(seconds) else seconds[-1] + typical
    until = following if end is None else min(end, following)
    total = max(1, int(_slots(np.array([until - seconds[window.start]]), rate)[0]))
    if total > MAX_FRAMES:
        raise ValueError(f"{total} frames at {float(rate):g} a second; at most {MAX_FRAMES}; trim it, or give --fps")
    nearest_first = np.lexsort((np.abs(times * float(rate) - slots), slots))
    taken, first = np.unique(slots[nearest_first], return_index=True)
    shown = nearest_first[first]
    return window.start + shown[np.searchsorted(taken, np.arange(total), side="right") - 1]


def _slots(seconds: npt.NDArray[np.float64], rate: Fraction) -> Indices:
    """Return the nearest place at a rate, int64; halves go up."""
    return np.floor(seconds * float(rate) + 0.5).astype(np.int64)


def even_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Return a width and height like a given one, even, its short side as wanted and never longer than it was.

    >>> even_size((640, 480), 256), even_size((101, 300), 256)
    ((342, 256), (100, 298))

    Raises:
        ValueError: less than two pixels wide or high.
    """
    short = min(short_side, *size) // 2 * 2
    if not short:
        raise ValueError(f"{size[0]}×{size[1]} pixels: no even size fits in")
    width, height = (min(round(side * short / min(size) / 2) * 2, side // 2 * 2) for side in size)
    return width, height


def move_pairs(pairs: Sequence[Mapping[str, Any]], made: Made) -> list[dict[str, Any]]:
    """Return human-object pairs with the frames and boxes of the result; raises ``InexactError``."""
    places = made.places([pair["frame"] for pair in pairs])
    moved = []
    for pair, place in zip(pairs, places.tolist(), strict=True):
        boxes = _scaled(np.array([pair["person_box"], pair["object_box"]]), made).tolist()
        moved.append({**pair, "frame": place, "person_box": boxes[0], "object_box": boxes[1]})
    return moved


def move_tracks(rows: Sequence[tuple[Sequence[Track], Made] | None]) -> Any:
    """Return the tracks of rows as an Arrow array, their frames and boxes those of the results; ``None`` for none.

    A track has a box in every frame of the result that shows a frame in which it had one. One that has none is kept
    with the box that is nearest, as pairs may name it.
    """
    counts = [None if row is None else len(row[0]) for row in rows]
    moved = [_moved(track, made) for tracks, made in filter(None, rows) for track in tracks]
    corners = np.concatenate([np.empty((0, 4), np.float32), *(boxes for _, _, boxes in moved)])
    each = pa.ListArray.from_arrays(pa.array(np.arange(len(corners) + 1) * 4, pa.int32()), pa.array(corners.ravel()))
    lengths = np.array([len(boxes) for _, _, boxes in moved], np.int64)
    boxes = pa.ListArray.from_arrays(pa.array(np.concatenate([[0], lengths.cumsum()]), pa.int32()), each)
    ids, starts = (pa.array([track[k] for track in moved], pa.int64()) for k in (0, 1))
    structs = pa.StructArray.from_arrays([ids, starts, boxes], names=[field.name for field in TRACKS.value_type])
    return pa.ListArray.from_arrays(pa.array(_offsets(counts), pa.int32()), structs)


def _offsets(counts: Sequence[int | None]) -> Iterator[int | None]:
    total = 0
    for count in counts:
        yield None if count is None else total
        total += count or 0
    yield total


def _moved(track: Track, made: Made) -> tuple[int, int, npt.NDArray[np.float32]]:
    relative = made.sources - track.start_frame
    start, stop = np.searchsorted(relative, [0, len(track.boxes)])
    if start == stop:
        start = min(int(start), len(relative) - 1)
        stop = start + 1
    boxes = track.boxes.numpy()[relative[start:stop].clip(0, len(track.boxes) - 1)]
    return track.track_id, int(start), _scaled(boxes, made)


def _scaled(boxes: npt.NDArray[Any], made: Made) -> npt.NDArray[Any]:
    """Return boxes ``[…, 4]`` in pixels of the result; none loses its area to rounding."""
    scale = np.array(made.size, np.float64) / made.source_size
    moved = (boxes * np.tile(scale, 2)).astype(boxes.dtype)
    moved[..., 2:] = np.maximum(moved[..., 2:], np.nextafter(moved[..., :2], np.inf, dtype=boxes.dtype))
    return moved
