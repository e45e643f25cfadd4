"""The detections that VidHOI's authors published: boxes in key frames, with class and score, to pairs to be labelled.

``det_val_frame_annots.json`` is an object with the boxes of each key frame (coldmanck/VidHOI,
``vidor_to_ava-detected_bboxes.ipynb`` at c906d7e):

    {"0016/4006608424_000013": [{"bbox": [42, 102, 537, 420], "category_id": 0, "score": 0.7029, "tid": 2}, …], …}

- A key frame is named by its ``middle_frame_timestamp + 1``: number k is ``frame_id (k - 2) * fps + fps // 2``.
- Key frames where nothing was detected are not in the file, videos without annotation are.
- ``tid`` is the track, as in ``det_val_trajectories.json``, which has neither class nor score; a track has one score.

Every person makes a pair with everything else in the frame, as published. ``val_frame_annots_detectron2.json`` holds no
detections: it is the annotation of VidOR, which the detector was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_tools.importers.json_stream import JsonStream, JsonStreamError
from data_tools.importers.samples import Detected
from data_tools.importers.vidhoi.classes import FRAME_NAME, PARTS, PERSON, Classes
from data_tools.importers.vidhoi.pairs import box_lists, lists_of, structs_of
from data_tools.importers.vidhoi.records import Video
from data_tools.importers.vidhoi.tracks import Boxes, read_all_tracks
from hoi_train.data.manifest.columns import DETECTED
from hoi_train.data.manifest.problems import Problems

_LARGEST = 2.0**31  # what is larger is no pixel, and may be more than a float32 holds
KEYS = ("bbox", "category_id", "score", "tid")
_FORM = (
    'detections are an object such as {"0016/4006608424_000013": [{"bbox": [42, 102, 537, 420], "category_id": 0, '
    '"score": 0.7029, "tid": 2}]}; a list of records with "objs", such as val_frame_annots_detectron2.json, is '
    "annotation"
)
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class DetectedBoxes:
    """Detected boxes in key frames, B of them, ordered by video and frame.

    Args:
        video, frame: int64 ``[B]``, position of the video, and number of the frame in the file, from 0.
        track, category: int64 ``[B]``, id of the track, and class id.
        score: float64 ``[B]``, 0..1.
        corners: float64 ``[B, 4]``, ``x0, y0, x1, y1`` in pixels.
        num_flat: how many more boxes have no area.
    """

    video: Ints
    frame: Ints
    track: Ints
    category: Ints
    score: NDArray[np.float64]
    corners: NDArray[np.float64]
    num_flat: int


def read_detections(folder: Path, classes: Classes, videos: Sequence[Video]) -> tuple[dict[str, Detected], list[str]]:
    """Read what was detected in some videos: boxes with class and score, perhaps none, and tracks.

    Args:
        folder: that of the annotation files.
        classes: what ids mean.
        videos: the videos wanted.

    Returns:
        What was detected, by name of the video, for each that has anything; and what the user should know.

    Raises:
        ManifestError: with what is wrong, each with file, position of the key frame in it, and byte.
    """
    problems = Problems()
    files = [file for part in PARTS if (file := folder / f"det_{part}_frame_annots.json").exists()]
    boxes = read_detected_boxes(files, videos, len(classes.objects), problems)
    problems.raise_if_any()
    lengths, pairs = _pairs(boxes, len(videos), classes)
    of_video = np.searchsorted(boxes.video, np.arange(len(videos) + 1))
    spans = [slice(*span) for span in pairwise(of_video)]
    found = [Boxes(boxes.frame[span], boxes.track[span], boxes.corners[span]) for span in spans]
    names = [video.name for video in videos]
    tracks = read_all_tracks(folder, "det_", dict(zip(names, found, strict=True)), only_named=False)
    detected = {
        name: Detected(pairs.slice(k, 1), tracks[name].row if name in tracks else None)
        for k, name in enumerate(names)
        if name in tracks or lengths[k]
    }
    notes = [f"detections left out, a box without area: {boxes.num_flat}"] if boxes.num_flat else []
    if files and not len(pairs.values):
        notes.append(f"no pair is detected in any of the videos: {', '.join(map(str, files))}")
    elif detected and not files:
        notes.append("the detected tracks have no classes and scores, which det_val_frame_annots.json has: no pairs")
    return detected, notes


def read_detected_boxes(
    files: Sequence[Path], videos: Sequence[Video], num_classes: int, problems: Problems
) -> DetectedBoxes:
    """Read the boxes of the videos' key frames, noting every key frame that is bad."""
    places = {video.name: place for place, video in enumerate(videos)}
    numbers: list[tuple[int, int, int, int]] = []
    values: list[tuple[float, ...]] = []
    seen: set[str] = set()
    for file in files:
        stream = JsonStream(file)
        try:
            for name, boxes in stream.members():
                fault = f"key frame {name!r:.80} occurs twice" if name in seen else _fault(name, boxes, num_classes)
                seen.add(name)
                place = places.get(name.rpartition("_")[0])
                if place is not None and not fault:
                    rate = videos[place].rate
                    frame = (int(name.rpartition("_")[2]) - 2) * rate + rate // 2 - 1
                    fault = None if frame >= 0 else f"key frame {name!r:.80}: must be numbered from 2 on"
                    numbers += [(place, frame, box["tid"], box["category_id"]) for box in boxes]
                    values += [(box["score"], *box["bbox"]) for box in boxes]
                if fault:
                    stream.note(problems, fault)
        except JsonStreamError as error:
            problems.add(file, None, f"{error}{'' if stream.number else f'; {_FORM}'}")
    ids = np.array(numbers, np.int64).reshape(-1, 4)
    floats = np.array(values, np.float64).reshape(-1, 5)
    corners = floats[:, 1:].astype(np.float32)  # what tracks hold
    sound = (corners[:, :2] < corners[:, 2:]).all(axis=1)
    order = np.flatnonzero(sound)[np.lexsort((ids[sound, 1], ids[sound, 0]))]
    video, frame, track, category = ids[order].T
    return DetectedBoxes(video, frame, track, category, floats[order, 0], floats[order, 1:], int((~sound).sum()))


def _fault(name: str, boxes: Any, num_classes: int) -> str | None:
    """Return what is wrong with a key frame, or ``None``."""
    where = f"key frame {name!r:.80}"
    if FRAME_NAME.fullmatch(name) is None:
        return f"{where}: must be <folder>/<video>_<number> such as 0016/4006608424_000013"
    if not isinstance(boxes, list):
        return f"{where}: must hold a list of boxes, got {boxes!r:.80}"
    for number, box in enumerate(boxes, 1):
        fault = _box_fault(name, box, num_classes)
        if fault:
            return f"{where}, box {number}: {fault}"
    tids = [box["tid"] for box in boxes]
    twice = sorted({tid for tid in tids if tids.count(tid) > 1})
    return f"{where}: tid {twice[0]} occurs twice" if twice else None


def _box_fault(name: str, box: Any, num_classes: int) -> str | None:
    if not isinstance(box, dict):
        return f"must be an object with {', '.join(KEYS)}, got {box!r:.80}"
    missing = [key for key in KEYS if key not in box]
    if missing:
        return f"lacks {', '.join(missing)}"
    corners, category, score, tid = (box[key] for key in KEYS)
    if not (isinstance(corners, list) and len(corners) == 4 and all(map(_is_finite, corners))):
        return f"bbox must be four finite numbers x0, y0, x1, y1, got {corners!r:.80}"
    if type(category) is not int or not 0 <= category < num_classes:
        return f"category_id must be a whole number from 0 to {num_classes - 1}, got {category!r:.80}"
    if not (_is_finite(score) and 0 <= score <= 1):
        return f"score must lie in 0..1, got {score!r:.80}"
    if type(tid) is not int or not 0 <= tid < 2**31:
        return f"tid must be a whole number from 0 on, got {tid!r:.80}"
    if box.get("image_id", name) != name:
        return f"image_id must be that of the key frame, got {box['image_id']!r:.80}"
    return None


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST


def _pairs(found: DetectedBoxes, num_videos: int, classes: Classes) -> tuple[Ints, Any]:
    """Return how many pairs each video has, int64 ``[V]``, and an Arrow array of V lists of them."""
    person, other = _partners(found, classes.objects.index(PERSON))
    columns = {
        "frame": found.frame[person],
        "person_id": found.track[person],
        "object_id": found.track[other],
        "person_box": box_lists(found.corners[person]),
        "object_box": box_lists(found.corners[other]),
        "object_class": pa.array(classes.objects.names).take(pa.array(found.category[other])),
        "person_score": found.score[person],
        "object_score": found.score[other],
    }
    pairs = structs_of(columns, DETECTED.value_type)
    lengths = np.bincount(found.video[person], minlength=num_videos)
    return lengths, lists_of(lengths, pairs)


def _partners(found: DetectedBoxes, person_class: int) -> tuple[Ints, Ints]:
    """Return for each pair the position of its person and of its object, int64 ``[P]``."""
    keys = np.stack([found.video, found.frame])
    begins = np.ones(len(found.video), bool)
    begins[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    group = np.cumsum(begins) - 1
    first, sizes = np.flatnonzero(begins), np.bincount(group)
    persons = np.flatnonzero(found.category == person_class)
    partners = sizes[group[persons]]
    person = np.repeat(persons, partners)
    number = np.arange(len(person)) - np.repeat(np.cumsum(partners) - partners, partners)
    other = first[group[person]] + number
    return person[person != other], other[person != other]
