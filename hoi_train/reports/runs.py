"""Read what a run directory tells: its evaluations, class counts and training loss, from ``events.jsonl``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoi_train.core.records import EpochStats, Task, TaskStats, UserError, nearest, recorded_tasks
from hoi_train.core.strict_json import number
from hoi_train.metrics import direction_of
from hoi_train.tracking.events import read_events


class ReportError(UserError):
    """A report that cannot be made from the run directories given. The message names the run and what is missing."""


@dataclass(frozen=True, eq=False)
class RecordedRun:
    """The events of one run directory under the name that reports show."""

    name: str
    events: tuple[Mapping[str, Any], ...]

    def tasks(self) -> tuple[str, ...]:
        """Return the names of the tasks evaluated, in the run's order."""
        return tuple(dict.fromkeys(task for event in self._of("evaluation") for task in event["tasks"]))

    def evaluation(self, task: str, split: str, best: str | None = None) -> EpochStats:
        """Return the last evaluation of a task on a split, or the earliest one with the best value of a scalar.

        Which values are better is said by ``METRICS``. The best is looked for in the last stage of a run of several,
        as its best checkpoint is.

        Raises:
            ReportError: there is no evaluation, or none with that scalar.
        """
        found = self._evaluations(task, split)
        return self._read(found[-1] if best is None else self._best(found, task, split, best))

    def curve(self, task: str, split: str, scalar: str) -> dict[int, float]:
        """Return a scalar by epoch, nan where undefined; empty where it was not measured."""
        key = f"{task}/{scalar}"
        found = self._evaluations(task, split)
        return {event["epoch"]: number(event["scalars"][key]) for event in found if key in event["scalars"]}

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

    def _evaluations(self, task: str, split: str) -> list[Mapping[str, Any]]:
        if task not in self.tasks():
            known = ", ".join(self.tasks()) or "none"
            raise ReportError(f"{self.name}: no task {task!r}, evaluated were: {known}{nearest(task, self.tasks())}")
        found = [event for event in self._of("evaluation") if event["split"] == split and task in event["tasks"]]
        if not found:
            splits = ", ".join(dict.fromkeys(event["split"] for event in self._of("evaluation")))
            raise ReportError(f"{self.name}: task {task!r} has not been evaluated on {split!r}, only on: {splits}")
        return found

    def _best(self, found: Sequence[Mapping[str, Any]], task: str, split: str, scalar: str) -> Mapping[str, Any]:
        prefix = f"{task}/"
        known = [name.removeprefix(prefix) for name in found[-1]["scalars"] if name.startswith(prefix)]
        if scalar not in known:
            raise ReportError(f"{self.name}: no scalar {scalar!r}{nearest(scalar, known)}; allowed: {', '.join(known)}")
        begin = max((event["epoch"] for event in self._of("stage")), default=0)
        last = [event for event in found if event["epoch"] >= begin]
        defined = [event for event in last if event["scalars"][prefix + scalar] is not None]
        if not defined:
            raise ReportError(f"{self.name}: {task}/{scalar} on {split!r} is n/a in all {len(last)} evaluations")
        pick = max if direction_of(scalar) == "max" else min
        return pick(defined, key=lambda event: event["scalars"][prefix + scalar])

    def _read(self, event: Mapping[str, Any]) -> EpochStats:
        tasks: dict[str, Task] = {}
        for start in self._of("start"):
            tasks |= recorded_tasks(start)
        return EpochStats.from_json(event, tasks)


def read_runs(run_dirs: Sequence[Path]) -> tuple[RecordedRun, ...]:
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


def shared_tasks(runs: Sequence[RecordedRun], task: str | None) -> tuple[str, ...]:
    """Return the task asked for, or every task of the runs in the first run's order."""
    return (task,) if task is not None else tuple(dict.fromkeys(name for run in runs for name in run.tasks()))


def check_label_kinds(task: str, found: Iterable[TaskStats]) -> None:
    """Raise ``ReportError`` unless the task is single-label in all results or multi-label in all."""
    if len({stats.task.labels for stats in found}) > 1:
        raise ReportError(f"task {task!r} is single-label in some of the runs and multi-label in others")


def _read(path: Path, name: str) -> RecordedRun:
    log = path / "events.jsonl"
    if not log.is_file():
        raise ReportError(f"{path} is not a run directory: it has no events.jsonl")
    run = RecordedRun(name, tuple(read_events(log)))
    if not run.tasks():
        raise ReportError(f"{path}: the run has not been evaluated yet")
    return run
