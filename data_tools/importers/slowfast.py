"""SlowFast: ``train.csv``, ``val.csv`` and ``test.csv`` to a manifest with one single-label task.

A line is ``path_to_video label``, the label a class id from 0. They are separated by ``DATA.PATH_LABEL_SEPARATOR``, a
blank unless told otherwise, which many configurations set to a comma. Paths are relative to ``DATA.PATH_PREFIX``, which
is the data root here, or absolute.

Source: slowfast/datasets/DATASET.md and kinetics.py of github.com/facebookresearch/SlowFast.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from data_tools.importers.lists import list_files
from data_tools.importers.path_lists import Form, read_path_list, reading_of_lists
from data_tools.importers.samples import Options, Reading, Sample
from data_tools.sources import numbered_lines
from hoi_train.data.manifest.problems import Problems


def read_slowfast(
    options: Options,
    *,
    train_list: Path | None = None,
    val_list: Path | None = None,
    test_list: Path | None = None,
    separator: str | None = None,
    classes: Path | None = None,
    task: str = "label",
) -> Reading:
    """Read lists for SlowFast: a path and a class id per line.

    Args:
        options: what every importer is told.
        train_list: list of the training clips.
        val_list: list of the val clips.
        test_list: list of the test clips.
        separator: between path and class id; by default a comma if most lines have one there, else blanks.
        classes: file of class names, a name or an id and a name per line.
        task: name of the task.

    Raises:
        UserError: no list is named.
    """
    problems, remarks = Problems(), Counter[str]()
    samples: list[Sample] = []
    for split, file in list_files(train_list, val_list, test_list).items():
        form = Form(separator or guess_separator(file))
        samples += read_path_list(file, split, form, task, problems, remarks)
    return reading_of_lists(samples, options, problems, remarks, classes=classes, task=task, labels="single")


def guess_separator(file: Path) -> str | None:
    """Return a comma if most lines end in one and a number, else ``None`` for blanks."""
    lines = [line for _, line in numbered_lines(file, Problems())]
    return "," if 2 * sum(re.search(r", *-?[0-9]+$", line) is not None for line in lines) > len(lines) else None
