"""Format terminal output: progress bars, literal lines, shortened lists and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SHOWN = 10  # lines of a list in the terminal; reports list all


def progress(console: Console) -> Progress:
    """Return a progress bar with item count, elapsed and remaining time."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console)


def say(console: Console, *lines: str) -> None:
    """Print lines literally, without rich markup: file names may contain brackets."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def first_of(lines: Sequence[str], shown: int = SHOWN) -> list[str]:
    """Return the first lines and, if some are left out, a line with their number."""
    return [*lines[:shown], *([f"… and {len(lines) - shown} more"] if len(lines) > shown else [])]


def counted(counts: Mapping[str, int]) -> str:
    """Return counts by kind in parentheses, most frequent first; empty without counts.

    >>> counted({"missing": 1, "unreadable": 3})
    ' (3 unreadable, 1 missing)'
    """
    ordered = sorted(counts.items(), key=lambda each: -each[1])
    return f" ({', '.join(f'{count} {kind}' for kind, count in ordered)})" if ordered else ""
