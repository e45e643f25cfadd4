"""Mirror a run to TensorBoard: averages as curves, recall per class and confusion matrices as images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hoi_train.core.palette import BLUE, GREY, GRID
from hoi_train.core.records import UserError
from hoi_train.tracking.events import read_events

EVENTS_FILE = "events.jsonl"
NAMED_CELLS = 60
"""Classes along a side of the confusion matrix whose names can still be read."""


class TrackerError(UserError):
    """A tracker that cannot be opened; the message says what is missing."""


class TensorboardTracker:
    """Mirror the records of a run to ``run_dir/tensorboard`` (``tensorboard --logdir runs``).

    Everything is drawn against the step of the optimizer. A resumed run hides what was written after the step that it
    resumes from, so that no step is there twice.

    Args:
        run_dir: the run directory.
        config: the run's configuration as plain values; shown as text.

    Raises:
        TrackerError: tensorboard is not installed.
    """

    def __init__(self, run_dir: Path, config: Mapping[str, Any]) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            text = "tensorboard is not installed: pip install 'hoi_train[tensorboard]', or take it out of trackers"
            raise TrackerError(text) from error
        self._make: Any = SummaryWriter
        self._writer: Any = None
        self._run_dir, self._config = run_dir, config
        self._classes: dict[str, list[str]] = {}
        self._written: set[tuple[Any, ...]] = set()

    def write(self, record: Mapping[str, Any]) -> None:
        """Write one record; those without a form here (stage) stay in the event log."""
        if self._writer is None:
            self._open(record)
        event, step = record["event"], record.get("step")
        if event == "start":
            self._classes |= record.get("classes", {})
            self._writer.add_text("config", f"```\n{json.dumps(self._config, indent=1)}\n```", step)
        elif event == "train":
            self._scalars("train", record["scalars"], step)
        elif event == "weights" and _about(record) not in self._written:
            names = self._classes.get(record["task"]) or [str(index) for index in range(len(record["values"]))]
            self._image(f"weights/{record['task']}", bars(names, record["values"], "weight"), step)
        elif event == "evaluation" and _about(record) not in self._written:
            self._evaluation(record)
        elif event in ("checkpoint", "end"):  # a run that is killed resumes from here and does not write this again
            self._writer.flush()

    def close(self) -> None:
        """Write out what is waiting; a second call does nothing."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, record: Mapping[str, Any]) -> None:
        """Open the event file; after a resume without the steps that are made again."""
        folder, purge_step = self._run_dir / "tensorboard", None
        log = self._run_dir / EVENTS_FILE
        if record["event"] == "resume":
            purge_step = record["step"] + 1
            rows = read_events(log) if log.is_file() else []
            self._classes = {name: names for row in rows for name, names in row.get("classes", {}).items()}
            # An evaluation at the very step of the checkpoint is made again, and hides nothing.
            if folder.is_dir():
                self._written = {_about(row) for row in rows if row.get("step") == record["step"]}
        self._writer = self._make(str(folder), purge_step=purge_step)

    def _evaluation(self, record: Mapping[str, Any]) -> None:
        split, step = record["split"], record.get("step")
        self._scalars(split, record["scalars"], step)
        for name, task in record["tasks"].items():
            order = sorted(range(len(task["classes"])), key=lambda i: (-task["support"][i], i))
            labels = [f"{task['classes'][i]} ({task['support'][i]})" for i in order]
            if "recall" in task:
                self._image(f"{split}/{name}/recall", bars(labels, [task["recall"][i] for i in order], "recall"), step)
            if task["confusion"] is not None:
                counts = [[task["confusion"][i][j] for j in order] for i in order]
                self._image(f"{split}/{name}/confusion", confusion(labels, counts), step)

    def _scalars(self, prefix: str, scalars: Mapping[str, float | None], step: int | None) -> None:
        for name, value in scalars.items():
            if value is not None and math.isfinite(value):
                self._writer.add_scalar(f"{prefix}/{name}", value, step)

    def _image(self, tag: str, figure: Any, step: int | None) -> None:
        import numpy as np

        figure.canvas.draw()
        self._writer.add_image(tag, np.asarray(figure.canvas.buffer_rgba())[..., :3], step, dataformats="HWC")


def _about(record: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(record.get(key) for key in ("event", "step", "epoch", "split", "task"))


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def bars(names: Sequence[str], values: Sequence[float | None], label: str) -> Any:
    """Return a figure with one bar per class, the first on top; ``None`` is ``n/a``."""
    figure = _figure(7.0, 1.0 + 0.25 * len(names))
    axes = figure.subplots()
    axes.barh(range(len(names)), [0.0 if value is None else value for value in values], color=BLUE)
    for row, value in enumerate(values):
        if value is None:
            axes.text(0, row, " n/a", va="center", fontsize=8, color=GREY)
    axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlim=(0, 1 if label == "recall" else None), xlabel=label)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def confusion(names: Sequence[str], counts: Sequence[Sequence[int]]) -> Any:
    """Return a figure of a confusion matrix: rows are the truth and shaded by their share of the row."""
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    side = 2.5 + 0.25 * min(len(names), NAMED_CELLS)
    figure = _figure(side + 1.0, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the class's samples")
    if len(names) <= NAMED_CELLS:
        axes.set_xticks(range(len(names)), names, fontsize=8, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), names, fontsize=8, parse_math=False)
    axes.set(xlabel="prediction", ylabel="truth (samples)")
    return figure
