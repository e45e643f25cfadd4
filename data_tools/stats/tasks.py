"""What a manifest tells of its labels: counts, length of the tail, labels a sample, what occurs together, shift."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from data_tools.stats.labels import Indices, labels_of, together
from data_tools.stats.numbers import Counts, Numbers, gini, imbalance, jensen_shannon, share_ratios, shots
from hoi_train.core.records import SPLITS, Split, Task
from hoi_train.data.manifest import Manifest


@dataclass(frozen=True)
class Shift:
    """How a split differs from train.

    Args:
        divergence: Jensen-Shannon divergence of the classes' shares, in bits; 0 if alike, 1 if no class is shared.
        ratios: ``[C]``, share in the split over share in train; nan where train has none.
    """

    divergence: float
    ratios: Numbers


@dataclass(frozen=True)
class TaskFacts:
    """The labels of one task.

    Args:
        task: whose.
        counts: samples of each class, for each split with clips.
        samples: clips, or pairs, of each of these splits.
        tail_of: the split whose tail is measured: train if it has clips.
        imbalance, gini, shots: of that split's counts.
        labels_each: how many samples have 0, 1, 2 … labels, all splits together.
        shift: of val and test against train.
    """

    task: Task
    counts: Counts
    samples: dict[Split, int]
    tail_of: Split
    imbalance: float
    gini: float
    shots: dict[str, int]
    labels_each: tuple[int, ...]
    shift: dict[Split, Shift]

    @property
    def mean_labels(self) -> float:
        """Labels of a sample on the mean; nan without samples."""
        number = sum(self.labels_each)
        return float(np.arange(len(self.labels_each)) @ self.labels_each / number) if number else float("nan")


@dataclass(frozen=True)
class Together:
    """How often the classes of two tasks, or of one multi-label task, occur in the same clip or pair, all splits.

    Args:
        one, other: the tasks; the same for a task with itself.
        counts: int64 ``[C, D]``; of a task with itself the diagonal is the class's own count.
    """

    one: Task
    other: Task
    counts: Indices = field(repr=False)

    def entries(self) -> Indices:
        """Return which classes occur together, each pair once: rows of two ids and the number, int64 ``[E, 3]``."""
        counts = np.triu(self.counts, 1) if self.one is self.other else self.counts
        rows, columns = np.nonzero(counts)
        return np.stack([rows, columns, counts[rows, columns]], axis=1)

    def most_frequent(self, number: int) -> list[tuple[str, str, int]]:
        """Return at most ``number`` pairs of classes that occur together most often, with their counts."""
        entries = self.entries()
        first = entries[np.argsort(-entries[:, 2], kind="stable")[:number]].tolist()
        return [(self.one.classes.names[i], self.other.classes.names[k], count) for i, k, count in first]


def task_facts(manifest: Manifest, task: Task) -> TaskFacts:
    """Return what there is to say of a task's labels."""
    found = {split: view.counts(task.name) for split in SPLITS if len(view := manifest.split(split))}
    counts: Counts = {split: of.positives for split, of in found.items()}
    tail_of = next(iter(counts))
    labels = labels_of(manifest, task)
    each = (
        np.bincount(np.bincount(labels.samples, minlength=len(labels.rows)), minlength=1) if len(labels.rows) else [0]
    )
    others = {split: of for split, of in counts.items() if split != "train" and "train" in counts}
    return TaskFacts(
        task=task,
        counts=counts,
        samples={split: of.num_samples for split, of in found.items()},
        tail_of=tail_of,
        imbalance=imbalance(counts[tail_of]),
        gini=gini(counts[tail_of]),
        shots=shots(counts[tail_of]),
        labels_each=tuple(int(number) for number in each),
        shift={
            split: Shift(jensen_shannon(counts["train"], of), share_ratios(counts["train"], of))
            for split, of in others.items()
        },
    )


def all_together(manifest: Manifest) -> Iterator[Together]:
    """Yield the co-occurrence of every multi-label task with itself, and of every two tasks of the same samples."""
    tasks = list(manifest.tasks.values())
    labels = {task.name: labels_of(manifest, task) for task in tasks}
    same = [(task, task) for task in tasks if task.labels == "multi"]
    for one, other in [*same, *combinations(tasks, 2)]:
        if one.of == other.of:
            yield Together(one, other, together(labels[one.name], labels[other.name]))
