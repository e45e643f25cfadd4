"""Charades: its csv files to a manifest with the multi-label task action (157 classes).

``Charades_v1_train.csv`` and ``Charades_v1_test.csv`` hold a row a video: ``id, subject, scene, quality, relevance,
verified, script, objects, descriptions, actions, length``. ``actions`` is a list such as
``c092 11.90 21.20;c147 0.00 12.60`` of class, start and end in seconds, possibly empty; ``length`` is in seconds.
``Charades_v1_classes.txt`` has a class a line, ``c008 Opening a door``, ids from c000. Videos are ``<id>.mp4``, looked
for by name.

Level ``video``: a row is a video with all its actions, which is how the official classification task is scored. Level
``segment``: a row is the time of one action, labelled with the actions that are going on at its middle, its own among
them. The end of an action may lie after that of the video; such a segment ends with the file. The official test part
becomes test, as it has labels; val is drawn from train by subject.

Source: prior.allenai.org/projects/data/charades/README.txt.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from data_tools.importers.samples import Options, Sample, write_samples
from data_tools.importers.tables import RowError, class_of, number, ordered_classes, part_files, read_rows
from data_tools.sources import Imported, numbered_lines
from hoi_train.core.records import Split
from hoi_train.data.manifest.problems import Problems

PARTS: Mapping[str, Split] = {"Charades_v1_train.csv": "train", "Charades_v1_test.csv": "test"}
COLUMNS = ("id", "subject", "actions", "length")
_ACTION = re.compile(r"c([0-9]{3}) +([0-9]{1,6}(?:\.[0-9]{1,9})?) +([0-9]{1,6}(?:\.[0-9]{1,9})?)")

Level = Literal["video", "segment"]


class Action(NamedTuple):
    """An action of a video, from ``start`` to ``end`` in seconds."""

    name: str
    start: float
    end: float


def import_charades(annotations: Path, options: Options, *, level: Level = "video") -> Imported:
    """Write the manifest of Charades.

    Args:
        annotations: folder of the csv files.
        options: what all formats are told.
        level: a row a video, or a row an action.

    Raises:
        ManifestError: with everything that is wrong in the files, each with file and line.
        UserError: no annotation files, or none of the videos.
    """
    problems, left_out = Problems(), Counter[str]()
    parts = part_files(annotations, PARTS)
    file = annotations / "Charades_v1_classes.txt"
    entries = [(line, *text.partition(" ")[::2]) for line, text in numbered_lines(file, problems)]
    classes = ordered_classes(file, [(line, id_, name.strip()) for line, id_, name in entries], "c000", problems)
    samples: list[Sample] = []
    for file, split in parts.items() if classes else ():
        make = partial(_samples, file, split, classes, level, left_out)
        samples += read_rows(file, COLUMNS, make, problems)
    return write_samples(samples, {"action": (classes, "multi")}, options, problems, left_out)


def _samples(
    file: Path,
    split: Split,
    classes: Sequence[str],
    level: Level,
    left_out: Counter[str],
    line: int,
    row: Mapping[str, str],
) -> Iterator[Sample]:
    if not row["id"] or not row["subject"]:
        raise RowError("id and subject must not be empty")
    length = number(row, "length")
    actions = [_action(text.strip(), classes) for text in row["actions"].split(";") if text.strip()]
    if level == "video":
        yield Sample(
            row["id"], row["id"], split, {"action": _names(actions)}, file, line, group=row["subject"], named=True
        )
        return
    for count, action in enumerate(actions):
        if action.start >= min(action.end, length):
            left_out["action that does not end after it starts, or starts after the end of the video"] += 1
            continue
        middle = (action.start + min(action.end, length)) / 2
        yield Sample(
            f"{row['id']}_{count:03}",
            row["id"],
            split,
            {"action": _names([other for other in actions if other.start <= middle <= other.end])},
            file,
            line,
            group=row["subject"],
            start=action.start,
            end=action.end if action.end < length else None,
            named=True,
        )


def _action(text: str, classes: Sequence[str]) -> Action:
    match = _ACTION.fullmatch(text)
    if match is None:
        raise RowError(f"actions must be a list such as c092 11.90 21.20;c147 0.00 12.60, got {text!r:.80}")
    return Action(class_of(match[1], classes, "an action"), float(match[2]), float(match[3]))


def _names(actions: Sequence[Action]) -> list[str]:
    return list(dict.fromkeys(action.name for action in actions))
