"""The table of one evaluation in the terminal: one line per task, in per cent, epochs counted from 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from hoi_train.core.records import EpochStats
from hoi_train.metrics import shown
from hoi_train.metrics.metric import Scalar

NOT_AVAILABLE = "n/a"


def epoch_table(stats: EpochStats, *, heading: bool = True) -> Table:
    """Return the results of one evaluation; tables without heading continue the lines of one with it."""
    title = f"{stats.split}, in %" if heading else None
    table = Table(title=title, box=None, title_justify="left", padding=(0, 1, 0, 0), show_header=heading)
    scalars = shown(stats.tasks.values(), "epoch")
    columns = column_headings(scalars)
    table.add_column("epoch", justify="right", min_width=5)
    table.add_column("task", overflow="fold")
    for label, names in columns.items():
        table.add_column(label, justify="right", no_wrap=True, min_width=5 if len(names) == 1 else 9)
    table.add_column("classes\ncounted", justify="right", no_wrap=True, min_width=7)
    for task, found in stats.tasks.items():
        cells = (
            "/".join(shown_value(found.scalars.get(name, math.nan), scalars[name], 1) for name in names)
            for names in columns.values()
        )
        counted = f"{found.scalars['classes_counted']:.0f}/{found.task.num_classes}"
        table.add_row(str(stats.epoch + 1), Text(task), *cells, counted)
    return table


def column_headings(scalars: Mapping[str, Scalar]) -> dict[str, Sequence[str]]:
    r"""Return the columns of a table and the names of the numbers in each: metrics of one group share a column.

    >>> recall, precision = Scalar("recall", "rec", "rare"), Scalar("precision", "prec", "rare")
    >>> column_headings({"top1": Scalar("top-1"), "recall_rare": recall, "precision_rare": precision})
    {'top-1': ['top1'], 'rare\nrec/prec': ['recall_rare', 'precision_rare']}
    """
    members: dict[str, list[str]] = {}
    for name, scalar in scalars.items():
        members.setdefault(scalar.group or name, []).append(name)
    columns: dict[str, Sequence[str]] = {}
    for names in members.values():
        first = scalars[names[0]]
        shorts = "/".join(scalars[name].short or scalars[name].heading for name in names)
        label = f"{first.group}\n{shorts}" if len(names) > 1 else first.title.replace(" ", "\n")
        columns[label] = names
    return columns


def shown_value(value: float, scalar: Scalar, digits: int) -> str:
    """Return a number as tables show it: a share in per cent with so many digits, others with three."""
    if scalar.share or math.isnan(value):
        return percent(value, digits)
    return f"{value:.3f}" if math.isfinite(value) else NOT_AVAILABLE


def percent(share: float, digits: int) -> str:
    """Return a share in per cent, nan as ``n/a``."""
    return NOT_AVAILABLE if math.isnan(share) else f"{100 * share:.{digits}f}"
