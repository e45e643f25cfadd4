"""What a split may not tear apart: units of clips, and how many samples of each class every unit holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from data_tools.stats.labels import labels_of
from hoi_train.core.records import Task
from hoi_train.data.manifest import Manifest

Indices = NDArray[np.int64]
GroupBy = Literal["group", "path", "none"]


@dataclass(frozen=True)
class Units:
    """Groups of clips, counted in K columns: column 0 is clips, then come the classes of all tasks, one after another.

    Args:
        names: U, in the order of the alphabet, so that the order of the rows changes nothing.
        of_row: int64 ``[N]``, the unit of each row of the manifest.
        first: int64 ``[U]``, where each unit's entries begin.
        columns: int64 ``[E]``, what each entry counts, ascending in a unit.
        counts: int64 ``[E]``, how many samples; at least 1.
        totals: int64 ``[K]``.
    """

    names: tuple[str, ...]
    of_row: Indices
    first: Indices
    columns: Indices
    counts: Indices
    totals: Indices

    @property
    def entry_units(self) -> Indices:
        """The unit of each entry, int64 ``[E]``."""
        return np.repeat(np.arange(len(self.names)), np.diff(np.append(self.first, len(self.columns))))

    def count(self, places: Indices, num_places: int) -> Indices:
        """Return the counts of each place, int64 ``[P, K]``, if every unit goes to a place, int64 ``[U]``."""
        keys = places[self.entry_units] * len(self.totals) + self.columns
        flat = np.bincount(keys, self.counts, minlength=num_places * len(self.totals))
        return flat.astype(np.int64).reshape(num_places, -1)


def units_of(manifest: Manifest, group_by: GroupBy) -> Units:
    """Divide a manifest into units and count their classes."""
    names, of_row = np.unique(np.array(_unit_names(manifest, group_by), object), return_inverse=True)
    width = 1 + sum(task.num_classes for task in manifest.tasks.values())
    keys = [of_row * width]
    for name, columns in columns_of(list(manifest.tasks.values())).items():
        labels = labels_of(manifest, manifest.tasks[name])
        keys.append(of_row[labels.rows[labels.samples]] * width + columns.start + labels.classes)
    entries, counts = np.unique(np.concatenate(keys), return_counts=True)
    totals = np.bincount(entries % width, counts, minlength=width).astype(np.int64)
    first = np.searchsorted(entries, np.arange(len(names)) * width)
    return Units(tuple(names.tolist()), of_row, first, entries % width, counts.astype(np.int64), totals)


def columns_of(tasks: list[Task]) -> dict[str, range]:
    """Return which columns of ``Units`` count the classes of each task."""
    ends = np.cumsum([1, *(task.num_classes for task in tasks)]).tolist()
    return {task.name: range(first, last) for task, first, last in zip(tasks, ends[:-1], ends[1:], strict=True)}


def _unit_names(manifest: Manifest, group_by: GroupBy) -> list[str]:
    """Return the unit of each row; clips without a group go with what shares their file."""
    if group_by != "group":
        return list(manifest.table.column("path" if group_by == "path" else "clip_id").to_pylist())
    paths = manifest.table.column("path").to_pylist()
    groups = pc.fill_null(manifest.table.column("group").cast("string"), "").to_pylist()
    group_of_path = {path: group for path, group in zip(paths, groups, strict=True) if group}
    return [group or group_of_path.get(path, path) for path, group in zip(paths, groups, strict=True)]
