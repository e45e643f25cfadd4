"""The frame annotations of VidHOI: a record per person, object and predicate in a key frame, kept in columns.

A record counts frames from 1, as text: ``"000015"`` is the frame that ``trajectories[14]`` of VidOR belongs to, the
15th that is decoded from the video file itself. That is frame 14 here. ``video_fps`` is 30 for videos of 29.97 and 24
for all slower ones, also those of 25 or 15 frames per second; with it the key frames are those with
``(frame_id - fps // 2) % fps == 0`` and ``middle_frame_timestamp`` is ``frame_id // fps + 1``: it numbers the key
frames of a video and is a time in seconds only about, and for slow videos not at all. The frame's real time is that
of frame ``frame_id - 1`` of the file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from data_tools.importers.json_stream import JsonStream, JsonStreamError
from data_tools.importers.vidhoi.classes import Classes, is_video_name
from data_tools.importers.vidhoi.records import CORNERS, RecordColumns, Records, Video, corners_of
from hoi_train.core.records import nearest
from hoi_train.data.manifest.problems import Problems

KEYS = (
    *("video_folder", "video_id", "frame_id", "video_fps", "middle_frame_timestamp"),
    *("width", "height", "person_id", "object_id", "object_class", "action_class", "person_box", "object_box"),
)
_SIZE = ("width", "height")
_fields = itemgetter(*KEYS)
_NUMBERS = frozenset({int, float})
_IDS, _RATES = 2**31, 1000  # ids and frames per second are below; larger ones are a fault of the file
_OLD = (
    'this is the older schema with one record per frame and its "objs", which has no predicates; '
    "the files train_frame_annots.json and val_frame_annots.json of VidHOI have one record per predicate"
)


def read_records(files: Mapping[str, Path], classes: Classes, problems: Problems) -> Records:
    """Read the annotation files, by official part, noting every bad record with its number and byte."""
    columns = RecordColumns()
    for part, file in files.items():
        _FileReader(file, part, classes, columns, problems).read()
    return columns.records()


class _FileReader:
    def __init__(self, file: Path, part: str, classes: Classes, columns: RecordColumns, problems: Problems) -> None:
        self.part, self.columns, self.problems = part, columns, problems
        self.stream = JsonStream(file)
        self.allowed = {"object_class": len(classes.objects), "action_class": len(classes.predicates)}
        self.sizes = tuple(self.allowed.values())
        self.places: dict[tuple[str, str], int] = {}  # of this file's videos
        self.frames: dict[str, int] = {}

    def read(self) -> None:
        try:
            for record in self.stream.elements():
                if isinstance(record, dict) and "objs" in record:
                    self.stream.note(self.problems, _OLD)
                    return
                self.record(record)
        except JsonStreamError as error:
            self.problems.add(self.stream.file, None, str(error))
            return
        if not self.stream.number:
            self.problems.add(self.stream.file, None, "no records: the list is empty")

    def record(self, record: Any) -> None:
        """Add a record: a fast path for sound ones; what is wrong with a bad one is found afterwards."""
        try:
            folder, video, frame, rate, second, *size, person, other, object_class, action, box, other_box = _fields(
                record
            )
            number = self.frames.get(frame) or self.new_frame(frame)
            place = self.places.get((folder, video))
            place = self.new_video(folder, video, rate, size) if place is None else place
            boxes = (*corners_of(box), *corners_of(other_box))
            sound = type(person) is type(other) is type(object_class) is type(action) is int
            sound = sound and 0 <= object_class < self.sizes[0] and 0 <= action < self.sizes[1]
            sound = sound and 0 <= person < _IDS and 0 <= other < _IDS and number > 0 and place >= 0
            sound = sound and (known := self.columns.known[place]).rate == rate and known.size == tuple(size)
            sound = sound and {*map(type, boxes)} <= _NUMBERS
            if not (sound and all(map(math.isfinite, boxes))):
                raise ValueError
            self.columns.add(place, number - 1, (person, other), (object_class, action), boxes)
        except (KeyError, TypeError, ValueError, OverflowError):
            for fault in list(self.faults(record)) or [f"cannot be taken as a record: {record!r:.80}"]:
                self.stream.note(self.problems, fault)
            return
        if number % rate != rate // 2 or second != number // rate + 1:
            self.columns.remarks["records not at a key frame, or with another middle_frame_timestamp than it has"] += 1

    def new_frame(self, frame: Any) -> int:
        """Return the number of a ``frame_id``, from 1, or 0 if it has none."""
        plain = isinstance(frame, str) and frame.isascii() and frame.isdigit() and len(frame) < 10
        self.frames[frame] = int(frame) if plain else 0
        return self.frames[frame]

    def new_video(self, folder: Any, video: Any, rate: Any, size: list[Any]) -> int:
        """Return the position of a video that this file has not named before, or -1."""
        named = isinstance(folder, str) and isinstance(video, str) and is_video_name(f"{folder}/{video}")
        if not named or type(rate) is not int or f"{folder}/{video}" in self.columns.videos:
            return -1
        if not (0 < rate < _RATES and all(type(side) is int and 0 < side < _IDS for side in size)):
            return -1
        place = self.columns.video(f"{folder}/{video}", self.part, rate, (size[0], size[1]))
        self.places[folder, video] = place
        return place

    def faults(self, record: Any) -> Iterator[str]:
        """Yield what is wrong with a record."""
        if not isinstance(record, dict):
            yield f"must be an object with {', '.join(KEYS)}, got {record!r:.80}"
            return
        missing = [key for key in KEYS if key not in record]
        if missing:
            close = nearest(missing[0], [key for key in map(str, record) if key not in KEYS])
            yield f"lacks {', '.join(missing)}{close}"
        for key, value in ((key, record[key]) for key in KEYS if key in record):
            fits, allowed = self.rule(key, value, record)
            if not fits:
                yield f"{key} must be {allowed}, got {value!r:.80}"

    def rule(self, key: str, value: Any, record: Mapping[str, Any]) -> tuple[bool, str]:
        """Return whether a value fits its key, and what it must be."""
        known, is_whole = self.known(record), type(value) is int
        if key == "frame_id":
            fits = isinstance(value, str) and self.new_frame(value) > 0
            return fits, 'the number of a frame from 1 as text such as "000015"'
        if key in ("video_folder", "video_id"):
            if known and known.part != self.part:
                return False, f"of a video that is in one file only, {known.name} is in {known.part} already"
            return isinstance(value, str) and is_video_name(f"x/{value}"), "text of letters, digits, '_' and '-'"
        if key.endswith("_box"):
            fits = isinstance(value, dict) and all(_is_finite(value.get(corner)) for corner in CORNERS)
            return fits, f"an object with the finite numbers {', '.join(CORNERS)}"
        if key in _SIZE:
            same = known is None or known.size is None or known.size[_SIZE.index(key)] == value
            text = "a whole number of pixels, the same in all records of a video"
            return is_whole and 0 < value < _IDS and same, text
        if key == "video_fps":
            same = known is None or known.rate == value
            text = f"a whole number from 1 to {_RATES - 1}, the same in all records of a video"
            return is_whole and 0 < value < _RATES and same, text
        if key in self.allowed:
            return is_whole and 0 <= value < self.allowed[key], f"a whole number from 0 to {self.allowed[key] - 1}"
        return key == "middle_frame_timestamp" or (is_whole and 0 <= value < _IDS), "a whole number from 0 on"

    def known(self, record: Mapping[str, Any]) -> Video | None:
        """Return the video that a record names, if an earlier one has named it, too."""
        place = self.columns.videos.get(f"{record.get('video_folder')}/{record.get('video_id')}")
        return None if place is None else self.columns.known[place]


def _is_finite(value: Any) -> bool:
    try:
        return type(value) in _NUMBERS and math.isfinite(value)
    except OverflowError:
        return False
