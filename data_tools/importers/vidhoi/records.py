"""The triplets of VidHOI in columns: a person, a predicate and an object in a key frame of a video."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

CORNERS = ("xmin", "ymin", "xmax", "ymax")
corners_of = itemgetter(*CORNERS)


@dataclass(frozen=True)
class Video:
    """An annotated video.

    Args:
        name: ``<folder>/<video>``.
        part: ``train`` or ``val``, the official part it belongs to.
        rate: key frames are this many frames apart; about the frames per second.
        size: width and height in pixels of the frames that were annotated, if known.
    """

    name: str
    part: str
    rate: int
    size: tuple[int, int] | None = None


@dataclass
class Records:
    """Triplets of person, predicate and object in key frames, R of them.

    Args:
        videos: every video once, in the order of the files.
        video: int32 ``[R]``, position in ``videos``.
        frame: int32 ``[R]``, number of the frame in the file, from 0.
        person_id, object_id: int64 ``[R]``, ids of the person and of the object.
        object_class, predicate: int32 ``[R]``, class ids.
        boxes: float64 ``[R, 8]``, the person's box and the object's, each ``x0, y0, x1, y1`` in pixels.
        remarks: what is odd but allowed, and how often.
    """

    videos: tuple[Video, ...]
    video: NDArray[np.int32]
    frame: NDArray[np.int32]
    person_id: NDArray[np.int64]
    object_id: NDArray[np.int64]
    object_class: NDArray[np.int32]
    predicate: NDArray[np.int32]
    boxes: NDArray[np.float64]
    remarks: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.video)

    def where(self, kept: NDArray[np.bool_]) -> Records:
        """Return some of the records, bool ``[R]``; the list of videos stays whole."""
        names = ("video", "frame", "person_id", "object_id", "object_class", "predicate", "boxes")
        return replace(self, **{name: getattr(self, name)[kept] for name in names})


class RecordColumns:
    """Gathers triplets; one that is sound costs 120 bytes."""

    def __init__(self) -> None:
        self.videos: dict[str, int] = {}
        self.known: list[Video] = []
        self.ids, self.numbers, self.boxes = array("q"), array("i"), array("d")
        self.remarks: Counter[str] = Counter()

    def video(self, name: str, part: str, rate: int, size: tuple[int, int] | None = None) -> int:
        """Return a video's position; it is added if it is new."""
        place = self.videos.setdefault(name, len(self.videos))
        if place == len(self.known):
            self.known.append(Video(name, part, rate, size))
        return place

    def add(self, video: int, frame: int, ids: tuple[int, int], classes: tuple[int, int], boxes: Any) -> None:
        """Add a triplet: ids of person and object, classes of object and predicate, eight corners."""
        self.ids.extend(ids)
        self.boxes.extend(boxes)
        self.numbers.extend((video, frame, *classes))

    def records(self) -> Records:
        """Return the triplets as arrays."""
        ids = np.array(self.ids, np.int64).reshape(-1, 2).T
        video, frame, object_class, predicate = np.array(self.numbers, np.int32).reshape(-1, 4).T
        boxes = np.frombuffer(self.boxes or array("d"), np.float64).reshape(-1, 8)
        return Records(
            tuple(self.known), video, frame, ids[0], ids[1], object_class, predicate, boxes, dict(self.remarks)
        )
