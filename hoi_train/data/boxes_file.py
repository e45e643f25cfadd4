"""The JSON file with the tracked persons and objects of one video.

    {"tracks": [{"track_id": 0, "class": "person", "start_frame": 0, "boxes": [[20, 30, 90, 200], [21, 30, 91, 200]]},
                {"track_id": 1, "class": "cup", "start_frame": 1, "boxes": [[80, 90, 110, 120]], "score": 0.87}],
     "persons": [0]}

=========== ======== =====================================================================================
key         needed   meaning
=========== ======== =====================================================================================
track_id    yes      whole number, unique in the file
class       yes      an object class of the run's data, or ``person``
start_frame yes      number of the first frame of the file that has a box, from 0
boxes       yes      ``[x0, y0, x1, y1]`` in pixels of the frame, ``x0 < x1``, ``y0 < y1``, one per frame from
                     ``start_frame`` on; the track is present in these frames, except where its box is wholly
                     outside the frame
score       no       the detector's score in 0..1; passed on, not used
persons     no       ids of further tracks that act, beside those of the class ``person``
=========== ======== =====================================================================================

As in the tracks of a manifest, frames count in presentation order, and boxes are those of upright frames.
A person can be the object of another person if the run's data list ``person`` among the classes of objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, MinLen
from pydantic import ValidationError, create_model
from torch import Tensor

from hoi_train.core.records import ClassList, Track, UserError, nearest
from hoi_train.core.schema import Strict, explain
from hoi_train.core.strict_json import JSONError, parse_json
from hoi_train.data.manifest.problems import Problems

PERSON = "person"
EXAMPLE = '{"tracks": [{"track_id": 0, "class": "person", "start_frame": 0, "boxes": [[20, 30, 90, 200]]}]}'

Corners = tuple[float, float, float, float]
# Built by a call, because "class" cannot be an attribute's name.
_TrackEntry: Any = create_model(
    "TrackEntry",
    __base__=Strict,
    **{  # type: ignore[call-overload]
        "track_id": (int, ...),
        "class": (str, ...),
        "start_frame": (Annotated[int, Ge(0)], ...),
        "boxes": (Annotated[list[Corners], MinLen(1)], ...),
        "score": (Annotated[float, Ge(0), Le(1)] | None, None),
    },
)


class _BoxesFile(Strict):
    tracks: list[_TrackEntry]
    persons: tuple[int, ...] = ()


@dataclass(frozen=True)
class Actor:
    """A tracked person or object of a video.

    Args:
        track: its boxes.
        name: its class.
        is_person: whether it acts.
        shown: bool ``[B]``, which of its boxes are at least partly in the frame.
        score: the detector's score in 0..1, if given.
    """

    track: Track
    name: str
    is_person: bool
    shown: Tensor
    score: float | None = None

    def present(self, frame: int) -> bool:
        """Return whether it is visible in a frame of the file."""
        place = frame - self.track.start_frame
        return 0 <= place < len(self.shown) and bool(self.shown[place])

    def box(self, frame: int) -> Corners:
        """Return its box in a frame in which it is present."""
        x0, y0, x1, y1 = self.track.boxes[frame - self.track.start_frame].tolist()
        return x0, y0, x1, y1


def read_boxes(path: Path, object_classes: ClassList, num_frames: int, size: tuple[int, int]) -> tuple[Actor, ...]:
    """Read the boxes of a video and check that they fit it.

    Args:
        path: the JSON file.
        object_classes: the run's classes of objects.
        num_frames: frames of the video.
        size: width and height of its frames, in pixels.

    Returns:
        Its tracks in the order of the file.

    Raises:
        UserError: lists everything that is wrong, with track and key.
    """
    problems = Problems()
    try:
        data = path.read_bytes()
        parse_json(data)  # pydantic lets repeated keys and NaN pass
        content = _BoxesFile.model_validate_json(data).model_dump()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        for line in explain(error, _BoxesFile):
            problems.add(path, None, f"{line:.300}")
        problems.add(path, None, f"the file must look like {EXAMPLE}")
        problems.raise_if_any()
    except JSONError as error:
        problems.add(path, error.line, f"{error}; the file must look like {EXAMPLE}")
        problems.raise_if_any()
    tracks = content["tracks"]
    ids = [entry["track_id"] for entry in tracks]
    for track_id in sorted({track_id for track_id in ids if ids.count(track_id) > 1}):
        problems.add(path, None, f"track {track_id}: the track_id occurs {ids.count(track_id)} times; make it unique")
    for track_id in content["persons"]:
        if track_id not in ids:
            problems.add(path, None, f"persons: {track_id} is not the track_id of a track")
    persons = {*content["persons"], *(entry["track_id"] for entry in tracks if entry["class"] == PERSON)}
    if tracks and not persons:
        text = f"no track is a person: give persons the class {PERSON!r}, or list their track_id in persons"
        problems.add(path, None, text)
    for entry in tracks:
        for fault in _faults(entry, object_classes, num_frames, size):
            problems.add(path, None, f"track {entry['track_id']}: {fault}")
    problems.raise_if_any()
    return tuple(_actor(entry, entry["track_id"] in persons, size) for entry in tracks)


def _actor(entry: Mapping[str, Any], is_person: bool, size: tuple[int, int]) -> Actor:
    boxes = torch.tensor(entry["boxes"], dtype=torch.float32)
    track = Track(entry["track_id"], entry["start_frame"], boxes)
    return Actor(track, entry["class"], is_person, _shown(boxes, size), entry["score"])


def _shown(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    return ((boxes[:, 2:] > 0) & (boxes[:, :2] < torch.tensor(size))).all(1)


def _faults(entry: Mapping[str, Any], object_classes: ClassList, num_frames: int, size: tuple[int, int]) -> list[str]:
    """Return the faults of a track; of its bad boxes the first."""
    faults = []
    if entry["class"] not in (PERSON, *object_classes):
        hint = nearest(entry["class"], list(object_classes))
        known = ", ".join(object_classes)
        faults.append(f"class: the run knows no {entry['class']!r}{hint}; allowed: {PERSON}, {known}")
    end = entry["start_frame"] + len(entry["boxes"])
    if end > num_frames:
        faults.append(f"boxes: the last one is of frame {end - 1}, the video has frames 0 to {num_frames - 1}")
    # In float32, where different numbers of the file can become equal, and finite ones infinite.
    boxes = torch.tensor(entry["boxes"], dtype=torch.float32)
    bad = ~(boxes.isfinite().all(1) & (boxes[:, :2] < boxes[:, 2:]).all(1))
    if bad.any():
        first = int(bad.nonzero()[0])
        more = f" (and {int(bad.sum()) - 1} more like it)" if bad.sum() > 1 else ""
        faults.append(f"boxes.{first}: {list(entry['boxes'][first])} is not finite x0 < x1, y0 < y1{more}")
    elif not _shown(boxes, size).any():
        text = f"outside the frame of {size[0]}×{size[1]} pixels; they must be in pixels of this video"
        faults.append(f"boxes: all {len(boxes)} lie {text}, the first is {list(entry['boxes'][0])}")
    return faults
