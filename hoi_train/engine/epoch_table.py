"""What the terminal shows of one evaluation: a line a task, in per cent, epochs counted from 1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from hoi_train.core.records import EpochStats, TaskStats

NOT_AVAILABLE = "n/a"
# Of pairs, beside the former: the data set's own protocol with the boxes of the ground truth.
PAIR_COLUMNS = {
    "VidHOI mAP": "vidhoi_map",
    "VidHOI rare": "vidhoi_map_rare",
    "VidHOI non-rare": "vidhoi_map_non_rare",
}


def epoch_table(stats: EpochStats, *, heading: bool = True) -> Table:
    """Return what one evaluation found, one line a task; without its heading the lines of epochs make one table."""
    title = f"{stats.split}, in %" if heading else None
    table = Table(title=title, box=None, title_justify="left", padding=(0, 1, 0, 0), show_header=heading)
    groups = list(dict.fromkeys(group for task in stats.tasks.values() for group in task.groups))
    ranked = any("top1" in task.scalars for task in stats.tasks.values())
    table.add_column("epoch", justify="right", min_width=5)
    table.add_column("task", overflow="fold")
    for column in ("loss", *(("top-1", "top-5") if ranked else ()), "mAP"):
        table.add_column(column, justify="right", no_wrap=True, min_width=5)
    if any(of_pairs(task.scalars) for task in stats.tasks.values()):  # a run labels clips or pairs, not both
        table.add_column("VidHOI\nmAP", justify="right", no_wrap=True)
    for group in ("macro", *groups):
        table.add_column(f"{group}\nrec/prec", justify="right", no_wrap=True, min_width=9)
    table.add_column("classes\ncounted", justify="right", no_wrap=True, min_width=7)
    for name, task in stats.tasks.items():
        table.add_row(str(stats.epoch + 1), Text(name), *_epoch_cells(task, ranked, groups))
    return table


def _epoch_cells(task: TaskStats, ranked: bool, groups: Sequence[str]) -> list[str]:
    scalars = task.scalars
    cells = [f"{scalars['loss']:.3f}" if math.isfinite(scalars["loss"]) else NOT_AVAILABLE]
    cells += [percent(scalars.get(name, math.nan), 1) for name in (("top1", "top5") if ranked else ())]
    cells.append(percent(scalars["map"], 1))
    if of_pairs(scalars):
        cells.append(percent(scalars["vidhoi_map"], 1))
    for group in ("macro", *groups):
        pair = (scalars.get(f"{name}_{group}", math.nan) for name in ("recall", "precision"))
        cells.append("/".join(percent(value, 1) for value in pair))
    return [*cells, f"{scalars['classes_counted']:.0f}/{task.task.num_classes}"]


def percent(share: float, digits: int) -> str:
    """Return a share as per cent, nan as ``n/a``."""
    return NOT_AVAILABLE if math.isnan(share) else f"{100 * share:.{digits}f}"


def of_pairs(scalars: Mapping[str, float]) -> bool:
    """Return whether scalars are of pairs, with those of the data set's own protocol."""
    return all(name in scalars for name in PAIR_COLUMNS.values())
