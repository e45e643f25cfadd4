"""Trajectories, a list of boxes for every frame, to tracks: a box for each frame from a track's first to its last.

``trajectories[i]`` belongs to the video's i-th frame, from 0. Frames may be empty. Where a track misses a box, or has
one without area, its previous box is repeated, as published.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_tools.importers.json_stream import JsonStream, JsonStreamError
from data_tools.importers.vidhoi.classes import PARTS
from data_tools.importers.vidhoi.pairs import box_lists, lists_of, structs_of
from data_tools.importers.vidhoi.records import CORNERS, corners_of
from hoi_train.data.manifest.columns import TRACKS
from hoi_train.data.manifest.problems import Problems

LONGEST = 1 << 29  # characters of one video's trajectories: 2 million boxes or more


@dataclass(frozen=True)
class Boxes:
    """Boxes of one video, B of them.

    Args:
        frame, track: int ``[B]``, number of the frame in the file, and id of the track.
        corners: float64 ``[B, 4]``, ``x0, y0, x1, y1`` in pixels.
    """

    frame: NDArray[Any]
    track: NDArray[Any]
    corners: NDArray[np.float64]


Named = Mapping[str, Boxes]  # the boxes that the pairs of a video have, by its name


@dataclass(frozen=True)
class VideoTracks:
    """What is known of a video from its trajectories: an Arrow array with one list of tracks, and its frames."""

    row: Any
    num_frames: int


def read_all_tracks(folder: Path, prefix: str, named: Named, *, only_named: bool) -> dict[str, VideoTracks]:
    """Read the trajectories of all parts, if there are any; see ``read_tracks``.

    Raises:
        ManifestError: with what is wrong, each with file, position of the video in it, and byte.
    """
    problems, tracks = Problems(), dict[str, VideoTracks]()
    for part in PARTS:
        file = folder / f"{prefix}{part}_trajectories.json"
        if file.exists():
            tracks.update(read_tracks(file, named, only_named=only_named, problems=problems))
    problems.raise_if_any()
    return tracks


def read_tracks(file: Path, named: Named, *, only_named: bool, problems: Problems) -> dict[str, VideoTracks]:
    """Read the tracks of some videos from a file of trajectories, noting every video whose trajectories are bad.

    Args:
        file: an object with the trajectories of each video by its name.
        named: the videos wanted, and boxes known from elsewhere, which fill what the file lacks.
        only_named: keep the tracks that have a box in ``named``.
        problems: where to note.

    Returns:
        The tracks by video.
    """
    tracks: dict[str, VideoTracks] = {}
    seen: Counter[str] = Counter()
    stream = JsonStream(file, longest=LONGEST)
    try:
        for name, frames in stream.members():
            seen[name] += 1
            if seen[name] > 1:
                stream.note(problems, f"video {name!r:.80} occurs twice")
            elif name in named:
                boxes = read_boxes(frames)
                if isinstance(boxes, str):
                    stream.note(problems, f"video {name!r:.80}: {boxes}")
                else:
                    tracks[name] = VideoTracks(make_tracks(boxes, named[name], only_named=only_named), len(frames))
    except JsonStreamError as error:
        problems.add(file, None, str(error))
    return tracks


def read_boxes(frames: Any) -> Boxes | str:
    """Return the boxes of a video's trajectories, or what is wrong with them."""
    numbers: list[int] = []
    ids: list[int] = []
    corners: list[Any] = []
    try:
        for number, frame in enumerate(frames if isinstance(frames, list) else [frames]):
            if not isinstance(frame, list):
                return f"frame {number} must be a list of boxes, got {frame!r:.80}"
            for box in frame:
                numbers.append(number)
                ids.append(box["tid"])
                corners.append(corners_of(box["bbox"]))
    except (KeyError, TypeError):
        return f"frame {number}: a box must be an object with tid and bbox ({', '.join(CORNERS)}), got {box!r:.120}"
    if not all(type(id_) is int and 0 <= id_ < 2**31 for id_ in ids):
        bad = next(k for k, id_ in enumerate(ids) if type(id_) is not int or not 0 <= id_ < 2**31)
        return f"frame {numbers[bad]}: tid must be a whole number from 0 on, got {ids[bad]!r:.80}"
    if not all(type(value) in (int, float) for box in corners for value in box):
        bad = next(k for k, box in enumerate(corners) if {*map(type, box)} - {int, float})
        return f"frame {numbers[bad]}: {', '.join(CORNERS)} must be numbers, got {corners[bad]!r:.80}"
    try:
        array = np.array(corners, np.float64).reshape(-1, 4)
    except OverflowError:
        return "a corner of a box has too many digits"
    return Boxes(np.array(numbers, np.int64), np.array(ids, np.int64), array)


def make_tracks(boxes: Boxes, others: Boxes, *, only_named: bool) -> Any:
    """Return an Arrow array with one list, the tracks; ``null`` if there is not a single sound box.

    Args:
        boxes: of all tracks, in any order; a track's first box in a frame counts.
        others: boxes that count where ``boxes`` has none.
        only_named: keep the tracks that have a box in ``others``.
    """
    frame = np.concatenate([boxes.frame, others.frame])
    track = np.concatenate([boxes.track, others.track])
    with np.errstate(over="ignore"):  # to infinity, which is left out
        corners = np.concatenate([boxes.corners, others.corners]).astype(np.float32)  # what the manifest holds
    kept = np.isfinite(corners).all(axis=1) & (corners[:, :2] < corners[:, 2:]).all(axis=1)
    if only_named:
        kept &= np.isin(track, others.track)
    order = np.flatnonzero(kept)[np.lexsort((frame[kept], track[kept]))]
    frame, track, corners = frame[order], track[order], corners[order]
    new = np.ones(len(order), bool)
    new[1:] = (frame[1:] != frame[:-1]) | (track[1:] != track[:-1])
    frame, track, corners = frame[new], track[new], corners[new]
    ids, first, lengths = np.unique(track, return_index=True, return_counts=True)
    if not len(ids):
        return pa.nulls(1, TRACKS)
    start, last = frame[first], frame[first + lengths - 1]
    spans = last - start + 1
    # a box stands until the next box of its track, the last one of a track for its own frame
    repeats = np.ones(len(frame), np.int64)
    repeats[:-1] = frame[1:] - frame[:-1]
    repeats[first + lengths - 1] = 1
    lists = lists_of(spans, box_lists(np.repeat(corners, repeats, axis=0)))
    tracks = structs_of({"track_id": ids, "start_frame": start, "boxes": lists}, TRACKS.value_type)
    return lists_of(np.array([len(tracks)]), tracks)
