"""All problems of an input, collected first and reported together, each with file and row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hoi_train.core.records import UserError

LISTED = 50  # problems printed, and kept per check


class ManifestError(UserError):
    """Bad input: a manifest, or the files it is built from. The message lists the problems, one per line.

    Args:
        problems: in the order of files and rows; at most ``LISTED`` per check.
        total: number of all problems.
    """

    def __init__(self, problems: tuple[Problem, ...], total: int) -> None:
        self.problems = problems
        self.total = total
        lines = [str(problem) for problem in problems[:LISTED]]
        if total > len(lines):
            lines.append(f"… and {total - len(lines)} more")
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Problem:
    """One fault of an input file.

    Args:
        file: where.
        row: line of a text file or row of a table, from 1; ``None`` for the whole file.
        text: what came, what is allowed, what to do.
        unit: what ``row`` counts.
    """

    file: Path
    row: int | None
    text: str
    unit: Literal["line", "row"] = "line"

    def __str__(self) -> str:
        place = "" if self.row is None else f", {self.unit} {self.row}"
        return f"{self.file}{place}: {self.text}"


class Problems:
    """Collect problems; ``raise_if_any`` raises one ``ManifestError`` with all of them."""

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self.total = 0

    def add(self, file: Path, row: int | None, text: str, unit: Literal["line", "row"] = "line") -> None:
        """Note one problem."""
        self._found.append(Problem(file, row, text, unit))
        self.total += 1

    def add_rows(
        self,
        file: Path,
        rows: Sequence[int],
        text: Callable[[int], str],
        number: Callable[[int], int],
        unit: Literal["line", "row"],
    ) -> None:
        """Note one problem per row; the text is built for the first ``LISTED`` only.

        Args:
            file: where.
            rows: positions of the bad rows in the table, from 0, ascending.
            text: says what is wrong with the row at a position.
            number: maps a position to the line or row that the user sees.
            unit: what that number counts.
        """
        for position in rows[:LISTED]:
            self._found.append(Problem(file, number(position), text(position), unit))
        self.total += len(rows)

    def raise_if_any(self) -> None:
        """Raise ``ManifestError`` if anything was noted."""
        if self.total:
            order = sorted(self._found, key=lambda problem: (str(problem.file), problem.row or 0))
            raise ManifestError(tuple(order), self.total)
