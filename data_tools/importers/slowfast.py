"""SlowFast: ``train.csv``, ``val.csv`` and ``test.csv`` to a manifest with one single-label task.

A line is ``path_to_video label``, the label a class id from 0. They are separated by ``DATA.PATH_LABEL_SEPARATOR``, a
blank unless told otherwise, which many configurations set to a comma. Paths are relative to ``DATA.PATH_PREFIX``, which
is the data root here, or absolute.

Source: slowfast/datasets/DATASET.md and kinetics.py of github.com/facebookresearch/SlowFast.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from data_tools.importers.path_lists import Form, read_path_list, write_path_lists
from data_tools.importers.samples import Options
from data_tools.sources import Imported, numbered_lines
from hoi_train.core.records import Split
from hoi_train.data.manifest.problems import Problems


def import_slowfast(
    lists: Mapping[Split, Path],
    options: Options,
    *,
    separator: str | None = None,
    classes: Path | None = None,
    task: str = "label",
) -> Imported:
    """Write the manifest of lists for SlowFast.

    Args:
        lists: the csv files by split.
        options: what all formats are told.
        separator: between path and label; by default a comma if most lines have one there, else blanks.
        classes: class names by id.
        task: name of the task.

    Raises:
        ManifestError: with everything that is wrong in the files, each with file and line.
        UserError: no clips, or none that is on disk.
    """
    problems, left_out = Problems(), Counter[str]()
    read = {
        split: read_path_list(file, Form(separator or guess_separator(file)), problems, left_out)
        for split, file in lists.items()
    }
    return write_path_lists(read, options, problems, left_out, classes=classes, task=task, labels="single")


def guess_separator(file: Path) -> str | None:
    """Return a comma if most lines end in one and a number, else ``None`` for blanks."""
    lines = [line for _, line in numbered_lines(file, Problems())]
    return "," if 2 * sum(re.search(r", *-?[0-9]+$", line) is not None for line in lines) > len(lines) else None
