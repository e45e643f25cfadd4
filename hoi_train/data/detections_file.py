"""Detections: human-object pairs that a detector and tracker found in the videos of a manifest, to be labelled.

A Parquet file with one row per video. A video without a row, or a frame without a pair, is one without detections.

======= ====== =========================================================================================
column  needed meaning
======= ====== =========================================================================================
clip_id yes    that of the manifest, unique
pairs   yes    a list of pairs, each with ``frame``, ``person_id``, ``object_id``, ``person_box``, ``object_box`` and
               ``object_class`` as in a manifest, and ``person_score`` and ``object_score``, the detector's scores
               of the boxes in 0..1. Ids are the detector's own
tracks  no     boxes of the persons and objects in all frames, as in a manifest; a row with tracks has a track for
               every id in its pairs. Without tracks a pair keeps its boxes in all frames
======= ====== =========================================================================================

The detector chooses the pairs; VidHOI's authors pair every person with everything else in the frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from hoi_train.core.disk import whole_file
from hoi_train.core.records import ClassList, Task
from hoi_train.data.manifest.checks import check
from hoi_train.data.manifest.columns import (
    DETECTED,
    PAIRS,
    TRACKS,
    RawTable,
    column_types,
    raw_from_rows,
    raw_from_table,
)
from hoi_train.data.manifest.problems import Problems

DETECTIONS = "detections.parquet"  # the importers' name for it
TYPES = {"clip_id": pa.string(), "pairs": DETECTED, "tracks": TRACKS}
SCORES = ("person_score", "object_score")
_UNLABELLED = Task("predicate", ClassList(("none",)), "multi", of="pair")


def write_detections(path: Path, rows: Iterable[Mapping[str, Any]] | pa.Table, object_classes: ClassList) -> Path:
    """Check detections and write them, whole or not at all.

    Args:
        path: a ``.parquet`` file; its folder is created.
        rows: mappings from column to value, or an Arrow table.
        object_classes: allowed classes of the objects.

    Raises:
        ManifestError: ``read_detections`` would refuse the result; rows count from 1.
    """
    problems = Problems()
    if isinstance(rows, pa.Table):
        raw = raw_from_table(path, rows, TYPES, problems)
    else:
        raw = raw_from_rows(path, enumerate(rows, 1), TYPES, "row", problems)
    _check(raw, object_classes, problems)
    problems.raise_if_any()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as waiting:
        parquet.write_table(pa.table(raw.columns), waiting, compression="zstd")
    return path


def read_detections(path: Path, object_classes: ClassList) -> pa.Table:
    """Read a file of detections and check it.

    Returns:
        Its three columns.

    Raises:
        ManifestError: lists everything that is wrong, with file and row.
    """
    problems = Problems()
    if not path.is_file():
        problems.add(path, None, "a folder, not a file" if path.is_dir() else "no such file")
        problems.raise_if_any()
    try:
        table = parquet.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        problems.add(path, None, f"not a readable Parquet file, which detections must be: {error}")
        problems.raise_if_any()
    raw = raw_from_table(path, table, TYPES, problems)
    _check(raw, object_classes, problems)
    problems.raise_if_any()
    return pa.table(raw.columns)


def _check(raw: RawTable, object_classes: ClassList, problems: Problems) -> None:
    """Apply the manifest's checks of pairs and tracks, and check the scores."""
    columns = {name: pa.nulls(len(raw), wanted) for name, wanted in column_types([_UNLABELLED]).items()}
    columns |= raw.columns
    columns["pairs"] = unlabelled(columns["pairs"])
    columns["path"], columns["split"] = (pa.array([text] * len(raw), pa.string()) for text in ("-", "test"))
    stand_in = RawTable(raw.file, columns, raw.numbers, raw.unit, raw.refused)
    check(stand_in, [_UNLABELLED], raw.file.parent, problems, object_classes)
    if problems.total:
        return
    flat, owners = pc.list_flatten(raw.columns["pairs"]), np.asarray(pc.list_parent_indices(raw.columns["pairs"]))
    for name in SCORES:
        scores = np.asarray(pc.struct_field(flat, name))
        bad = np.unique(owners[~((scores >= 0) & (scores <= 1))]).tolist()
        raw.note(problems, bad, f"{name} of a pair must lie in 0..1")


def unlabelled(column: Any, kept: Any = None) -> Any:
    """Convert detected pairs to a manifest's pairs with no predicates, keeping the scores as further fields.

    Args:
        column: Arrow array of N lists.
        kept: bool, which of all pairs to keep; all by default.
    """
    flat, owners = pc.list_flatten(column), np.asarray(pc.list_parent_indices(column))
    if kept is not None:
        flat, owners = flat.filter(pa.array(kept)), owners[kept]
    none = pa.array([[]] * len(flat), PAIRS.value_type.field("predicates").type)
    fields = [*DETECTED.value_type, PAIRS.value_type.field("predicates")]
    columns = [*(pc.struct_field(flat, field.name) for field in DETECTED.value_type), none]
    ends = np.searchsorted(owners, np.arange(len(column) + 1))
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.StructArray.from_arrays(columns, fields=fields))
