"""Kinetics: the official csv files to a manifest with one single-label task.

A file has the columns ``label, youtube_id, time_start, time_end, split`` and, in some releases, ``is_cc``; the label is
the name of the class and is held out in some test files. The clip of a row is a file of its own, which the usual
download tools call ``<youtube_id>_<time_start>_<time_end>.mp4`` with the seconds in six digits, in one folder, or in
one per split or per class: it is looked for by its name. There is no official order of the classes; others sort them by
name, and so does this.

Sources: the description of the files at activity-net.org and deepmind.com; ActivityNet/Crawler/Kinetics, whose
``download.py`` names the clips.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_tools.importers.labels import read_classes, with_names
from data_tools.importers.samples import Options, Reading, Sample
from data_tools.importers.tables import RowError, ascending, number, read_rows, split_of
from hoi_train.data.manifest.problems import Problems

COLUMNS = ("label", "youtube_id", "time_start", "time_end", "split")


def read_kinetics(
    options: Options, *, annotations: Sequence[Path], classes: Path | None = None, task: str = "label"
) -> Reading:
    """Read the official csv files of Kinetics.

    Args:
        options: what every importer is told; clips are <youtube_id>_<start>_<end>.mp4.
        annotations: csv files with label, youtube_id, time_start, time_end and split.
        classes: file of class names in their order; by default they are sorted.
        task: name of the task.
    """
    problems, remarks = Problems(), Counter[str]()
    samples = [sample for file in annotations for sample in _samples(file, task, problems, remarks)]
    names = sorted({name for sample in samples for name in sample.names(task)})
    if classes:
        known = read_classes(classes, problems)
        samples, names = with_names(samples, task, known, problems), list(known.values())
    return Reading(samples, {task: (names, "single")}, problems, remarks)


def _samples(file: Path, task: str, problems: Problems, remarks: Counter[str]) -> Iterator[Sample]:
    for row in read_rows(file, COLUMNS, problems):
        with row.faults_noted(problems):
            video = row["youtube_id"]
            if not re.fullmatch("[A-Za-z0-9_-]+", video):
                raise RowError(f"youtube_id must be letters, digits, '-' and '_', got {video!r:.80}")
            start, end = ascending(number(row, "time_start"), number(row, "time_end"))
            split = split_of(row, "split")
            if not row["label"]:
                remarks["left out, row without a label"] += 1
                continue
            name = f"{video}_{int(start):06}_{int(end):06}"
            labels = {task: row["label"]}
            yield Sample(name, name, split, labels, file, row.number, lookup="name", group=video)
