"""EPIC-KITCHENS-100: its csv files to a manifest with the tasks verb (97 classes) and noun (300 classes).

``EPIC_100_train.csv`` and ``EPIC_100_validation.csv`` hold a row a narrated action: ``narration_id, participant_id,
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
from functools import partial
from pathlib import Path

from data_tools.importers.samples import Options, Sample, write_samples
from data_tools.importers.tables import RowError, ascending, class_of, clock, ordered_classes, part_files, read_rows
from data_tools.sources import Imported
from hoi_train.core.records import LabelKind, Split
from hoi_train.data.manifest.problems import Problems

PARTS: Mapping[str, Split] = {"EPIC_100_train.csv": "train", "EPIC_100_validation.csv": "val"}
COLUMNS = (
    *("narration_id", "participant_id", "video_id", "start_timestamp", "stop_timestamp"),
    *("verb_class", "noun_class", "all_noun_classes"),
)
_LIST = re.compile(r"\[ *([0-9]{1,9}(?: *, *[0-9]{1,9})*) *\]")


def import_epic_kitchens(annotations: Path, options: Options, *, all_nouns: bool = False) -> Imported:
    """Write the manifest of EPIC-KITCHENS-100.

    Args:
        annotations: folder of the csv files.
        options: what all formats are told.
        all_nouns: the task noun is all nouns of the narration, multi-label, instead of the first.

    Raises:
        ManifestError: with everything that is wrong in the files, each with file and line.
        UserError: no annotation files, or none of the videos.
    """
    problems = Problems()
    parts = part_files(annotations, PARTS)
    verbs = _classes(annotations / "EPIC_100_verb_classes.csv", problems)
    nouns = _classes(annotations / "EPIC_100_noun_classes.csv", problems)
    samples: list[Sample] = []
    for file, split in parts.items() if verbs and nouns else ():
        make = partial(_sample, file, split, verbs, nouns, all_nouns)
        samples += read_rows(file, COLUMNS, make, problems)
    nouns_of: LabelKind = "multi" if all_nouns else "single"
    return write_samples(samples, {"verb": (verbs, "single"), "noun": (nouns, nouns_of)}, options, problems, {})


def _classes(file: Path, problems: Problems) -> list[str]:
    entries = read_rows(file, ("id", "key"), lambda line, row: [(line, row["id"], row["key"])], problems)
    return ordered_classes(file, entries, "0", problems)


def _sample(
    file: Path,
    split: Split,
    verbs: Sequence[str],
    nouns: Sequence[str],
    all_nouns: bool,
    line: int,
    row: Mapping[str, str],
) -> Iterator[Sample]:
    listed = _LIST.fullmatch(row["all_noun_classes"])
    if listed is None:
        raise RowError(f"all_noun_classes must be a list such as [54, 36], got {row['all_noun_classes']!r:.80}")
    several = [class_of(text.strip(), nouns, "all_noun_classes") for text in listed[1].split(",")]
    first = class_of(row["noun_class"], nouns, "noun_class")
    verb = class_of(row["verb_class"], verbs, "verb_class")
    if not all(row[column] for column in ("narration_id", "participant_id", "video_id")):
        raise RowError("narration_id, participant_id and video_id must not be empty")
    start, end = ascending(clock(row, "start_timestamp"), clock(row, "stop_timestamp"))
    yield Sample(
        row["narration_id"],
        row["video_id"],
        split,
        {"verb": verb, "noun": list(dict.fromkeys(several)) if all_nouns else first},
        file,
        line,
        group=row["participant_id"],
        start=start,
        end=end,
        named=True,
    )
