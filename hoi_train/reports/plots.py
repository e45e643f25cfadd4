"""Plots of runs as PNG: recall of each class, and losses and averages over the epochs.

The only file that imports matplotlib, and only when a plot is made. Figures are drawn on their own canvas, so neither a
display nor pyplot's global state is touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hoi_train.core.records import Split
from hoi_train.metrics.pairs import triplet_names
from hoi_train.reports.runs import Evaluation, ReportError, Run, check_label_kinds, read_runs, shared_tasks

# Okabe and Ito's palette, which colour-blind readers can tell apart (https://jfly.uni-koeln.de/color/); the markers
# repeat after another number of runs than the colours, so no two of the first 42 runs look alike.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")
SHADE, GREY = "#E8E8E8", "#595959"
DPI = 150

SINGLE_LABEL_CURVES = {
    "top-1 accuracy": "top1",
    "macro recall": "recall_macro",
    "majority recall": "recall_majority",
    "minority recall": "recall_minority",
}
MULTI_LABEL_CURVES = {
    "mAP": "map",
    "macro recall": "recall_macro",
    "majority mAP": "map_majority",
    "minority mAP": "map_minority",
}
PAIR_CURVES = {  # of tasks of pairs, in rows of their own
    f"{words} mAP{of}": triplet_names(protocol, group)[0]
    for protocol, words in (("vidhoi", "VidHOI"), ("per_triplet", "per-triplet"))
    for group, of in (("full", ""), ("rare", ", rare triplets"), ("non_rare", ", non-rare triplets"))
}


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
        ReportError: a run lacks what is shown, or the runs have different classes or majority classes.
    """
    runs = read_runs(run_dirs)
    panels = {
        name: {run: run.evaluation(name, split, best) for run in runs if task is not None or name in run.tasks()}
        for name in shared_tasks(runs, task)
    }
    for name, shown in panels.items():
        _check_alike(name, shown)
    heights = [_panel_inches(shown) for shown in panels.values()]
    figure = _figure(8.0, 1.0 + sum(heights))
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    styles = _styles(runs)
    for panel, (name, shown) in zip(axes, panels.items(), strict=True):
        _draw_classes(panel, name, shown, styles)
        panel.set_title(f"{name}: recall of each class, {split}", fontsize=12, parse_math=False)
    _legend(figure, styles, "upper", {"majority class": SHADE, "minority class": "white"})
    _save(figure, path)


def history(run_dirs: Sequence[Path], path: Path, *, task: str | None = None, split: Split = "val") -> None:
    """Write a PNG with the losses and the averages of several runs over the epochs; of pairs VidHOI's too.

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
    found = {run: run.evaluations(tasks[0], split) for run in runs}
    first_of_runs = [of_run[0] for of_run in found.values()]
    check_label_kinds(tasks[0], (each for of_run in found.values() for each in of_run))
    curves = {
        f"loss, {split}": "loss",
        **(SINGLE_LABEL_CURVES if first_of_runs[0].single_label else MULTI_LABEL_CURVES),
    }
    if any(scalar in each.scalars for each in first_of_runs for scalar in PAIR_CURVES.values()):
        curves |= PAIR_CURVES
    figure = _figure(11.0, 3.1 * (len(curves) + 1) / 3)
    axes = figure.subplots((len(curves) + 1) // 3, 3, sharex=True).flat
    styles = _styles(runs)
    _draw_curve(
        axes[0],
        "loss, training",
        {run: {e + 1: loss for e, loss in run.training_loss().items()} for run in runs},
        styles,
    )
    for panel, (title, scalar) in zip(axes[1:], curves.items(), strict=True):
        points = {
            run: {each.epoch + 1: each.scalars[scalar] for each in found[run] if scalar in each.scalars} for run in runs
        }
        _draw_curve(panel, title, points, styles)
    for panel in axes[-3:]:
        panel.set_xlabel("epoch")
    figure.suptitle(f"{tasks[0]}, {split}: losses and averages over the epochs", fontsize=12, parse_math=False)
    _legend(figure, styles, "lower", {})
    _save(figure, path)


def _draw_classes(panel: Any, task: str, shown: Mapping[Run, Evaluation], styles: Mapping[Run, Any]) -> None:
    """Draw one row a class and in it one marker a run, on a stem from 0 so that a recall of 0 is seen too."""
    first_run, first = next(iter(shown.items()))
    counts = first_run.class_counts(task)
    order = sorted(range(len(counts)), key=lambda class_id: (-counts[class_id], class_id))
    for row, class_id in enumerate(order):
        if class_id in first.groups.get("majority", ()):
            panel.axhspan(row - 0.5, row + 0.5, color=SHADE, linewidth=0, zorder=0)
        if all(math.isnan(evaluation.vectors["recall"][class_id]) for evaluation in shown.values()):
            panel.text(1, row, "n/a: no samples", va="center", fontsize=8, color=GREY)
    for number, (run, evaluation) in enumerate(shown.items()):
        recall = [100 * evaluation.vectors["recall"][class_id] for class_id in order]
        rows = [row + 0.7 * ((number + 0.5) / len(shown) - 0.5) for row in range(len(order))]
        panel.hlines(rows, 0, recall, color=styles[run]["color"], linewidth=1.2, alpha=0.6)
        panel.plot(recall, rows, linestyle="", markersize=5, clip_on=False, zorder=3, **styles[run])
    names = [f"{first.classes[class_id]} ({counts[class_id]})" for class_id in order]
    panel.set_yticks(range(len(order)), names, fontsize=9, parse_math=False)
    panel.set(xlim=(0, 100), ylim=(len(order) - 0.5, -0.5), xlabel="recall in %", ylabel="class (training samples)")
    panel.grid(axis="x", color="#D0D0D0", linewidth=0.6)
    _bare(panel)


def _draw_curve(panel: Any, title: str, points: Mapping[Run, Mapping[int, float]], styles: Mapping[Run, Any]) -> None:
    from matplotlib.ticker import MaxNLocator

    is_share = not title.startswith("loss")
    for run, values in points.items():
        if not _is_defined(values):
            continue  # what is drawn of nothing but nan has no place, and the layout fails
        heights = [100 * value if is_share else value for value in values.values()]
        panel.plot(
            list(values),
            heights,
            linewidth=1.5,
            markersize=5,
            markevery=1 + len(values) // 10,
            clip_on=False,
            **styles[run],
        )
    if not any(map(_is_defined, points.values())):
        panel.text(0.5, 0.5, "n/a", transform=panel.transAxes, ha="center", color=GREY)
    panel.set_title(f"{title}, in %" if is_share else title, fontsize=10)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set_ylim(*((0, 100) if is_share else (0, None)))
    panel.grid(color="#D0D0D0", linewidth=0.6)
    _bare(panel)


def _is_defined(values: Mapping[int, float]) -> bool:
    return not all(map(math.isnan, values.values()))


def _check_alike(task: str, shown: Mapping[Run, Evaluation]) -> None:
    (first_run, first), *others = shown.items()
    for run, evaluation in others:
        for what, mine, theirs in (
            ("classes", first.classes, evaluation.classes),
            ("groups", first.groups, evaluation.groups),
            ("training counts", first_run.class_counts(task), run.class_counts(task)),
        ):
            if mine != theirs:
                raise ReportError(
                    f"{first_run.name} and {run.name} have different {what} of task {task!r}; "
                    "plot runs of one data set and one rule of groups together"
                )


def _panel_inches(shown: Mapping[Run, Evaluation]) -> float:
    num_classes = len(next(iter(shown.values())).classes)
    return 0.9 + num_classes * max(0.24, 0.08 + 0.12 * len(shown))


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _styles(runs: Sequence[Run]) -> dict[Run, dict[str, Any]]:
    return {
        run: {"color": COLOURS[number % len(COLOURS)], "marker": MARKERS[number % len(MARKERS)]}
        for number, run in enumerate(runs)
    }


def _legend(figure: Any, styles: Mapping[Run, Any], side: str, fills: Mapping[str, str]) -> None:
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
