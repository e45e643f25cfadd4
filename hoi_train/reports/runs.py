"""Read what a run directory tells: its evaluations, class counts and training loss, from ``events.jsonl``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoi_train.core.records import UserError, nearest
from hoi_train.tracking.events import read_events


class ReportError(UserError):
    """A report that cannot be made from the run directories given. The message names the run and what is missing."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation record of one task.

    Args:
        epoch: from 0.
        scalars: averages by name, without the task's name; nan where undefined.
        vectors: ``recall``, ``precision`` … per class; nan where undefined.
        classes: class names.
        groups: class ids of each group.
    """

    epoch: int
    scalars: Mapping[str, float]
    vectors: Mapping[str, tuple[float, ...]]
    classes: tuple[str, ...]
    groups: Mapping[str, tuple[int, ...]]

    @property
    def single_label(self) -> bool:
        """Whether the task is single-label: only those have a top-1."""
        return "top1" in self.scalars


@dataclass(frozen=True, eq=False)
class Run:
    """The events of one run directory under the name the reports show."""

    name: str
    events: tuple[Mapping[str, Any], ...]

    def tasks(self) -> tuple[str, ...]:
        """Return the names of the tasks evaluated, in the run's order."""
        return tuple(dict.fromkeys(task for event in self._of("evaluation") for task in event["tasks"]))

    def evaluations(self, task: str, split: str) -> tuple[Evaluation, ...]:
        """Return the evaluations of a task on a split in the order made; raises ``ReportError`` if there is none."""
        if task not in self.tasks():
            known = ", ".join(self.tasks()) or "none"
            raise ReportError(f"{self.name}: no task {task!r}, evaluated were: {known}{nearest(task, self.tasks())}")
        found = [event for event in self._of("evaluation") if event["split"] == split and task in event["tasks"]]
        if not found:
            splits = ", ".join(dict.fromkeys(event["split"] for event in self._of("evaluation")))
            raise ReportError(f"{self.name}: task {task!r} has not been evaluated on {split!r}, only on: {splits}")
        return tuple(_evaluation(event, task) for event in found)

    def evaluation(self, task: str, split: str, best: str | None = None) -> Evaluation:
        """Return the last evaluation, or the earliest one with the best value of a scalar (least ``loss``).

        The best is looked for in the last stage of a run of several, as its best checkpoint is.

        Raises:
            ReportError: there is no evaluation, or none with that scalar.
        """
        found = self.evaluations(task, split)
        if best is None:
            return found[-1]
        known = tuple(found[-1].scalars)
        if best not in known:
            raise ReportError(f"{self.name}: no scalar {best!r}{nearest(best, known)}; allowed: {', '.join(known)}")
        begin = max((event["epoch"] for event in self._of("stage")), default=0)
        last = [evaluation for evaluation in found if evaluation.epoch >= begin]
        defined = [evaluation for evaluation in last if not math.isnan(evaluation.scalars[best])]
        if not defined:
            raise ReportError(f"{self.name}: {task}/{best} on {split!r} is n/a in all {len(last)} evaluations")
        return max(defined, key=lambda each: -each.scalars[best] if best == "loss" else each.scalars[best])

    def class_counts(self, task: str) -> tuple[int, ...]:
        """Return how often each class occurs in the training split, from the start record."""
        for event in reversed(self._of("start")):
            if task in event.get("class_counts", {}):
                return tuple(event["class_counts"][task])
        raise ReportError(f"{self.name}: the start record has no class_counts of task {task!r}")

    def training_loss(self) -> dict[int, float]:
        """Return the mean training loss of each epoch, over the steps recorded."""
        losses: dict[int, list[float]] = {}
        for event in self._of("train"):
            value = event["scalars"].get("loss")
            if value is not None:
                losses.setdefault(event["epoch"], []).append(value)
        return {epoch: math.fsum(values) / len(values) for epoch, values in sorted(losses.items())}

    def _of(self, kind: str) -> list[Mapping[str, Any]]:
        return [event for event in self.events if event["event"] == kind]


def read_runs(run_dirs: Sequence[Path]) -> tuple[Run, ...]:
    """Read run directories; a run is called by its folder's name, or by its path where two folders share the name.

    Raises:
        ReportError: no directory was given, or one has no ``events.jsonl``.
    """
    if not run_dirs:
        raise ReportError("no run directory given")
    folders = [folder.resolve().name for folder in run_dirs]
    names = [
        folder if folders.count(folder) == 1 else str(path) for folder, path in zip(folders, run_dirs, strict=True)
    ]
    return tuple(_read(path, name) for path, name in zip(run_dirs, names, strict=True))


def shared_tasks(runs: Sequence[Run], task: str | None) -> tuple[str, ...]:
    """Return the task asked for, or every task of the runs in the first run's order."""
    return (task,) if task is not None else tuple(dict.fromkeys(name for run in runs for name in run.tasks()))


def check_label_kinds(task: str, found: Iterable[Evaluation]) -> None:
    """Raise ``ReportError`` unless the task is single-label in all evaluations or multi-label in all."""
    if len({evaluation.single_label for evaluation in found}) > 1:
        raise ReportError(f"task {task!r} is single-label in some of the runs and multi-label in others")


def _read(path: Path, name: str) -> Run:
    log = path / "events.jsonl"
    if not log.is_file():
        raise ReportError(f"{path} is not a run directory: it has no events.jsonl")
    run = Run(name, tuple(read_events(log)))
    if not run.tasks():
        raise ReportError(f"{path}: the run has not been evaluated yet")
    return run


def _evaluation(event: Mapping[str, Any], task: str) -> Evaluation:
    """Read one record; ``None`` stands for nan there, because JSON has no nan."""
    record = event["tasks"][task]
    prefix = f"{task}/"
    scalars = {k.removeprefix(prefix): _number(v) for k, v in event["scalars"].items() if k.startswith(prefix)}
    vectors = {k: tuple(map(_number, record[k])) for k in ("recall", "precision", "f1", "ap")}
    vectors["support"] = tuple(map(float, record["support"]))
    groups = {name: tuple(ids) for name, ids in record["groups"].items()}
    return Evaluation(event["epoch"], scalars, vectors, tuple(record["classes"]), groups)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
