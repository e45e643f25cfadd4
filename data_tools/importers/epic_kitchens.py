"""EPIC-KITCHENS-100: its csv files to a manifest with the tasks verb (97 classes) and noun (300 classes).

``EPIC_100_train.csv`` and ``EPIC_100_validation.csv`` hold a row per narrated action: ``narration_id, participant_id,
video_id, narration_timestamp, start_timestamp, stop_timestamp, start_frame, stop_frame, narration, verb, verb_class,
noun, noun_class, all_nouns, all_noun_classes``. Times are ``HH:MM:SS.ss`` in the video, lists are Python's
(``"[54, 36]"``), class ids count from 0 and are those of ``EPIC_100_verb_classes.csv`` and
``EPIC_100_noun_classes.csv`` (``id, key, instances, category``). ``noun_class`` is the first of ``all_noun_classes``,
which may name a class twice. The test part has no labels. Videos are ``<video_id>.MP4``, looked for by name.

Actions overlap in time; the group is the participant, who occurs in train and validation alike.

Source: README.md and the files of github.com/epic-kitchens/epic-kitchens-100-annotations, commit ea8b404.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from data_tools.importers.samples import Options, Reading, Sample
from data_tools.importers.tables import (
    RowError,
    TableRow,
    ascending,
    class_of,
    clock,
    ordered_classes,
    part_files,
    read_rows,
)
from hoi_train.core.records import Split
from hoi_train.data.manifest.problems import Problems

PARTS: Mapping[str, Split] = {"EPIC_100_train.csv": "train", "EPIC_100_validation.csv": "val"}
COLUMNS = (
    *("narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp"),
    *("verb_class", "noun_class", "all_noun_classes"),
)
_LIST = re.compile(r"\[ *([0-9]{1,9}(?: *, *[0-9]{1,9})*) *\]")


def read_epic_kitchens(options: Options, *, annotations: Path, all_nouns: bool = False) -> Reading:
    """Read the csv files of EPIC-KITCHENS-100: verb and noun of an action.

    Args:
        options: what every importer is told.
        annotations: folder of the annotation files.
        all_nouns: the task noun is all nouns of an action, multi-label, instead of the first.

    Raises:
        UserError: no annotation files.
    """
    problems = Problems()
    parts = part_files(annotations, PARTS)
    verbs = _classes(annotations / "EPIC_100_verb_classes.csv", problems)
    nouns = _classes(annotations / "EPIC_100_noun_classes.csv", problems)
    samples = _samples(parts if verbs and nouns else {}, verbs, nouns, all_nouns, problems)
    return Reading(samples, {"verb": (verbs, "single"), "noun": (nouns, "multi" if all_nouns else "single")}, problems)


def _classes(file: Path, problems: Problems) -> list[str]:
    entries = [(row.number, row["id"], row["key"]) for row in read_rows(file, ("id", "key"), problems)]
    return ordered_classes(file, entries, "0", problems)


def _samples(
    parts: Mapping[Path, Split], verbs: Sequence[str], nouns: Sequence[str], all_nouns: bool, problems: Problems
) -> Iterator[Sample]:
    for file, split in parts.items():
        for row in read_rows(file, COLUMNS, problems):
            with row.faults_noted(problems):
                several = _nouns(row, nouns)
                first = class_of(row["noun_class"], nouns, "noun_class")
                verb = class_of(row["verb_class"], verbs, "verb_class")
                if not all(row[column] for column in ("narration_id", "participant_id", "video_id")):
                    raise RowError("narration_id, participant_id and video_id must not be empty")
                start, end = ascending(clock(row, "start_timestamp"), clock(row, "stop_timestamp"))
                yield Sample(
                    row["narration_id"],
                    row["video_id"],
                    split,
                    {"verb": verb, "noun": several if all_nouns else first},
                    file,
                    row.number,
                    lookup="name",
                    group=row["participant_id"],
                    start=start,
                    end=end,
                )


def _nouns(row: TableRow, nouns: Sequence[str]) -> list[str]:
    listed = _LIST.fullmatch(row["all_noun_classes"])
    if listed is None:
        raise RowError(f"all_noun_classes must be a list such as [54, 36], got {row['all_noun_classes']!r:.80}")
    return list(dict.fromkeys(class_of(text.strip(), nouns, "all_noun_classes") for text in listed[1].split(",")))
