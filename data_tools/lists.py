"""List files: a clip a line, with its label; which column is which is found from the lines themselves.

Cells are separated by tabs, or commas (quoted as in csv), or blanks: whichever of these, in this order, is found in
every line. Accepted forms are ``path label``, ``label path``, ``index label path`` and ``index path label``, where the
index is an ascending number. The path column is the one whose cells are on disk or end like videos. A first line of
column names is passed over; so are a BOM, CRLF and empty lines.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

from data_tools.sources import is_clip, is_plain, is_video, numbered_lines
from hoi_train.data.problems import Problems
from hoi_train.records import nearest

FORMS = "path label | label path | index label path | index path label"

_HEADER = re.compile(r"(path|file|file_?name|video|clip|label|class|category|id|index|name|target)s?", re.IGNORECASE)
_ID_AND_NAME = re.compile(r"(\d+)[\t ,]+(.+)")


@dataclass(frozen=True)
class Entry:
    """One line of a list."""

    path: str
    label: str
    line: int


@dataclass(frozen=True)
class Listing:
    """A list file and the folder that its paths are relative to."""

    file: Path
    base: Path
    entries: tuple[Entry, ...]


def read_list(file: Path, bases: Sequence[Path], problems: Problems) -> Listing:
    """Read a list file, noting what is wrong.

    Args:
        file: the list.
        bases: folders that the paths may be relative to; the one with most of the files is taken, the first of equals.
        problems: where faults are noted.
    """
    rows = _cells(list(numbered_lines(file, problems)), file, problems)
    if rows and all(_HEADER.fullmatch(cell) for cell in rows[0][1]):
        rows = rows[1:]
    columns = _columns([cells for _, cells in rows], bases)
    if rows and columns is None:
        shown = rows[0][1]
        problems.add(file, rows[0][0], f"cannot tell path and label in {shown!r:.120}; accepted forms: {FORMS}")
    if columns is None:
        return Listing(file, bases[0], ())
    path, label = columns
    entries = tuple(Entry(cells[path], cells[label], line) for line, cells in rows)
    base = max(bases, key=lambda folder: sum(is_clip(folder / entry.path) for entry in entries))
    sound = tuple(entry for entry in entries if not _note_outside(file, base, entry, problems))
    return Listing(file, base, sound)


def read_classes(file: Path, problems: Problems) -> dict[int, str]:
    """Read class names: a name a line with ids from 0, or an id and a name a line; returned by ascending id."""
    lines = list(numbered_lines(file, problems))
    matches = [_ID_AND_NAME.fullmatch(line) for _, line in lines]
    names: dict[int, str] = {}
    for position, (number, line) in enumerate(lines):
        match = matches[position] if all(matches) else None
        id_, name = (int(match[1][:9]), match[2].strip()) if match else (position, line)
        if id_ in names or name in names.values():
            problems.add(file, number, f"class {name!r:.80} or its id {id_} occurs twice")
        names[id_] = name
    return dict(sorted(names.items()))


def label_names(
    listings: Sequence[Listing], classes: dict[int, str] | None, problems: Problems
) -> tuple[list[str], dict[str, str]]:
    """Return the class names in order, and the class name of each label; unknown labels are noted.

    Labels are class names if all of them are, else ids. Without class names they stand for themselves, sorted.
    """
    labels = {entry.label for listing in listings for entry in listing.entries}
    numbers = all(label.isascii() and label.isdigit() and len(label) < 10 for label in labels)
    if classes is None:
        names = sorted(labels, key=lambda label: (int(label) if numbers else 0, label))
        return names, {name: name for name in names}
    names = list(classes.values())
    numbers = numbers and not labels <= set(names)
    found = {label: classes.get(int(label)) if numbers else label for label in labels}
    unknown = {label for label, name in found.items() if name not in names}
    for listing in listings:
        for entry in listing.entries:
            if entry.label in unknown and numbers:
                problems.add(
                    listing.file, entry.line, f"label {entry.label} is not among the class ids, {_ids(classes)}"
                )
            elif entry.label in unknown:
                problems.add(
                    listing.file, entry.line, f"unknown class {entry.label!r:.80}{nearest(entry.label, names)}"
                )
    return names, {label: name or label for label, name in found.items()}


def _ids(classes: dict[int, str]) -> str:
    return f"{min(classes)} to {max(classes)}" if classes else "of which there are none"


def _cells(lines: list[tuple[int, str]], file: Path, problems: Problems) -> list[tuple[int, list[str]]]:
    """Split lines into cells, as many in each as the first has."""
    texts = [line for _, line in lines]
    if all("\t" in line for line in texts):
        rows = [(number, [cell.strip() for cell in line.split("\t")]) for number, line in lines]
    elif all("," in line for line in texts):
        rows = [(number, [cell.strip() for cell in next(csv.reader([line]))]) for number, line in lines]
    else:
        rows = [(number, line.split()) for number, line in lines]
    if not rows:
        return []
    widths = [len(cells) for _, cells in rows]
    usual = max(sorted(set(widths)), key=widths.count)
    for number, cells in rows:
        if len(cells) != usual:
            text = f"cells: {len(cells)}, most lines have {usual}: {' '.join(cells)!r:.80}"
            problems.add(file, number, f"{text}; separate by tabs if names hold blanks")
        elif not all(cells):
            problems.add(file, number, f"an empty cell: {' '.join(cells)!r:.80}")
    return [(number, cells) for number, cells in rows if len(cells) == usual and all(cells)]


def _columns(rows: list[list[str]], bases: Sequence[Path]) -> tuple[int, int] | None:
    """Return which columns hold path and label, or ``None`` if that is not clear."""
    if not rows:
        return None
    candidates = list(range(len(rows[0])))
    if len(candidates) == 3 and _ascends([row[0] for row in rows]):
        candidates = candidates[1:]
    if len(candidates) != 2:
        return None
    likeness = {column: sum(_like_path(row[column], bases) for row in rows) for column in candidates}
    first, second = candidates
    if likeness[first] == likeness[second]:
        return None
    return (first, second) if likeness[first] > likeness[second] else (second, first)


def _ascends(cells: Sequence[str]) -> bool:
    """Return whether the cells are ascending whole numbers."""
    if not all(cell.isascii() and cell.isdigit() and len(cell) < 12 for cell in cells):
        return False
    numbers = [int(cell) for cell in cells]
    return all(before < after for before, after in pairwise(numbers))


def _like_path(cell: str, bases: Sequence[Path]) -> bool:
    return is_video(Path(cell)) or any(is_clip(base / cell) for base in bases)


def _note_outside(file: Path, base: Path, entry: Entry, problems: Problems) -> bool:
    """Note a path that leaves the folder of the videos, or a name that no manifest takes."""
    path = PurePosixPath(entry.path)
    if ".." in path.parts or (path.is_absolute() and not path.is_relative_to(os.fspath(base.resolve()))):
        problems.add(file, entry.line, f"path {entry.path!r:.80} leaves the folder {base}")
        return True
    if not is_plain(entry.path):
        problems.add(file, entry.line, f"path {entry.path!r:.80} contains control characters")
        return True
    return False
