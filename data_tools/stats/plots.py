"""The plots of a manifest's statistics; the one file of the tools that draws."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from data_tools.stats.numbers import FEW, MANY, Counts, Numbers, by_count, shares
from data_tools.stats.tasks import TaskFacts, Together
from hoi_train.core.disk import whole_file
from hoi_train.core.palette import BLUE, GREY, ORANGE
from hoi_train.core.records import Split, Task

MARKS: dict[Split, tuple[str, str]] = {"val": ("D", ORANGE), "test": ("o", "#FFFFFF")}
LINES: dict[Split, tuple[str, str]] = {"train": ("-", BLUE), "val": ("--", "#B86E00"), "test": (":", "black")}
NAMED_BARS = 80  # classes that get a bar and a name each; more are drawn by rank
NAMED_CELLS = 50  # classes along a side of the co-occurrence
NAMED_POINTS = 8  # points of the shift that are named: those farthest from the diagonal
LETTERS = 40


def plot_class_counts(file: Path, facts: TaskFacts, title: str) -> None:
    """Draw the counts of a task's classes on a logarithmic axis; bars for the first split, marks for the others.

    Up to ``NAMED_BARS`` classes have a row with their name each; more stand side by side by rank.
    """
    draw = _named_bars if facts.task.num_classes <= NAMED_BARS else _ranked_bars
    figure = draw(facts.task, facts.counts, by_count(facts.counts))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, parse_math=False)
    _save(figure, file)


def plot_together(file: Path, found: Together, title: str) -> None:
    """Draw how often classes occur together as a map, the most frequent first; at most ``NAMED_CELLS`` a side."""
    counts = found.counts
    rows, columns = _frequent(counts, 1), _frequent(counts, 0)
    if found.one is found.other:
        columns = rows
        counts = counts - np.diag(np.diag(counts))
    shown = counts[np.ix_(rows, columns)].astype(np.float64)
    figure = Figure(figsize=(1.5 + 0.2 * len(columns), 1 + 0.2 * len(rows)), dpi=150)
    axes = figure.add_subplot()
    # with an upper end of 1 or 2 a logarithmic scale has no ticks
    scale = LogNorm(1, max(10.0, float(shown.max(initial=1.0))))
    image = axes.imshow(np.ma.masked_less(shown, 1), cmap="viridis_r", norm=scale, aspect="equal")
    axes.set_facecolor("#F4F4F4")
    names = [[_short(task.classes.names[k]) for k in of] for task, of in ((found.one, rows), (found.other, columns))]
    axes.set_yticks(range(len(rows)), names[0], fontsize=7, parse_math=False)
    axes.set_xticks(range(len(columns)), names[1], fontsize=7, rotation=90, parse_math=False)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 12 / len(rows)), aspect=18, pad=0.02)
    bar.ax.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    bar.ax.tick_params(labelsize=7)
    bar.set_label(f"{found.one.of}s with both", fontsize=8)
    cut = f", the {NAMED_CELLS} most frequent" if max(counts.shape) > NAMED_CELLS == max(shown.shape) else ""
    axes.set_title(f"{title}{cut}", loc="left", fontsize=10, parse_math=False)
    # no layout makes room for names beside equal cells
    _save(figure, file, bbox_inches="tight", pad_inches=0.1)


def plot_shift(file: Path, facts: TaskFacts, title: str) -> None:
    """Draw each class's share in the other splits over its share in train; on the diagonal nothing has shifted."""
    figure = Figure(figsize=(6.4, 6.0), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    before = 100 * shares(facts.counts["train"])
    after = {split: 100 * shares(facts.counts[split]) for split in facts.shift}
    present = np.concatenate([before, *after.values()])
    floor = 0.5 * float(present[present > 0].min(initial=100.0))  # where a class is drawn that a split has none of
    for split, of in after.items():
        marker, colour = MARKS[split]
        shown = (before > 0) | (of > 0)
        axes.plot(
            np.maximum(before, floor)[shown],
            np.maximum(of, floor)[shown],
            marker,
            color=colour,
            markeredgecolor="black",
            markersize=5,
            alpha=0.8,
            label=f"{split}, divergence {facts.shift[split].divergence:.3f} bits",
        )
    _name_outliers(axes, facts.task, before, list(after.values()), floor)
    ends = (0.8 * floor, 1.4 * float(present.max()))
    axes.plot(ends, ends, color=GREY, linewidth=0.8, zorder=0)
    axes.axhspan(ends[0], 1.25 * floor, color="#EEEEEE", zorder=0)
    axes.axvspan(ends[0], 1.25 * floor, color="#EEEEEE", zorder=0)
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends)
    axes.set_xlabel("share in train, % (grey: none)")
    axes.set_ylabel("share in the other split, % (grey: none)")
    for axis in (axes.xaxis, axes.yaxis):
        _number(axis)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", frameon=False, fontsize=9)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, parse_math=False)
    _save(figure, file)


def plot_lengths(file: Path, lengths: Mapping[Split, Numbers]) -> None:
    """Draw how many clips of each split have which length, as parts of the split, on a logarithmic axis."""
    figure = Figure(figsize=(8, 3.4), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    every = np.concatenate(list(lengths.values()))
    low, high = float(every.min()), float(every.max())
    edges = np.geomspace(low * 0.95, high * 1.05, 25)
    for split, of in lengths.items():
        style, colour = LINES[split]
        part = np.full(len(of), 100 / len(of))
        axes.hist(of, edges.tolist(), weights=part, histtype="step", linestyle=style, color=colour,
                  linewidth=1.8, label=f"{split}, median {np.median(of):.3g} s")  # fmt: skip
    axes.set_xscale("log")
    _number(axes.xaxis)
    axes.set_xlabel("seconds (logarithmic)")
    axes.set_ylabel("clips of the split, %")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    figure.suptitle("Length of the clips", x=0.01, ha="left", fontsize=11)
    _save(figure, file)


def _named_bars(task: Task, counts: Counts, order: Sequence[int]) -> Figure:
    bars = next(iter(counts))
    places = range(len(order))
    figure = Figure(figsize=(8, 1.4 + 0.24 * len(order)), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    lengths = [counts[bars][class_id] for class_id in order]
    shown: list[Any] = [axes.barh(places, lengths, color=BLUE, label=bars, height=0.75)]
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
    axes.set_xlabel(f"{task.of}s (logarithmic)")
    _finish(figure, axes, shown)
    return figure


def _ranked_bars(task: Task, counts: Counts, order: Sequence[int]) -> Figure:
    bars = next(iter(counts))
    ranks = np.arange(1, len(order) + 1)
    figure = Figure(figsize=(10, 4.6), layout="constrained", dpi=150)
    axes = figure.add_subplot()
    heights = np.array([counts[bars][class_id] for class_id in order], np.float64)
    shown: list[Any] = [axes.fill_between(ranks, 0.7, np.maximum(heights, 0.7), step="mid", color=BLUE, label=bars)]
    for split, (marker, colour) in MARKS.items():
        if split in counts and split != bars:
            values = [counts[split][class_id] or math.nan for class_id in order]
            shown += axes.plot(
                ranks, values, marker, color=colour, label=split, markersize=3, markeredgecolor="black",
                markeredgewidth=0.4,
            )  # fmt: skip
    for level, name in ((MANY, "many"), (FEW, "few")):
        axes.axhline(level, color=GREY, linewidth=0.8, linestyle="--", zorder=3)
        side = f"more than {level}: many-shot" if name == "many" else f"fewer than {level}: few-shot"
        axes.annotate(side, (len(order), level), (0, 3), textcoords="offset points", ha="right", fontsize=8, color=GREY)
    axes.set_yscale("log")
    axes.set_ylim(0.7, 1.6 * max(1, *(max(of) for of in counts.values())))
    axes.set_xlim(0, len(order) + 1)
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(axis="y", alpha=0.3)
    axes.set_ylabel(f"{task.of}s (logarithmic)")
    first, last = (_short(task.classes.names[order[place]]) for place in (0, -1))
    axes.set_xlabel(f"rank of the class in {bars}: 1 is {first}, {len(order)} is {last}", parse_math=False)
    _finish(figure, axes, shown)
    return figure


def _number(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers, no powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _finish(figure: Figure, axes: Any, shown: Sequence[Any]) -> None:
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(handles=shown, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(shown), frameon=False, fontsize=9)


def _name_outliers(axes: Any, task: Task, before: Numbers, after: Sequence[Numbers], floor: float) -> None:
    """Write the names of the classes that shifted most, those of many samples first, where there is room."""
    shifts = [np.abs(of - before) * np.abs(np.log((of + floor) / (before + floor))) for of in after]
    points = [(shift[k], k, (max(before[k], floor), max(of[k], floor)))
              for shift, of in zip(shifts, after, strict=True) for k in range(len(before))]  # fmt: skip
    taken: list[tuple[float, float]] = []
    named: set[int] = set()
    for shift, class_id, (x, y) in sorted(points, key=lambda point: (-point[0], point[1])):
        place = math.log(x), math.log(y)
        crowded = any(abs(place[0] - other[0]) < 1.5 and abs(place[1] - other[1]) < 0.35 for other in taken)
        if shift > 0 and not crowded and class_id not in named and len(named) < NAMED_POINTS:
            name = _short(task.classes.names[class_id])
            axes.annotate(name, (x, y), (5, 3), textcoords="offset points", fontsize=7, parse_math=False)
            taken.append(place)
            named.add(class_id)


def _frequent(counts: Numbers | Any, axis: int) -> list[int]:
    """Return the most frequent classes along a side of a table of counts; those that never occur are left out."""
    totals = counts.sum(axis)
    order = [int(k) for k in np.argsort(-totals, kind="stable") if totals[k]]
    return order[:NAMED_CELLS] or [0]


def _short(name: str) -> str:
    return name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…"


def _save(figure: Figure, file: Path, **how: Any) -> None:
    """Write a PNG that appears whole; letters that the font lacks become boxes, without a word in the terminal."""
    with warnings.catch_warnings(), whole_file(file) as waiting:
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        figure.savefig(waiting, format="png", **how)
