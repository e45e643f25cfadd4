"""The data of a run, as its methods, losses and evaluations share them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hoi_train.core.pairs import TruePairs
from hoi_train.core.records import ClassCounts, ClassList, Split, Task
from hoi_train.data.loader import ClipLoader
from hoi_train.data.manifest.quarantine import LeftOut
from hoi_train.data.pair_dataset import PairDataset


@dataclass(frozen=True)
class RunData:
    """Tasks, class counts, labels and loaders of a run, per split.

    Args:
        tasks: by name.
        counts: class counts of every split, by task.
        labels: for each split with samples, by task: int64 ``[N]`` class ids or bool ``[N, C]``.
        loaders: for each split with samples, this rank's loader.
        groups: by task, the class ids of each group.
        object_classes: classes of the objects of pairs; ``None`` if the data list none.
        left_out: clips excluded by the quarantine; ``None`` without one.
    """

    tasks: Mapping[str, Task]
    counts: Mapping[Split, Mapping[str, ClassCounts]]
    labels: Mapping[Split, Mapping[str, Tensor]]
    loaders: Mapping[Split, ClipLoader]
    groups: Mapping[str, Mapping[str, tuple[int, ...]]] = field(default_factory=dict)
    object_classes: ClassList | None = None
    left_out: LeftOut | None = None
    _truth: dict[tuple[Split, str], TruePairs] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def of_pairs(self) -> bool:
        """Whether the samples are key frames with human-object pairs, and not whole clips."""
        return any(task.of == "pair" for task in self.tasks.values())

    def truth(self, split: Split, task: str) -> TruePairs | None:
        """Return the annotated pairs of a split in the order of its rows; ``None`` for a split of clips."""
        dataset = self.loaders[split].dataset
        if not isinstance(dataset, PairDataset):
            return None
        if (split, task) not in self._truth:
            self._truth[split, task] = dataset.truth(task)
        return self._truth[split, task]

    def facts(self) -> dict[str, Any]:
        """Return what determines the run's numbers, as plain values for the event log."""
        return {
            "class_counts": {name: list(counts.positives) for name, counts in self.counts["train"].items()},
            "classes": {name: list(task.classes) for name, task in self.tasks.items()},
            "labels": {name: task.labels for name, task in self.tasks.items()},
            "of": {name: task.of for name, task in self.tasks.items()},
            "object_classes": list(self.object_classes or ()),
            "groups": {task: {name: list(ids) for name, ids in groups.items()} for task, groups in self.groups.items()},
            "left_out": None if self.left_out is None else self.left_out.to_json(),
        }
