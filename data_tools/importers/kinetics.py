"""Kinetics: the official csv files to a manifest with one single-label task.

A file has the columns ``label, youtube_id, time_start, time_end, split`` and, in some releases, ``is_cc``; the label is
the name of the class and is held out in some test files. The clip of a row is a file of its own, which the usual
download tools call ``<youtube_id>_<time_start>_<time_end>.mp4`` with the seconds in six digits, in one folder, in one
a split or in one a class: it is looked for by its name. There is no official order of the classes; others sort them by
name, and so does this.

Sources: the description of the files at activity-net.org and deepmind.com; ActivityNet/Crawler/Kinetics, whose
``download.py`` names the clips.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from data_tools.importers.lists import Entry, Listing, label_names, read_classes
from data_tools.importers.samples import Options, Sample, write_samples
from data_tools.importers.tables import RowError, ascending, number, read_rows, split_of
from data_tools.sources import Imported
from hoi_train.data.manifest.problems import Problems

COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")


def import_kinetics(
    annotations: Sequence[Path], options: Options, *, classes: Path | None = None, task: str = "label"
) -> Imported:
    """Write the manifest of Kinetics.

    Args:
        annotations: the csv files.
        options: what all formats are told.
        classes: class names in their order.
        task: name of the task.

    Raises:
        ManifestError: with everything that is wrong in the files, each with file and line.
        UserError: no rows, or none of the clips.
    """
    problems, left_out = Problems(), Counter[str]()
    samples: list[Sample] = []
    for file in annotations:
        samples += read_rows(file, COLUMNS, partial(_samples, file, task, left_out), problems)
    names: Sequence[str] = sorted({str(sample.labels[task]) for sample in samples})
    if classes:
        by_file = {file: [sample for sample in samples if sample.file == file] for file in annotations}
        listings = [
            Listing(file, file, tuple(Entry(each.clip_id, str(each.labels[task]), each.row) for each in found))
            for file, found in by_file.items()
        ]
        names, _ = label_names(listings, read_classes(classes, problems), problems)
    return write_samples(samples, {task: (names, "single")}, options, problems, left_out)


def _samples(file: Path, task: str, left_out: Counter[str], line: int, row: Mapping[str, str]) -> Iterator[Sample]:
    if not re.fullmatch("[A-Za-z0-9_-]+", row["youtube_id"]):
        raise RowError(f"youtube_id must be letters, digits, '-' and '_', got {row['youtube_id']!r:.80}")
    start, end = ascending(number(row, "time_start"), number(row, "time_end"))
    split = split_of(row, "split")
    if row["label"]:
        name = f"{row['youtube_id']}_{int(start):06}_{int(end):06}"
        labels = {task: row["label"]}
        yield Sample(name, name, split, labels, file, line, group=row["youtube_id"], named=True)
    else:
        left_out["row without a label"] += 1
