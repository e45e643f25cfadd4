"""Show in the terminal what an evaluation found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console

from hoi_train.engine.epoch_table import epoch_table
from hoi_train.reports.protocols import protocol_table
from hoi_train.reports.tables import class_table

if TYPE_CHECKING:
    from hoi_train.inference.results import SplitResult


def show_result(result: SplitResult) -> None:
    """Print the tables of every task's classes, of the protocols of pairs and of the averages, then the notes."""
    console = Console()
    if result.stats is not None:
        for stats in result.stats.tasks.values():
            console.print(class_table(stats))
    for task, scalars in result.protocols.items():
        console.print(protocol_table(task, result.split, str(result.boxes), scalars))
    if result.stats is not None:
        console.print(epoch_table(result.stats))
    for note in result.notes:
        console.print(note, soft_wrap=True)
