"""Lists of paths with their labels, which several code bases read in forms that differ little: what these share.

A line is ``path label``, or of frame folders ``path total_frames label``; of multi-label lists the label is several.
Labels are class ids from 0, or with class names at hand those names. A label of -1 means that the class is not known;
such lines are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from data_tools.importers.labels import MOST_CLASSES, id_classes, read_classes, with_names
from data_tools.importers.lists import base_of, below
from data_tools.importers.samples import Options, Reading, Sample
from data_tools.sources import is_video, numbered_lines
from hoi_train.core.records import LabelKind, Split
from hoi_train.data.manifest.problems import Problems

_ID = re.compile("-1|[0-9]{1,9}")
NO_LABEL = "left out, line without a label"


@dataclass(frozen=True)
class Form:
    """How a list is written.

    Args:
        separator: of the cells; ``None`` for blanks.
        frames: a path is followed by the number of its frames.
        labels: one label per line, so that the path may hold separators; or any number.
        unlabelled: a line may be a path alone.
    """

    separator: str | None = None
    frames: bool = False
    labels: LabelKind = "single"
    unlabelled: bool = False


def read_path_list(
    file: Path, split: Split, form: Form, task: str, problems: Problems, remarks: Counter[str]
) -> Iterator[Sample]:
    """Yield the lines of a list, noting those that do not fit and counting those without a label."""
    for number, line in numbered_lines(file, problems):
        behind = 2 if form.frames else 1  # cells after the path
        cells = line.split(form.separator) if form.labels == "multi" else line.rsplit(form.separator, behind)
        path, *rest = [cell.strip() for cell in cells]
        total, labels = (rest[0], rest[1:]) if form.frames and rest else (None, rest)
        alone = not rest or (not form.frames and is_video(Path(line)))
        if labels == ["-1"] or (alone and form.unlabelled):
            remarks[NO_LABEL] += 1
        elif alone or not labels or not (total is None or re.fullmatch("[0-9]{1,9}", total)):
            wanted = "a path, its number of frames and a label" if form.frames else "a path and a label"
            problems.add(file, number, f"must be {wanted}, got {line!r:.80}")
        elif not path or not all(labels):
            problems.add(file, number, f"an empty cell: {line!r:.80}")
        else:
            ids = [str(int(label)) if _ID.fullmatch(label) else label for label in labels]
            named = {task: list(dict.fromkeys(ids)) if form.labels == "multi" else ids[0]}
            yield Sample(path, path, split, named, file, number, num_frames=None if total is None else int(total))


def reading_of_lists(
    samples: Sequence[Sample],
    options: Options,
    problems: Problems,
    remarks: Counter[str],
    *,
    classes: Path | None,
    task: str,
    labels: LabelKind,
) -> Reading:
    """Return what lists mean.

    Args:
        samples: as written, ``video`` relative to the data root or its folder of the split; by split.
        options: what every importer is told.
        problems: what is wrong so far.
        remarks: what is left out so far.
        classes: class names by id; without them the ids are the names.
        task: name of the task.
        labels: one label per clip, or any number.
    """
    if classes:
        known = read_classes(classes, problems)
        samples, names = with_names(samples, task, known, problems), list(known.values())
    else:
        _check_ids(samples, task, problems)
        names = id_classes(label for sample in samples for label in sample.names(task))
    root = options.videos.resolve()
    placed: list[Sample] = []
    for split, of_split in groupby(samples, key=lambda sample: sample.split):
        listed = list(of_split)
        base = base_of(root, split, [sample.video for sample in listed])
        paths = [below(root, base, sample.video) for sample in listed]
        placed += [replace(sample, clip_id=path, video=path) for sample, path in zip(listed, paths, strict=True)]
    return Reading(placed, {task: (names, labels)}, problems, remarks)


def _check_ids(samples: Sequence[Sample], task: str, problems: Problems) -> None:
    for sample in samples:
        for label in sample.names(task):
            if not _ID.fullmatch(label) or not 0 <= int(label) < MOST_CLASSES:
                text = f"label must be a class id below {MOST_CLASSES}, got {label!r:.40}; --classes gives names"
                problems.add(sample.file, sample.row, text, sample.unit)
