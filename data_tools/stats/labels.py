"""The labels of a manifest as flat arrays, an entry a label, whatever they are of: clips or pairs, one or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hoi_train.core.records import Task
from hoi_train.data.manifest import Manifest

Indices = NDArray[np.int64]

CHUNK = 8_192  # samples multiplied at a time: bounds the memory of dense rows


@dataclass(frozen=True)
class Labels:
    """The labels of one task; its samples are the clips, or their pairs, in the order of the manifest.

    Args:
        rows: int64 ``[N]``, the manifest's row that each sample is of.
        samples: int64 ``[L]``, the sample that each label is of, ascending.
        classes: int64 ``[L]``, class id of each label.
        num_classes: C.
    """

    rows: Indices
    samples: Indices
    classes: Indices
    num_classes: int

    def multi_hot(self, first: int, last: int) -> NDArray[np.float32]:
        """Return the samples ``first`` to ``last``, exclusive, as float32 ``[last - first, C]`` of 0 and 1."""
        part = slice(*np.searchsorted(self.samples, (first, last)))
        found = np.zeros((last - first, self.num_classes), np.float32)
        found[self.samples[part] - first, self.classes[part]] = 1
        return found


def labels_of(manifest: Manifest, task: Task) -> Labels:
    """Return the labels of a task in all rows of a manifest."""
    if task.of == "clip":
        column = manifest.table.column(task.name)
        rows = np.arange(len(manifest))
        if task.labels == "single":
            return Labels(rows, rows, np.asarray(column, np.int64), task.num_classes)
        return Labels(rows, *_flat(column), task.num_classes)
    pairs = manifest.table.column("pairs")
    rows = np.repeat(np.arange(len(manifest)), _lengths(pairs))
    samples, names = _flat(pc.struct_field(pc.list_flatten(pairs), "predicates"), task.classes.names)
    kept = names >= 0  # the others are classes of other tasks of pairs
    return Labels(rows, samples[kept], names[kept], task.num_classes)


def together(one: Labels, other: Labels) -> Indices:
    """Count the samples that carry a class of one task and a class of another (or the same) of the same samples.

    Returns:
        int64 ``[C, D]``.
    """
    counts = np.zeros((one.num_classes, other.num_classes), np.int64)
    for first in range(0, len(one.rows), CHUNK):
        last = min(first + CHUNK, len(one.rows))
        counts += (one.multi_hot(first, last).T @ other.multi_hot(first, last)).astype(np.int64)
    return counts


def _lengths(lists: Any) -> Indices:
    return np.asarray(pc.fill_null(pc.list_value_length(lists), 0), np.int64)


def _flat(lists: Any, names: Sequence[str] | None = None) -> tuple[Indices, Indices]:
    """Return the place of the list and the class id of each entry; of names their ids, -1 for unknown ones."""
    places, entries = np.repeat(np.arange(len(lists)), _lengths(lists)), pc.list_flatten(lists)
    if names is not None:
        entries = pc.fill_null(pc.index_in(entries, pa.array(names)), -1)
    return places, np.asarray(entries, np.int64)
