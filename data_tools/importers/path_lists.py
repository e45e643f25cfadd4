"""Lists of paths with their labels, which several code bases read in forms that differ little: what these share.

A line is ``path label``, or of frame folders ``path total_frames label``; of multi-label lists the label is several.
Labels are class ids from 0, or with class names at hand those names. A label of -1 means that the class is not known;
such lines are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_tools.importers.lists import Entry, Listing, label_names, read_classes
from data_tools.importers.samples import Options, Sample, write_samples
from data_tools.importers.tables import MOST_CLASSES, class_names
from data_tools.sources import SPLIT_NAMES, Imported, is_clip, is_video, numbered_lines
from hoi_train.core.paths import inside
from hoi_train.core.records import LabelKind, Split, UserError
from hoi_train.data.manifest.problems import Problems

_LOOKED_AT = 1_000  # paths that decide what all paths are relative to
_ID = re.compile("-1|[0-9]{1,9}")
NO_LABEL = "line without a label"


@dataclass(frozen=True)
class Listed:
    """A line of a list; ``num_frames`` is given of frame folders."""

    path: str
    labels: tuple[str, ...]
    row: int
    num_frames: int | None = None


@dataclass(frozen=True)
class PathList:
    """A list that was read."""

    file: Path
    lines: tuple[Listed, ...]
    unit: Literal["line", "row"] = "line"


@dataclass(frozen=True)
class Form:
    """How a list is written.

    Args:
        separator: of the cells; ``None`` for blanks.
        frames: a path is followed by the number of its frames.
        labels: one label a line, so that the path may hold separators; or any number.
        unlabelled: a line may be a path alone.
    """

    separator: str | None = None
    frames: bool = False
    labels: LabelKind = "single"
    unlabelled: bool = False


def read_path_list(file: Path, form: Form, problems: Problems, left_out: Counter[str]) -> PathList:
    """Read a list, noting lines that do not fit and counting those without a label."""
    lines = []
    for number, line in numbered_lines(file, problems):
        behind = 2 if form.frames else 1  # cells after the path
        cells = line.split(form.separator) if form.labels == "multi" else line.rsplit(form.separator, behind)
        path, *rest = [cell.strip() for cell in cells]
        total, labels = (rest[0], rest[1:]) if form.frames and rest else (None, rest)
        alone = not rest or (not form.frames and is_video(Path(line)))
        if labels == ["-1"] or (alone and form.unlabelled):
            left_out[NO_LABEL] += 1
        elif alone or not labels or not (total is None or re.fullmatch("[0-9]{1,9}", total)):
            wanted = "a path, its number of frames and a label" if form.frames else "a path and a label"
            problems.add(file, number, f"must be {wanted}, got {line!r:.80}")
        elif not path or not all(labels):
            problems.add(file, number, f"an empty cell: {line!r:.80}")
        else:
            lines.append(Listed(path, tuple(map(_plain_id, labels)), number, None if total is None else int(total)))
    return PathList(file, tuple(lines))


def _plain_id(label: str) -> str:
    return str(int(label)) if _ID.fullmatch(label) else label


def write_path_lists(
    lists: Mapping[Split, PathList],
    options: Options,
    problems: Problems,
    left_out: Counter[str],
    *,
    classes: Path | None,
    task: str,
    labels: LabelKind,
) -> Imported:
    """Write the manifest of some lists.

    Args:
        lists: by split.
        options: what all formats are told.
        problems: what is wrong so far.
        left_out: what is not in the lists, and how often.
        classes: class names, by their ids; without them the ids are the names.
        task: name of the task.
        labels: one label a clip, or any number.

    Raises:
        ManifestError: with everything that is wrong, each with file and line.
        UserError: no clips, or none that is on disk.
    """
    if not lists:
        raise UserError("name a list with --list, --val-list or --test-list")
    names, name_of = _names(lists, classes, problems)
    root = options.videos.resolve()
    samples = []
    for split, listed in lists.items():
        base = _base(root, split, listed.lines)
        for line in listed.lines:
            path = line.path if Path(line.path).is_absolute() else (base / line.path).as_posix()
            path = inside(root, path) or line.path  # which is refused then
            found = list(dict.fromkeys(name_of.get(label, label) for label in line.labels))
            samples.append(
                Sample(
                    path,
                    path,
                    split,
                    {task: found if labels == "multi" else found[0]},
                    listed.file,
                    line.row,
                    num_frames=line.num_frames,
                    unit=listed.unit,
                )
            )
    return write_samples(samples, {task: (names, labels)}, options, problems, left_out)


def _names(
    lists: Mapping[Split, PathList], classes: Path | None, problems: Problems
) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return the class names by id, and the name of each label; labels that are neither id nor name are noted."""
    listings = [
        Listing(
            each.file,
            each.file,
            tuple(Entry(line.path, label, line.row) for line in each.lines for label in line.labels),
            each.unit,
        )
        for each in lists.values()
    ]
    if classes:
        return label_names(listings, read_classes(classes, problems), problems)
    for listing in listings:
        for entry in listing.entries:
            if not _ID.fullmatch(entry.label) or not 0 <= int(entry.label) < MOST_CLASSES:
                text = f"label must be a class id below {MOST_CLASSES}, got {entry.label!r:.40}; --classes gives names"
                problems.add(listing.file, entry.line, text, listing.unit)
    return class_names(entry.label for listing in listings for entry in listing.entries), {}


def _base(root: Path, split: Split, lines: Sequence[Listed]) -> Path:
    """Return what the paths of a list are relative to: the data root, or its folder of the split."""
    candidates = [root]
    for child in sorted(root.iterdir()):
        words = re.split("[^a-z]+", child.name.lower())
        if child.is_dir() and any(SPLIT_NAMES.get(word) == split for word in words):
            candidates.append(child)
    if len(candidates) == 1:
        return root
    looked_at = [line.path for line in lines[:_LOOKED_AT] if ".." not in line.path]
    return max(candidates, key=lambda folder: sum(is_clip(folder / path) for path in looked_at))
