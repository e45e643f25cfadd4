"""Plots of runs as PNG: recall of each class, and losses and averages over the epochs.

The only file that imports matplotlib, and only when a plot is made. Figures are drawn on their own canvas, so neither a
display nor pyplot's global state is touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hoi_train.core.palette import CYCLE, GREY, GRID, shades
from hoi_train.core.records import Split, TaskStats
from hoi_train.metrics import shown
from hoi_train.metrics.metric import Scalar
from hoi_train.reports.runs import RecordedRun, ReportError, check_label_kinds, read_runs, shared_tasks

MARKERS = ("o", "s", "^", "D", "v", "P")
"""They repeat after another number of runs than the colours, so no two of the first 42 runs look alike."""
DPI = 150
Styles = Mapping[RecordedRun, Mapping[str, Any]]
TRAINING_LOSS = Scalar("loss, training", direction="min", share=False)


def per_class_recall(
    run_dirs: Sequence[Path],
    path: Path,
    *,
    task: str | None = None,
    split: Split = "test",
    best: str | None = None,
) -> None:
    """Write a PNG with the recall of every class in several runs, the classes most frequent in training on top.

    Args:
        run_dirs: directories with an ``events.jsonl``.
        path: the file to write.
        task: one task; a panel for every task of the runs when left out.
        split: which evaluations to show.
        best: scalar whose best evaluation is shown; each run's last one when left out.

    Raises:
        ReportError: a run lacks what is shown, or the runs have different classes or groups.
    """
    runs = read_runs(run_dirs)
    panels = {
        name: {run: run.evaluation(name, split, best).tasks[name] for run in runs if task or name in run.tasks()}
        for name in shared_tasks(runs, task)
    }
    for name, of_runs in panels.items():
        _check_alike(name, of_runs)
    heights = [_panel_inches(of_runs) for of_runs in panels.values()]
    figure = _figure(8.0, 1.0 + sum(heights))
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    styles = _styles(runs)
    groups = list(dict.fromkeys(group for of_runs in panels.values() for group in next(iter(of_runs.values())).groups))
    behind = dict(zip(groups, shades(len(groups)), strict=True))
    for panel, (name, of_runs) in zip(axes, panels.items(), strict=True):
        _draw_classes(panel, name, of_runs, styles, behind)
        panel.set_title(f"{name}: recall of each class, {split}", fontsize=12, parse_math=False)
    _legend(figure, styles, "upper", {f"{group} class": shade for group, shade in behind.items()})
    _save(figure, path)


def history(run_dirs: Sequence[Path], path: Path, *, task: str | None = None, split: Split = "val") -> None:
    """Write a PNG with the losses and the averages of several runs over the epochs, as ``METRICS`` says.

    Args:
        run_dirs: directories with an ``events.jsonl``.
        path: the file to write.
        task: the task shown; needed where the runs have several.
        split: which evaluations to show.

    Raises:
        ReportError: a run lacks what is shown, or there are several tasks and none was named.
    """
    runs = read_runs(run_dirs)
    tasks = shared_tasks(runs, task)
    if len(tasks) > 1:
        raise ReportError(f"the runs have several tasks, name one of them: {', '.join(tasks)}")
    last = [run.evaluation(tasks[0], split).tasks[tasks[0]] for run in runs]
    check_label_kinds(tasks[0], last)
    curves = shown(last, "curves")
    lines = -(-(1 + len(curves)) // 3)
    figure = _figure(11.0, 3.1 * lines)
    axes = figure.subplots(lines, 3, sharex=True).flat
    styles = _styles(runs)
    _draw_curve(axes[0], TRAINING_LOSS, TRAINING_LOSS.title, {run: run.training_loss() for run in runs}, styles)
    for panel, (name, scalar) in zip(axes[1:], curves.items(), strict=False):
        title = f"{scalar.title}, in %" if scalar.share else f"{scalar.title}, {split}"
        _draw_curve(panel, scalar, title, {run: run.curve(tasks[0], split, name) for run in runs}, styles)
    for panel in axes[1 + len(curves) :]:
        panel.set_visible(False)
    for panel in axes[-3:]:
        panel.set_xlabel("epoch")
    figure.suptitle(f"{tasks[0]}, {split}: losses and averages over the epochs", fontsize=12, parse_math=False)
    _legend(figure, styles, "lower", {})
    _save(figure, path)


def _draw_classes(
    panel: Any, task: str, of_runs: Mapping[RecordedRun, TaskStats], styles: Styles, behind: Mapping[str, str]
) -> None:
    """Draw one line per class and in it one marker per run, on a stem from 0 so that a recall of 0 is seen too."""
    first_run, first = next(iter(of_runs.items()))
    counts = first_run.class_counts(task)
    recalls = {run: stats.vectors["recall"].tolist() for run, stats in of_runs.items()}
    order = sorted(range(len(counts)), key=lambda class_id: (-counts[class_id], class_id))
    for row, class_id in enumerate(order):
        group = next((name for name, ids in first.groups.items() if class_id in ids), None)
        if group is not None:
            panel.axhspan(row - 0.5, row + 0.5, color=behind[group], linewidth=0, zorder=0)
        if all(math.isnan(recall[class_id]) for recall in recalls.values()):
            panel.text(1, row, "n/a: no samples", va="center", fontsize=8, color=GREY)
    for number, (run, by_class) in enumerate(recalls.items()):
        recall = [100 * by_class[class_id] for class_id in order]
        rows = [row + 0.7 * ((number + 0.5) / len(recalls) - 0.5) for row in range(len(order))]
        panel.hlines(rows, 0, recall, color=styles[run]["color"], linewidth=1.2, alpha=0.6)
        panel.plot(recall, rows, linestyle="", markersize=5, clip_on=False, zorder=3, **styles[run])
    names = [f"{first.task.classes.names[class_id]} ({counts[class_id]})" for class_id in order]
    panel.set_yticks(range(len(order)), names, fontsize=9, parse_math=False)
    panel.set(xlim=(0, 100), ylim=(len(order) - 0.5, -0.5), xlabel="recall in %", ylabel="class (training samples)")
    panel.grid(axis="x", color=GRID, linewidth=0.6)
    _bare(panel)


def _draw_curve(
    panel: Any,
    scalar: Scalar,
    title: str,
    points: Mapping[RecordedRun, Mapping[int, float]],
    styles: Styles,
) -> None:
    from matplotlib.ticker import MaxNLocator

    unit = 100 if scalar.share else 1
    for run, values in points.items():
        if not _is_defined(values):
            continue  # what is drawn of nothing but nan has no place, and the layout fails
        panel.plot(
            [epoch + 1 for epoch in values],
            [unit * value for value in values.values()],
            linewidth=1.5,
            markersize=5,
            markevery=1 + len(values) // 10,
            clip_on=False,
            **styles[run],
        )
    if not any(map(_is_defined, points.values())):
        panel.text(0.5, 0.5, "n/a", transform=panel.transAxes, ha="center", color=GREY)
    panel.set_title(title, fontsize=10, parse_math=False)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_ylim(0, 100 if scalar.share else None)
    panel.grid(color=GRID, linewidth=0.6)
    _bare(panel)


def _is_defined(values: Mapping[int, float]) -> bool:
    return not all(map(math.isnan, values.values()))


def _check_alike(task: str, of_runs: Mapping[RecordedRun, TaskStats]) -> None:
    (first_run, first), *others = of_runs.items()
    for run, stats in others:
        for what, mine, theirs in (
            ("classes", first.task.classes, stats.task.classes),
            ("groups", first.groups, stats.groups),
            ("training counts", first_run.class_counts(task), run.class_counts(task)),
        ):
            if mine != theirs:
                raise ReportError(
                    f"{first_run.name} and {run.name} have different {what} of task {task!r}; "
                    "plot runs of one data set and one rule of groups together"
                )


def _panel_inches(of_runs: Mapping[RecordedRun, TaskStats]) -> float:
    num_classes = next(iter(of_runs.values())).task.num_classes
    return 0.9 + num_classes * max(0.24, 0.08 + 0.12 * len(of_runs))


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _styles(runs: Sequence[RecordedRun]) -> Styles:
    return {
        run: {"color": CYCLE[number % len(CYCLE)], "marker": MARKERS[number % len(MARKERS)]}
        for number, run in enumerate(runs)
    }


def _legend(figure: Any, styles: Styles, side: str, fills: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Line2D([], [], markersize=6, **style) for style in styles.values()]
    handles += [Patch(facecolor=colour, edgecolor=GREY, linewidth=0.5) for colour in fills.values()]
    names = [*(run.name for run in styles), *fills]
    # A label that begins with an underscore would be left out.
    labels = [f" {name}" if name.startswith("_") else name for name in names]
    legend = figure.legend(handles, labels, loc=f"outside {side} center", ncols=min(4, len(labels)), frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar sign in a name is a dollar sign


def _bare(panel: Any) -> None:
    panel.set_axisbelow(True)
    panel.tick_params(length=0)
    for side in ("top", "right", "left"):
        panel.spines[side].set_visible(False)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")
