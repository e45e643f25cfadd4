"""The plot of a task's class counts; the one file of the tools that draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from hoi_train.records import Split, Task

# Okabe and Ito's palette, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/color/)
BAR = "#0072B2"
MARKS: dict[Split, tuple[str, str]] = {"val": ("D", "#E69F00"), "test": ("o", "#FFFFFF")}


def plot_class_counts(
    file: Path, task: Task, counts: Mapping[Split, Sequence[int]], order: Sequence[int], title: str
) -> None:
    """Draw one bar a class for the first split, on a logarithmic axis; the other splits as marks.

    Args:
        file: the PNG to write.
        task: whose classes.
        counts: C numbers for each split.
        order: class ids from top to bottom.
        title: stands above.
    """
    bars = next(iter(counts))
    places = range(len(order))
    figure = Figure(figsize=(8, 1.4 + 0.24 * len(order)), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    lengths = [counts[bars][class_id] for class_id in order]
    shown: list[Any] = [axes.barh(places, lengths, color=BAR, label=bars, height=0.75)]
    for split, (marker, colour) in MARKS.items():
        if split in counts and split != bars:
            values = [counts[split][class_id] or math.nan for class_id in order]
            shown += axes.plot(values, places, marker, color=colour, label=split, markersize=5, markeredgecolor="black")
    ends = [max(counts[split][class_id] for split in counts) for class_id in order]
    for place, (length, end) in enumerate(zip(lengths, ends, strict=True)):
        axes.annotate(
            f"{length:,}", (max(end, 0.8), place), (5, 0), textcoords="offset points", va="center", fontsize=8
        )
    names = [_short(task.classes.names[class_id]) for class_id in order]
    axes.set_yticks(places, names, fontsize=9, parse_math=False)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.set_xlim(left=0.8, right=2.0 * max(*ends, 1))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(f"{'pairs' if task.of == 'pair' else 'clips'} (logarithmic)")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, parse_math=False)
    axes.legend(handles=shown, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(shown), frameon=False, fontsize=9)
    figure.savefig(file)


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:39]}…"
