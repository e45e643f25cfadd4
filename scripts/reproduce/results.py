"""Compare a measured table with the published one: read from event logs, written as Markdown, JSON and a plot."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hoi_train.engine.run import EVENTS_FILE
from hoi_train.tracking.events import read_events


@dataclass(frozen=True)
class Cell:
    """One number of a table: measured in percent, once per run, and as published (``None``: not published)."""

    values: tuple[float, ...]
    published: float | None

    @property
    def mean(self) -> float:
        """Mean over runs; nan if there are none."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation over runs, with n - 1; nan for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    def text(self, planned: int) -> str:
        """Return the cell as text, such as ``8.21 ± 1.05 (8.59)``; with the number of runs if some are missing.

        >>> Cell((8.0, 9.0), 8.59).text(planned=2), Cell((8.0,), None).text(planned=2)
        ('8.50 ± 0.71 (8.59)', '8.00, n = 1')
        """
        published = "" if self.published is None else f" ({self.published:.2f})"
        if not self.values:
            return f"–{published}"
        deviation = "" if math.isnan(self.deviation) else f" ± {self.deviation:.2f}"
        missing = "" if len(self.values) == planned else f", n = {len(self.values)}"
        return f"{self.mean:.2f}{deviation}{missing}{published}"


@dataclass(frozen=True)
class Result:
    """A table of cells.

    Args:
        title: measure, data and number of steps.
        axis: meaning of the columns.
        columns: their headings.
        planned: runs per cell.
        rows: by heading, one cell per column.
    """

    title: str
    axis: str
    columns: Sequence[str]
    planned: int
    rows: Mapping[str, Sequence[Cell]]

    def markdown(self) -> str:
        """Return the table: measured mean ± standard deviation over runs, the published number in brackets."""
        lines = [f"| {self.axis} | {' | '.join(self.columns)} |", "|---" * (len(self.columns) + 1) + "|"]
        for heading, cells in self.rows.items():
            lines.append(f"| {heading} | {' | '.join(cell.text(self.planned) for cell in cells)} |")
        what = "One run a cell" if self.planned == 1 else f"Mean ± standard deviation over {self.planned} runs"
        note = f"{what}; in brackets as published."
        return "\n".join([f"**{self.title}**", "", *lines, "", note, ""])

    def plain(self) -> list[dict[str, object]]:
        """Return one row per cell, for JSON."""
        return [
            {
                "row": heading,
                "column": column,
                "published": cell.published,
                "values": list(cell.values),
                "mean": None if math.isnan(cell.mean) else cell.mean,
                "deviation": None if math.isnan(cell.deviation) else cell.deviation,
            }
            for heading, cells in self.rows.items()
            for column, cell in zip(self.columns, cells, strict=True)
        ]

    def write(self, stem: Path) -> None:
        """Write ``<stem>.md``, ``.json`` and ``.png``."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        stem.with_suffix(".md").write_text(self.markdown())
        stem.with_suffix(".json").write_text(json.dumps({"title": self.title, "cells": self.plain()}, indent=1))
        self._plot(stem.with_suffix(".png"))

    def _plot(self, path: Path) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.5, 4.5), layout="constrained")
        axes = figure.subplots()
        places = range(len(self.columns))
        for number, (heading, cells) in enumerate(self.rows.items()):
            means = [cell.mean for cell in cells]
            deviations = [0.0 if math.isnan(cell.deviation) else cell.deviation for cell in cells]
            axes.errorbar(places, means, deviations, capsize=3, marker=".", color=f"C{number}", label=heading)
            published = [math.nan if cell.published is None else cell.published for cell in cells]
            axes.plot(places, published, linestyle=":", linewidth=1, alpha=0.6, color=f"C{number}")
        axes.set_xticks(list(places), list(self.columns))
        axes.set_xlabel(self.axis)
        axes.set_title(self.title, fontsize=9)
        axes.legend(fontsize=8, title="solid: measured\ndotted: published", title_fontsize=7)
        figure.savefig(path, dpi=150)


def tested_value(folder: Path, scalar: str) -> float | None:
    """Return a scalar of a finished run's test, ``None`` if the run is not finished.

    Args:
        folder: the run's directory.
        scalar: such as ``digit/top1``.
    """
    path = folder / EVENTS_FILE
    rows = read_events(path) if path.is_file() else []
    if not any(row["event"] == "end" for row in rows):
        return None
    tests = [row for row in rows if row["event"] == "evaluation" and row["split"] == "test"]
    value: float = tests[-1]["scalars"][scalar]
    return value


def cell(folders: Sequence[Path], scalar: str, published: float | None, *, error: bool) -> Cell:
    """Collect a cell from its runs, in percent: the scalar, or with ``error`` its complement to 1."""
    found = [value for folder in folders if (value := tested_value(folder, scalar)) is not None]
    return Cell(tuple(100 * (1 - value if error else value) for value in found), published)
