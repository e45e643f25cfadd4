"""What a metric is: how it is measured, what its numbers are called, which direction is better, where they are shown.

A line of ``METRICS`` is one of three kinds, told apart by what they need:

- `PerClassMetric`: a vector over the classes, from which the averages over all classes and over each group derive;
- `ScalarMetric`: numbers of all rows together, such as top-1;
- `PairMetric`: numbers of the annotated pairs of key frames, which only tasks of pairs have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple, Protocol

from torch import Tensor

from hoi_train.core.pairs import EvaluatedFrames
from hoi_train.core.records import ClassGroups, LabelKind, Task
from hoi_train.metrics.rows import EvaluatedRows

Direction = Literal["max", "min"]
Place = Literal["epoch", "compare", "curves"]
"""The table after each epoch, the tables and README lines that compare runs, the curves over the epochs."""

NONE: frozenset[LabelKind] = frozenset()
SINGLE: frozenset[LabelKind] = frozenset({"single"})
MULTI: frozenset[LabelKind] = frozenset({"multi"})
BOTH = SINGLE | MULTI


@dataclass(frozen=True)
class Scalar:
    """How one number of an evaluation reads.

    Args:
        heading: short name of the metric for tables, such as ``mAP``.
        short: still shorter, where several metrics of one group share a column, such as ``rec``.
        group: the group averaged over, ``macro`` for all classes; empty where the heading says enough.
        direction: which values are better; ``None`` for a count, which is neither.
        share: the number lies in 0..1 and is shown in per cent.
        places: where it is shown.
    """

    heading: str
    short: str = ""
    group: str = ""
    direction: Direction | None = "max"
    share: bool = True
    places: frozenset[Place] = frozenset()

    @property
    def title(self) -> str:
        """The heading with its group, such as ``minority recall``."""
        return f"{self.group} {self.heading}".strip()


class Measured(NamedTuple):
    """What a metric found: vectors float64 ``[C]`` and scalars, by name; nan where undefined."""

    vectors: Mapping[str, Tensor] = {}
    scalars: Mapping[str, float] = {}


class Metric(Protocol):
    """What every line of ``METRICS`` offers."""

    @property
    def name(self) -> str:
        """Its name in ``METRICS``."""

    def applies(self, task: Task) -> bool:
        """Return whether the metric is defined for a task."""

    def scalars(self, labels: LabelKind, groups: Iterable[str]) -> Mapping[str, Scalar]:
        """Return the numbers it yields, by name, without measuring anything."""

    def measure(self, rows: EvaluatedRows, groups: ClassGroups) -> Measured:
        """Measure rows of a task that it applies to; nothing where the rows lack what it needs."""


class Shown(NamedTuple):
    """For which label kinds a place shows a per-class metric: averaged over all classes, and by group."""

    overall: frozenset[LabelKind] = NONE
    by_group: frozenset[LabelKind] = NONE


@dataclass(frozen=True)
class PerClassMetric:
    """A value per class; ``<average>_macro`` and ``<average>_<group>`` are means over the classes with support.

    Args:
        name: of the metric and of its vector.
        per_class: returns float64 ``[C]``, nan for a class without support.
        heading: see `Scalar`.
        short: likewise.
        labels: label kinds it is defined for.
        direction: which values are better.
        average: begins the names of the averages; the metric's name if empty.
        overall: name of the average over all classes; ``<average>_macro`` if empty, which tables call ``macro``.
        class_heading: of the vector in the table of classes; ``heading`` if empty.
        shown: where its averages are shown.
    """

    name: str
    per_class: Callable[[EvaluatedRows], Tensor]
    heading: str
    short: str = ""
    labels: frozenset[LabelKind] = BOTH
    direction: Direction = "max"
    average: str = ""
    overall: str = ""
    class_heading: str = ""
    shown: Mapping[Place, Shown] = field(default_factory=dict)

    def applies(self, task: Task) -> bool:
        """Return whether the metric is defined for a task."""
        return task.labels in self.labels

    def scalars(self, labels: LabelKind, groups: Iterable[str]) -> Mapping[str, Scalar]:
        """Return the averages over all classes and over each group."""
        overall = Scalar(
            self.heading,
            self.short,
            group="" if self.overall else "macro",
            direction=self.direction,
            places=frozenset(place for place, shown in self.shown.items() if labels in shown.overall),
        )
        of_group = frozenset(place for place, shown in self.shown.items() if labels in shown.by_group)
        by_group = {self._of(group): replace(overall, group=group, places=of_group) for group in groups}
        return {self._of(): overall, **by_group}

    def measure(self, rows: EvaluatedRows, groups: ClassGroups) -> Measured:
        """Return the vector and its averages."""
        vector = self.per_class(rows)
        averages = {self._of(group): counted_mean(vector, ids) for group, ids in groups.items()}
        return Measured({self.name: vector}, {self._of(): counted_mean(vector), **averages})

    def _of(self, group: str = "") -> str:
        return f"{self.average or self.name}_{group or 'macro'}" if group or not self.overall else self.overall


@dataclass(frozen=True)
class ScalarMetric:
    """Numbers of all rows together.

    Args:
        name: of the metric.
        value: returns a number for each of ``numbers``, nan where undefined.
        numbers: how they read, by name.
        labels: label kinds it is defined for.
    """

    name: str
    value: Callable[[EvaluatedRows], Mapping[str, float]]
    numbers: Mapping[str, Scalar]
    labels: frozenset[LabelKind] = BOTH

    def applies(self, task: Task) -> bool:
        """Return whether the metric is defined for a task."""
        return task.labels in self.labels

    def scalars(self, labels: LabelKind, groups: Iterable[str]) -> Mapping[str, Scalar]:
        """Return its numbers; label kind and groups do not change them."""
        return self.numbers

    def measure(self, rows: EvaluatedRows, groups: ClassGroups) -> Measured:
        """Return its numbers."""
        return Measured(scalars=self.value(rows))


@dataclass(frozen=True)
class PairMetric:
    """Numbers of the annotated pairs of key frames: needs the boxes and object classes of the truth.

    Args:
        name: of the metric.
        value: returns a number for each of ``numbers`` from pairs and their predicted predicates.
        numbers: how they read, by name.
    """

    name: str
    value: Callable[[EvaluatedFrames], Mapping[str, float]]
    numbers: Mapping[str, Scalar]

    def applies(self, task: Task) -> bool:
        """Return whether the task labels pairs."""
        return task.of == "pair"

    def scalars(self, labels: LabelKind, groups: Iterable[str]) -> Mapping[str, Scalar]:
        """Return its numbers; label kind and groups do not change them."""
        return self.numbers

    def measure(self, rows: EvaluatedRows, groups: ClassGroups) -> Measured:
        """Return its numbers; none where the annotated pairs are not given."""
        return Measured() if rows.frames is None else Measured(scalars=self.value(rows.frames))


def counted(support: Tensor, ids: Sequence[int] | None = None) -> int:
    """Return how many of the classes ``ids`` (all when left out) have support."""
    return int((_pick(support, ids) > 0).sum())


def counted_mean(vector: Tensor, ids: Sequence[int] | None = None) -> float:
    """Return the mean of the classes ``ids`` (all when left out) without the nan ones; nan when none is left.

    >>> import torch
    >>> counted_mean(torch.tensor([0.5, math.nan, 1.0])), counted_mean(torch.tensor([0.5, math.nan]), ids=(1,))
    (0.75, nan)
    """
    values = [value for value in _pick(vector, ids).tolist() if not math.isnan(value)]
    return math.fsum(values) / len(values) if values else math.nan


def _pick(vector: Tensor, ids: Sequence[int] | None) -> Tensor:
    return vector if ids is None else vector[list(ids)]
