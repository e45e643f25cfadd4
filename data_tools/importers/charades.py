"""Charades: its csv files to a manifest with the multi-label task action (157 classes).

``Charades_v1_train.csv`` and ``Charades_v1_test.csv`` hold a row per video: ``id, subject, scene, quality, relevance,
verified, script, objects, descriptions, actions, length``. ``actions`` is a list such as
``c092 11.90 21.20;c147 0.00 12.60`` of class, start and end in seconds, possibly empty; ``length`` is in seconds.
``Charades_v1_classes.txt`` has a class per line, ``c008 Opening a door``, ids from c000. Videos are ``<id>.mp4``,
looked for by name.

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
from pathlib import Path
from typing import Literal, NamedTuple

from data_tools.importers.samples import Options, Reading, Sample
from data_tools.importers.tables import RowError, TableRow, class_of, number, ordered_classes, part_files, read_rows
from data_tools.sources import numbered_lines
from hoi_train.core.records import Split
from hoi_train.data.manifest.problems import Problems

PARTS: Mapping[str, Split] = {"Charades_v1_train.csv": "train", "Charades_v1_test.csv": "test"}
CLASSES = "Charades_v1_classes.txt"
COLUMNS = ("id", "subject", "actions", "length")
_ACTION = re.compile(r"c([0-9]{3}) +([0-9]{1,6}(?:\.[0-9]{1,9})?) +([0-9]{1,6}(?:\.[0-9]{1,9})?)")

Level = Literal["video", "segment"]


class Action(NamedTuple):
    """An action of a video, from ``start`` to ``end`` in seconds."""

    name: str
    start: float
    end: float


def read_charades(options: Options, *, annotations: Path, level: Level = "video") -> Reading:
    """Read the csv files of Charades: all actions of a video.

    Args:
        options: what every importer is told.
        annotations: folder of the annotation files.
        level: a row per video, or a row per action.

    Raises:
        UserError: no annotation files.
    """
    problems, remarks = Problems(), Counter[str]()
    parts = part_files(annotations, PARTS)
    entries = [(line, *text.partition(" ")[::2]) for line, text in numbered_lines(annotations / CLASSES, problems)]
    named = [(line, id_, name.strip()) for line, id_, name in entries]
    classes = ordered_classes(annotations / CLASSES, named, "c000", problems)
    samples = _samples(parts if classes else {}, classes, level, problems, remarks)
    return Reading(samples, {"action": (classes, "multi")}, problems, remarks)


def _samples(
    parts: Mapping[Path, Split], classes: Sequence[str], level: Level, problems: Problems, remarks: Counter[str]
) -> Iterator[Sample]:
    for file, split in parts.items():
        for row in read_rows(file, COLUMNS, problems):
            with row.faults_noted(problems):
                if not row["id"] or not row["subject"]:
                    raise RowError("id and subject must not be empty")
                length = number(row, "length")
                actions = [_action(text.strip(), classes) for text in row["actions"].split(";") if text.strip()]
                if level == "video":
                    yield _sample(row, row["id"], split, actions)
                else:
                    yield from _segments(row, split, actions, length, remarks)


def _sample(
    row: TableRow,
    clip_id: str,
    split: Split,
    actions: Sequence[Action],
    start: float | None = None,
    end: float | None = None,
) -> Sample:
    return Sample(
        clip_id,
        row["id"],
        split,
        {"action": list(dict.fromkeys(action.name for action in actions))},
        row.file,
        row.number,
        lookup="name",
        group=row["subject"],
        start=start,
        end=end,
    )


def _segments(
    row: TableRow, split: Split, actions: Sequence[Action], length: float, remarks: Counter[str]
) -> Iterator[Sample]:
    for count, action in enumerate(actions):
        if action.start >= min(action.end, length):
            remarks["left out, action that does not end after it starts, or starts after the end of the video"] += 1
            continue
        middle = (action.start + min(action.end, length)) / 2
        going_on = [other for other in actions if other.start <= middle <= other.end]
        end = action.end if action.end < length else None
        yield _sample(row, f"{row['id']}_{count:03}", split, going_on, action.start, end)


def _action(text: str, classes: Sequence[str]) -> Action:
    match = _ACTION.fullmatch(text)
    if match is None:
        raise RowError(f"actions must be a list such as c092 11.90 21.20;c147 0.00 12.60, got {text!r:.80}")
    return Action(class_of(match[1], classes, "an action"), float(match[2]), float(match[3]))
