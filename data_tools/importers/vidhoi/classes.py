"""The classes of VidHOI, the files that list them, and the file of frames to leave out.

VidHOI takes the 80 object and 50 predicate categories of VidOR; ``adult``, ``child`` and ``baby`` are one class,
``person``. Names contain ``/`` and ``()``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoi_train.core import strict_json
from hoi_train.core.records import ClassList
from hoi_train.data.manifest.problems import Problems
from hoi_train.data.manifest.tasks import class_names_fault

OBJECT_FILE, PREDICATE_FILE, GROUP_FILE = "obj_categories.json", "pred_categories.json", "pred_split_categories.json"
REMOVED_FILE = "168_frames_to_remove.json"
PARTS = ("train", "val")
PERSON = "person"
PEOPLE = ("adult", "child", "baby")  # VidOR's categories of persons

_OBJECTS = """
person car guitar chair handbag toy baby_seat cat bottle backpack motorcycle ball/sports_ball laptop table
surfboard camera sofa screen/monitor bicycle vegetables dog fruits cake cellphone cup bench snowboard skateboard
bread bus/truck ski suitcase stool bat elephant fish baby_walker dish watercraft scooter pig refrigerator horse
crab bird piano cattle/cow lion chicken camel electric_fan toilet sheep/goat rabbit train penguin hamster/rat
snake frisbee aircraft oven racket faucet antelope duck stop_sign sink kangaroo stingray turtle tiger crocodile
bear microwave traffic_light panda leopard squirrel
"""
_PREDICATES = """
lean_on watch above next_to behind away towards in_front_of hit hold wave pat carry point_to touch
play(instrument) release ride grab lift use press inside caress pull get_on cut hug bite open close throw kick
drive get_off push wave_hand_to feed chase kiss speak_to beneath smell clean lick squeeze shake_hand_with knock
hold_hand_of shout_at
"""
OBJECTS, PREDICATES = ClassList(tuple(_OBJECTS.split())), ClassList(tuple(_PREDICATES.split()))

_VIDEO = re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9_-]+")
FRAME_NAME = re.compile(r"(?P<video>[^_]+)_(?P<frame>\d{1,9})", re.ASCII)


@dataclass(frozen=True)
class Classes:
    """The class lists of an annotation; an id of a record is a position in them."""

    objects: ClassList = OBJECTS
    predicates: ClassList = PREDICATES


def read_classes(folder: Path, problems: Problems) -> Classes:
    """Read the two class lists, noting what is wrong with them."""
    objects = _class_list(folder / OBJECT_FILE, problems) or OBJECTS
    if PERSON not in objects.names:
        problems.add(folder / OBJECT_FILE, None, f"no class {PERSON!r}, which the records of persons mean")
    return Classes(objects, _class_list(folder / PREDICATE_FILE, problems) or PREDICATES)


def read_groups(folder: Path, predicates: ClassList, problems: Problems) -> Mapping[str, tuple[str, ...]]:
    """Read groups of predicates, such as ``spatial``, ``action`` and ``temporal``; none if the file is not there."""
    file = folder / GROUP_FILE
    content = read_json(file, problems) if file.exists() else {}
    if not isinstance(content, dict):
        content = {} if content is None else {"": content}
    groups = {}
    for name, ids in content.items():
        allowed = range(len(predicates))
        if not isinstance(ids, list) or not all(type(id_) is int and id_ in allowed for id_ in ids):
            problems.add(file, None, f"{name!r:.80} must be a list of predicate ids below {len(predicates)}")
        else:
            groups[name] = tuple(predicates.names[id_] for id_ in ids)
    return groups


def read_removed(file: Path, problems: Problems) -> dict[tuple[str, int], str]:
    """Read a list of key frames such as ``1000/4925211209_000156``.

    Returns:
        The entries by video and frame, the frame from 0; the files count from 1.
    """
    content = read_json(file, problems)
    if content is None:
        return {}
    if not isinstance(content, list):
        problems.add(file, None, f'must be a list such as ["1000/4925211209_000156"], got {content!r:.80}')
        return {}
    removed = {}
    for number, entry in enumerate(content, 1):
        match = FRAME_NAME.fullmatch(entry) if isinstance(entry, str) else None
        if match is None or not is_video_name(match["video"]) or int(match["frame"]) < 1:
            text = f"entry {number}: must be <folder>/<video>_<frame from 1> such as 1000/4925211209_000156"
            problems.add(file, None, f"{text}, got {entry!r:.80}")
        else:
            removed[match["video"], int(match["frame"]) - 1] = entry
    return removed


def is_video_name(name: str) -> bool:
    """Return whether a name is ``<folder>/<video>``, and nothing that could lead out of a folder."""
    return _VIDEO.fullmatch(name) is not None


def read_json(file: Path, problems: Problems) -> Any:
    """Return the content of a small file, or ``None``, noting why."""
    if not file.is_file():
        problems.add(file, None, "a folder, not a file" if file.is_dir() else "no such file")
        return None
    try:
        return strict_json.read_json(file)
    except strict_json.JSONError as error:
        problems.add(file, error.line, str(error))
    return None


def _class_list(file: Path, problems: Problems) -> ClassList | None:
    names: Sequence[Any] | None = read_json(file, problems)
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        problems.add(file, None, f"must be the list of class names in their order, got {names!r:.80}")
        return None
    try:
        classes = ClassList(tuple(names))
    except ValueError as error:
        problems.add(file, None, str(error))
        return None
    if fault := class_names_fault(classes):
        problems.add(file, None, fault)
    return classes
