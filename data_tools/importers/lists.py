"""List files: a clip a line, with its label; which column is which is found from the lines themselves.

Cells are separated by tabs, or commas (quoted as in csv), or blanks: whichever of these, in this order, is found in
every line. Accepted forms are ``path label``, ``label path``, ``index label path`` and ``index path label``, where the
index is an ascending number. The path column is the one whose cells are on disk or end like videos. A first line of
column names is passed over; so are a BOM, CRLF and empty lines.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from data_tools.sources import is_clip, is_video, numbered_lines
from hoi_train.core.paths import inside, is_plain
from hoi_train.core.records import nearest
from hoi_train.data.manifest.problems import Problems

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
    unit: Literal["line", "row"] = "line"


def read_list(file: Path, bases: Sequence[Path], problems: Problems) -> Listing:
    """Read a list file, noting what is wrong.

    Args:
        file: the list.
        bases: folders that the paths may be relative to; the one with most of the files is taken, the first of equals.
        problems: where faults are noted.
    """
    rows = _cells(list(numbered_lines(file, problems)), file, problems)
    if rows and all(_HEADER.fullmatch(cell) for cell in rows[0][1]):
        header, *rows = rows
        if not rows:
            problems.add(file, header[0], "only a header")
    columns = _columns([cells for _, cells in rows], bases)
    if columns is None:
        if rows:
            problems.add(
                file, rows[0][0], f"cannot tell path and label in {rows[0][1]!r:.120}; accepted forms: {FORMS}"
            )
        return Listing(file, bases[0], ())
    path, label = columns
    base = max(bases, key=lambda folder: sum(is_clip(folder / cells[path]) for _, cells in rows))
    entries = []
    for line, cells in rows:
        relative = inside(base, cells[path])
        if relative is None:
            problems.add(file, line, f"path {cells[path]!r:.80} leaves the folder {base}")
        elif not is_plain(relative + cells[label]):
            problems.add(file, line, f"{cells[path]!r:.80} {cells[label]!r:.40} contains control characters")
        else:
            entries.append(Entry(relative, cells[label], line))
    return Listing(file, base, tuple(entries))


def read_classes(file: Path, problems: Problems) -> dict[int, str]:
    """Read class names: a name a line with ids from 0, or an id and a name a line; returned by ascending id."""
    lines = list(numbered_lines(file, problems))
    matches = [_ID_AND_NAME.fullmatch(line) for _, line in lines]
    numbered = all(matches)
    names: dict[int, str] = {}
    taken: set[str] = set()
    for position, (number, line) in enumerate(lines):
        match = matches[position] if numbered else None
        id_, name = (int(match[1][:9]), match[2].strip()) if match else (position, line)
        if not is_plain(name):
            problems.add(file, number, f"class name {name!r:.80} contains control characters")
        if id_ in names or name in taken:
            problems.add(file, number, f"class {name!r:.80} or its id {id_} occurs twice")
        names[id_] = name
        taken.add(name)
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
    known = set(names)
    numbers = numbers and not labels <= known
    found = {label: classes.get(int(label)) if numbers else label for label in labels}
    unknown = {label for label, name in found.items() if name not in known}
    for listing in listings:
        bad = [entry for entry in listing.entries if entry.label in unknown]

        def text(place: int, bad: list[Entry] = bad) -> str:
            label = bad[place].label
            if numbers:
                return f"label {label} is not among the class ids, {_ids(classes)}"
            return f"unknown class {label!r:.80}{nearest(label[:80], names)}"

        def number(place: int, bad: list[Entry] = bad) -> int:
            return bad[place].line

        problems.add_rows(listing.file, range(len(bad)), len(bad), text, number, listing.unit)
    return names, {label: name or label for label, name in found.items()}


def _ids(classes: dict[int, str]) -> str:
    return f"{min(classes)} to {max(classes)}" if classes else "of which there are none"


def _cells(lines: list[tuple[int, str]], file: Path, problems: Problems) -> list[tuple[int, list[str]]]:
    """Split lines into cells, as many in each as most lines have."""
    texts = [line for _, line in lines]
    if all("\t" in line for line in texts):
        rows = [(number, [cell.strip() for cell in line.split("\t")]) for number, line in lines]
    elif all("," in line for line in texts):
        rows = [(number, _comma_cells(line)) for number, line in lines]
    else:
        rows = [(number, line.split()) for number, line in lines]
    if not rows:
        return []
    usual = Counter(len(cells) for _, cells in rows).most_common(1)[0][0]
    for number, cells in rows:
        if len(cells) != usual:
            text = f"cells: {len(cells)}, most lines have {usual}: {' '.join(cells)!r:.80}"
            problems.add(file, number, f"{text}; separate by tabs if names hold blanks")
        elif not all(cells):
            problems.add(file, number, f"an empty cell: {' '.join(cells)!r:.80}")
    return [(number, cells) for number, cells in rows if len(cells) == usual and all(cells)]


def _comma_cells(line: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line]))]
    except csv.Error:  # a cell of more than 128 KiB, or a NUL: no list has that
        return [line]


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
