"""Rows of the tables that others annotate in: by column name, with numbers, times and class ids checked."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_tools.sources import SPLIT_NAMES, numbered_lines
from hoi_train.core.paths import is_plain
from hoi_train.core.records import Split, UserError, nearest
from hoi_train.data.manifest.problems import Problems

_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{0,12})?")
_CLOCK = re.compile(r"([0-9]{1,4}):([0-5][0-9]):([0-5][0-9](\.[0-9]{1,9})?)")


class RowError(ValueError):
    """What is wrong with a row."""


@dataclass(frozen=True)
class TableRow:
    """A row of an annotation file.

    Args:
        file: the file.
        number: its line or row, from 1.
        cells: by column; of csv they are text without blanks around it.
        unit: what ``number`` counts.
    """

    file: Path
    number: int
    cells: Mapping[str, Any]
    unit: Literal["line", "row"] = "line"

    def __getitem__(self, column: str) -> Any:
        return self.cells[column]

    @contextmanager
    def faults_noted(self, problems: Problems) -> Iterator[None]:
        """Note a ``RowError`` that is raised inside, with the row."""
        try:
            yield
        except RowError as error:
            problems.add(self.file, self.number, str(error), self.unit)


def read_rows(file: Path, needed: Sequence[str], problems: Problems, *, has_header: bool = True) -> Iterator[TableRow]:
    """Read a csv file, noting lines that do not fit.

    Args:
        file: UTF-8, with or without a byte order mark; a row is a line, cells may be in quotes.
        needed: columns that there must be; without a header, all columns.
        problems: where faults are noted.
        has_header: the first line names the columns.
    """
    columns = None if has_header else list(needed)
    only_header = False
    for number, line in numbered_lines(file, problems):
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], strict=True))]
        except csv.Error as error:
            problems.add(file, number, f"not csv: {error}; a cell in quotes must end on its line")
            continue
        if columns is None:
            columns, only_header = cells, True
            if not _check_header(file, number, cells, needed, problems):
                return
            continue
        only_header = False
        if len(cells) == len(columns):
            yield TableRow(file, number, dict(zip(columns, cells, strict=True)))
        else:
            whose = "the header has" if has_header else "there must be"
            problems.add(file, number, f"{len(cells)} cells where {whose} {len(columns)}: {line!r:.80}")
    if only_header:
        problems.add(file, None, "only a header")


def _check_header(file: Path, line: int, columns: Sequence[str], needed: Sequence[str], problems: Problems) -> bool:
    before = problems.total
    for name, count in Counter(columns).items():
        if count > 1:
            problems.add(file, line, f"column {name!r:.80} occurs twice")
    for name in needed:
        if name not in columns:
            hint = nearest(name, [column[:80] for column in columns])
            problems.add(file, line, f"no column {name!r}{hint}; needed are {', '.join(needed)}")
    return problems.total == before


def number(row: TableRow, column: str) -> float:
    """Return a cell that must be a decimal number of at least 0."""
    if not _NUMBER.fullmatch(row[column]):
        raise RowError(f"{column} must be a number of at least 0, got {row[column]!r:.80}")
    return float(row[column])


def clock(row: TableRow, column: str) -> float:
    """Return the seconds of a cell that must be a time such as ``00:01:02.53``."""
    match = _CLOCK.fullmatch(row[column])
    if match is None:
        raise RowError(f"{column} must be a time such as 00:01:02.53, got {row[column]!r:.80}")
    return 3600 * int(match[1]) + 60 * int(match[2]) + float(match[3])


def ascending(start: float, end: float) -> tuple[float, float]:
    """Return two times that must ascend."""
    if start >= end:
        raise RowError(f"it starts at {start:g} s and ends at {end:g} s: a clip must end after it starts")
    return start, end


def class_of(text: str, classes: Sequence[str], what: str) -> str:
    """Return the class whose id, from 0, a text must be."""
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) >= len(classes):
        raise RowError(f"{what} must be a class id from 0 to {len(classes) - 1}, got {text!r:.80}")
    return classes[int(text)]


def split_of(row: TableRow, column: str) -> Split:
    """Return the split that a cell must name."""
    if row[column].lower() not in SPLIT_NAMES:
        raise RowError(f"{column} must be one of {', '.join(SPLIT_NAMES)}, got {row[column]!r:.80}")
    return SPLIT_NAMES[row[column].lower()]


def part_files(folder: Path, parts: Mapping[str, Split]) -> dict[Path, Split]:
    """Return the annotation files that are in a folder, with the split that each becomes."""
    found = {folder / name: split for name, split in parts.items() if (folder / name).is_file()}
    if not found:
        raise UserError(f"--annotations: neither {' nor '.join(parts)} is in {folder}")
    return found


def ordered_classes(file: Path, entries: Iterable[tuple[int, str, str]], first: str, problems: Problems) -> list[str]:
    """Return class names whose ids count up without a gap, noting the entries that do not.

    Args:
        file: where they were read.
        entries: line, id and name of each.
        first: the first id, whose digits give the width of all: ``0``, or ``c000``.
        problems: where faults are noted.
    """
    letters = first.rstrip("0123456789")
    digits = first.removeprefix(letters)
    lines: dict[str, int] = {}
    for count, (line, id_, name) in enumerate(entries, int(digits)):
        wanted = f"{letters}{count:0{len(digits)}}"
        if id_ != wanted:
            problems.add(file, line, f"class id {wanted} must come here, got {id_!r:.40}; ids count up from {first}")
        if not name or not is_plain(name):
            problems.add(file, line, f"class name {name!r:.80} is empty or contains control characters")
        if name in lines:
            problems.add(file, line, f"class {name!r:.80} is on line {lines[name]} already")
        lines.setdefault(name, line)
    return list(lines)
