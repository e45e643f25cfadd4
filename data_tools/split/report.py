"""What became of a split: sizes, the share of each class in each split, and what could not be had, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from data_tools.split.units import GroupBy, Indices, Units, columns_of
from hoi_train.core.records import Split, Task

NAMED = 3  # groups named one by one


@dataclass(frozen=True)
class SplitSize:
    """How much a split got of what was wanted; shares in 0..1."""

    split: Split
    clips: int
    groups: int
    wanted: float
    share: float


@dataclass(frozen=True)
class ClassShares:
    """How many samples of a class each split got, in the order of ``SplitReport.sizes``."""

    name: str
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Unmet:
    """A class with fewer samples in a split than wanted, and why."""

    task: str
    name: str
    split: Split
    wanted: int
    samples: int
    reason: str


@dataclass(frozen=True)
class SplitReport:
    """The record of a split, as ``split.json`` holds it.

    Args:
        manifest: what was divided.
        seed, group_by, min_per_class: as asked; ``min_per_class`` is ``None`` where 1 was only wished.
        sizes: of each split that was asked for.
        tasks: the classes of each task in their order.
        deviations: for each task the mean over its classes that occur, and over val and test, of the distance between a
            class's share and the fraction wanted, in percentage points.
        unmet: classes below the minimum.
        notes: what else the user should know, a sentence each.
    """

    manifest: str
    seed: int
    group_by: GroupBy
    min_per_class: int | None
    sizes: tuple[SplitSize, ...]
    tasks: dict[str, tuple[ClassShares, ...]]
    deviations: dict[str, float]
    unmet: tuple[Unmet, ...]
    notes: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Whether a demanded minimum was not reached."""
        return bool(self.unmet) and self.min_per_class is not None


def size_table(units: Units, places: Indices, splits: Sequence[tuple[Split, float]]) -> tuple[SplitSize, ...]:
    """Return the size of each split."""
    clips = units.count(places, len(splits))[:, 0]
    groups = np.bincount(places, minlength=len(splits))
    return tuple(
        SplitSize(split, int(clips[k]), int(groups[k]), wanted, float(clips[k] / clips.sum()))
        for k, (split, wanted) in enumerate(splits)
    )


def class_shares(units: Units, places: Indices, tasks: Sequence[Task], num_splits: int) -> dict[str, Indices]:
    """Return the counts of each task's classes in each split, int64 ``[S, C]``."""
    counts = units.count(places, num_splits)
    return {name: counts[:, columns.start : columns.stop] for name, columns in columns_of(list(tasks)).items()}


def mean_deviation(counts: Indices, fractions: Sequence[float]) -> float:
    """Return how far, on the mean, the shares of classes are from the fractions in val and test, in percentage points.

    >>> mean_deviation(np.array([[6, 9, 0], [4, 1, 0]]), [0.8, 0.2])
    15.0
    """
    occurring = counts[:, counts.sum(0) > 0]
    if not occurring.size:
        return 0.0
    distances = np.abs(occurring / occurring.sum(0) - np.array(fractions)[:, None])[1:]
    return round(100 * float(distances.mean()), 6)


def unmet_minimums(
    units: Units, places: Indices, tasks: Sequence[Task], splits: Sequence[Split], minimum: int, groups_are: str
) -> Iterator[Unmet]:
    """Yield what is below the minimum, class by class.

    Args:
        units: what was divided.
        places: int64 ``[U]``, the split of each unit.
        tasks: whose classes.
        splits: their names.
        minimum: samples of each class in each split.
        groups_are: what to call the units, ``group``, ``file`` or ``clip``.
    """
    shares = class_shares(units, places, tasks, len(splits))
    for task in tasks:
        columns = columns_of(list(tasks))[task.name]
        for class_id in np.flatnonzero((shares[task.name] < minimum).any(0)).tolist():
            name = task.classes.names[class_id]
            reason = _reason(units, columns[class_id], task, name, len(splits), minimum, groups_are)
            for split, samples in zip(splits, shares[task.name][:, class_id].tolist(), strict=True):
                if samples < minimum:
                    yield Unmet(task.name, name, split, minimum, samples, reason)


def _reason(units: Units, column: int, task: Task, name: str, num_splits: int, minimum: int, groups_are: str) -> str:
    total, samples = int(units.totals[column]), f"{task.of}s"
    if not total:
        return f"no {task.of} has class {name}"
    entries = units.columns == column
    holders = units.entry_units[entries]
    counts = units.counts[entries]
    if total < minimum * num_splits:
        samples = samples if total > 1 else task.of
        return (
            f"class {name} has {total} {samples}, {num_splits} splits of at least {minimum} need {minimum * num_splits}"
        )
    largest = np.argsort(-counts, kind="stable")[:NAMED]
    named = ", ".join(f"{units.names[holders[k]]!r:.60} ({counts[k]})" for k in largest)
    if len(holders) == 1:
        return f"all {total} {samples} of class {name} are of one {groups_are}, {named}"
    more = ", …" if len(holders) > NAMED else ""
    held = f"the {total} {samples} of class {name} are of {len(holders)} {groups_are}s: {named}{more}"
    if len(holders) < num_splits:
        return f"{held}; {num_splits} splits need as many"
    return f"{held}; no division was found that gives every split {minimum}"
