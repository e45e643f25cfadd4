"""The manifest: one table of labelled clips for every data set.

A manifest is a ``.parquet``, ``.csv`` or ``.jsonl`` file with one row per clip, and beside it ``dataset.json``:

    {"root": ".",
     "tasks": {"verb": {"labels": "single", "classes": ["take", "put"]},
               "noun": {"labels": "multi", "classes": ["cup", "plate"]}}}

``root`` is the folder of the videos, absolute or relative to that file; a class id is a position in ``classes``.
``"mirrored": [["left_of", "right_of"]]`` in a task names classes that a flip in training turns into each other.
``"object_classes": ["person", "cup"]`` beside the tasks, if given, lists the classes of the objects of pairs.

========== ======== ======================================================================================
column     needed   meaning
========== ======== ======================================================================================
clip_id    yes      text, unique
path       yes      video file or folder of frame images, relative to ``root`` (or absolute inside it)
split      yes      ``train``, ``val`` or ``test``
(task)     yes      one column per task of clips: the class name, or a list of class names if it is
                    multi-label (in csv joined by ``|``; an empty list is allowed)
start, end no       seconds in the file, ``end`` exclusive; by default the file's own start or end
group      no       what must stay in one split: a person, a source video
num_frames no       number of frames of the whole file
fps        no       frames per second of a frame folder
width,     no       size in pixels of the upright frames in which boxes were annotated; a file with frames of
height              another size is refused
pairs      no       human-object pairs, a list of ``PairAnnotation``, each once per frame; their predicates are the
                    labels of the tasks with ``"of": "pair"``; not in csv
tracks     no       boxes of persons and objects, a list of ``Track`` with boxes as a list of lists; not in csv.
                    Ids are unique in a row; a row with tracks has a track for every id in its pairs
========== ======== ======================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hoi_train.core.records import SPLITS, ClassCounts, ClassList, Clip, PairAnnotation, Split, Task, Track, nearest
from hoi_train.data.manifest.checks import check
from hoi_train.data.manifest.columns import NOT_IN_CSV, column_types, raw_from_rows, raw_from_table
from hoi_train.data.manifest.io import FORMATS, SEPARATOR, check_neighbours, read_raw, replace_both
from hoi_train.data.manifest.problems import ManifestError, Problem, Problems
from hoi_train.data.manifest.tasks import DATASET_FILE, check_tasks, dataset_json, read_dataset

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Manifest", "ManifestError", "read_manifest", "write_manifest", "written_manifest"]


@dataclass(eq=False, repr=False)
class Manifest:
    """Labelled clips in an Arrow table, which views and worker processes share.

    Args:
        path: the file.
        root: folder of the videos, absolute.
        tasks: by name, in the order of ``dataset.json``.
        table: one row per clip with all columns; task columns hold class ids (int32, or ascending lists of them).
        warnings: what is allowed but probably wrong, one sentence each.
        object_classes: classes of the objects of pairs, in the order of their ids; ``None`` if not listed.
    """

    path: Path
    root: Path
    tasks: Mapping[str, Task]
    table: pa.Table
    warnings: tuple[str, ...] = ()
    object_classes: ClassList | None = None
    _packed: Tensor | None = field(default=None, init=False)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def __repr__(self) -> str:
        return f"Manifest({str(self.path)!r}, {len(self)} clips, tasks: {', '.join(self.tasks)})"

    def __getstate__(self) -> dict[str, Any]:
        """Pack the rows into a tensor, once; torch passes it to worker processes as shared memory."""
        if self._packed is None:
            import torch

            rows = self.table.take(pa.array(np.arange(len(self))))  # of a view only its own rows
            self._packed = torch.empty(_write_stream(rows, pa.MockOutputStream()), dtype=torch.uint8)
            self._packed.share_memory_()  # type: ignore[no-untyped-call]
            _write_stream(rows, pa.FixedSizeBufferWriter(pa.py_buffer(self._packed.numpy())))
            del rows
            self.table = _read_stream(self._packed)
            pa.default_memory_pool().release_unused()
        return {**self.__dict__, "table": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Read the table in shared memory."""
        self.__dict__.update(state)
        self.table = _read_stream(state["_packed"])

    @property
    def clip_ids(self) -> tuple[str, ...]:
        """All clip ids in the order of the rows; built anew by each call."""
        return tuple(self.table.column("clip_id").to_pylist())

    def split(self, name: Split) -> Manifest:
        """Return a view of the rows of one split, in the order of the file."""
        if name not in SPLITS:
            raise ValueError(f"split {name!r} is not one of {', '.join(SPLITS)}{nearest(name, SPLITS)}")
        return self.select(np.flatnonzero(np.asarray(pc.equal(self.table.column("split"), name))))

    def select(self, rows: Sequence[int] | np.ndarray[Any, np.dtype[np.int64]]) -> Manifest:
        """Return a view of some rows; consecutive rows share this table's memory, others are copied."""
        rows = np.asarray(rows, np.int64)
        if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            table = self.table.slice(int(rows[0]), len(rows))
        else:
            table = self.table.take(pa.array(rows))
        return replace(self, table=table)

    def with_columns(self, columns: Mapping[str, Any]) -> Manifest:
        """Return a copy with other values in some columns."""
        table = self.table
        for name, values in columns.items():
            table = table.set_column(table.column_names.index(name), name, values)
        return replace(self, table=table)

    def write(self, path: Path) -> Path:
        """Write all rows with `write_manifest`; returns ``path``."""
        return write_manifest(path, self.table, list(self.tasks.values()), self.root, self.object_classes)

    def clip(self, row: int) -> Clip:
        """Return the clip of a row, its path absolute."""
        value = {name: self._value(name, row) for name in self.table.column_names if name not in NOT_IN_CSV}
        labels = {
            name: tuple(value[name]) if task.labels == "multi" else value[name]
            for name, task in self.tasks.items()
            if task.of == "clip"
        }
        return Clip(
            clip_id=value["clip_id"],
            path=self.root / value["path"],
            split=value["split"],
            labels=labels,
            start=value["start"],
            end=value["end"],
            group=value["group"],
            num_frames=value["num_frames"],
            fps=value["fps"],
            size=None if value["width"] is None else (value["width"], value["height"]),
        )

    def pairs(self, row: int) -> tuple[PairAnnotation, ...]:
        """Return the human-object pairs of a row in the order of the file, possibly none."""
        return tuple(
            PairAnnotation(
                frame=pair["frame"],
                person_id=pair["person_id"],
                object_id=pair["object_id"],
                person_box=tuple(pair["person_box"]),
                object_box=tuple(pair["object_box"]),
                object_class=pair["object_class"],
                predicates=tuple(pair["predicates"]),
            )
            for pair in self._value("pairs", row) or ()
        )

    def tracks(self, row: int) -> tuple[Track, ...]:
        """Return the tracks of a row in the order of the file, possibly none; boxes are float32."""
        return tracks_of(self.table.column("tracks")[row].values)

    def labels(self, task: str) -> Tensor:
        """Return the labels of all rows for a task of clips: int64 ``[N]`` class ids, or bool ``[N, C]`` multi-hot."""
        import torch

        described, column = self.tasks[task], self.table.column(task)
        if described.labels == "single":
            return torch.from_numpy(np.asarray(column, np.int64).copy())
        lengths = np.asarray(pc.list_value_length(column))
        found = torch.zeros(len(self), described.num_classes, dtype=torch.bool)
        found[np.repeat(np.arange(len(self)), lengths), np.asarray(pc.list_flatten(column), np.int64)] = True
        return found

    def counts(self, task: str) -> ClassCounts:
        """Count the classes of a task over all rows; the samples of a task of pairs are the pairs."""
        described = self.tasks.get(task)
        if described is None:
            raise ValueError(f"no task {task!r} in {self.path}{nearest(task, list(self.tasks))}")
        column, num_samples = self.table.column(task if described.of == "clip" else "pairs"), len(self)
        if described.of == "pair":
            pairs = pc.list_flatten(column)
            num_samples = len(pairs)
            names = pc.list_flatten(pc.struct_field(pairs, "predicates"))
            column = pc.drop_null(pc.index_in(names, pa.array(described.classes.names)))
        elif described.labels == "multi":
            column = pc.list_flatten(column)
        positives = np.bincount(np.asarray(column), minlength=described.num_classes).tolist()
        return ClassCounts(tuple(positives), num_samples, described.labels)

    def _value(self, column: str, row: int) -> Any:
        return self.table.column(column)[row].as_py()


def _write_stream(table: pa.Table, sink: Any) -> int:
    """Write a table in Arrow's stream format and return its bytes."""
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return int(sink.tell() if isinstance(sink, pa.FixedSizeBufferWriter) else sink.size())


def _read_stream(packed: Tensor) -> pa.Table:
    return pa.ipc.open_stream(pa.py_buffer(packed.numpy())).read_all()


def tracks_of(tracks: Any) -> tuple[Track, ...]:
    """Return the tracks in an Arrow array of tracks, possibly ``None``; boxes are float32."""
    if tracks is None or not len(tracks):
        return ()
    import torch

    ids, starts, boxes = (pc.struct_field(tracks, name) for name in ("track_id", "start_frame", "boxes"))
    corners = torch.from_numpy(np.array(pc.list_flatten(pc.list_flatten(boxes)), np.float32).reshape(-1, 4))
    parts = torch.split(corners, pc.list_value_length(boxes).to_pylist())
    return tuple(Track(*track) for track in zip(ids.to_pylist(), starts.to_pylist(), parts, strict=True))


def read_manifest(path: Path, root: Path | None = None, *, tracks: bool = True) -> Manifest:
    """Read and check a manifest and the ``dataset.json`` beside it.

    Args:
        path: a ``.parquet``, ``.csv`` or ``.jsonl`` file.
        root: folder of the videos; overrides the one in ``dataset.json``.
        tracks: whether to read the tracks, which take nearly all of a manifest's memory.

    Returns:
        The manifest. It is not checked whether the videos exist and decode; ``hoi-data verify`` does that.

    Raises:
        ManifestError: lists everything that is wrong, with file and line (Parquet: row).
    """
    path = Path(path)
    _check_format(path)
    if not path.is_file():
        raise _refuse(path, "a folder, not a file" if path.is_dir() else "no such file")
    named_root, tasks, object_classes = read_dataset(path.parent)
    problems = Problems()
    root = _folder(named_root if root is None else Path(root), path.parent / DATASET_FILE, problems)
    if path.suffix == ".csv":
        _check_separator(path, tasks.values(), problems)
    raw = read_raw(path, list(tasks.values()), problems, tracks=tracks)
    table = check(raw, list(tasks.values()), root, problems, object_classes)
    problems.raise_if_any()
    return _with_warnings(Manifest(path, root, tasks, table, object_classes=object_classes))


def write_manifest(
    path: Path,
    rows: Iterable[Mapping[str, Any]] | pa.Table,
    tasks: Sequence[Task],
    root: Path,
    object_classes: ClassList | None = None,
) -> Path:
    """Check rows and write them with their ``dataset.json``; neither file is replaced by an incomplete one.

    Args:
        path: a ``.parquet``, ``.csv`` or ``.jsonl`` file; its folder is created.
        rows: an iterable of mappings from column to value, or an Arrow table. Labels are class names; a table may also
            hold class ids, as ``Manifest.table`` does.
        tasks: the tasks of the labels.
        root: folder of the videos; written relative if it is inside the manifest's folder.
        object_classes: allowed classes of the objects of pairs.

    Returns:
        ``path``.

    Raises:
        ManifestError: ``read_manifest`` would refuse the result (rows count from 1), or another manifest in the folder
            needs another ``dataset.json``.
    """
    return written_manifest(path, rows, tasks, root, object_classes).path


def written_manifest(
    path: Path,
    rows: Iterable[Mapping[str, Any]] | pa.Table,
    tasks: Sequence[Task],
    root: Path,
    object_classes: ClassList | None = None,
) -> Manifest:
    """Do what `write_manifest` does and return the manifest, without a second copy in memory."""
    path = Path(path)
    _check_format(path)
    check_tasks(tasks, object_classes)
    problems = Problems()
    types = column_types(tasks)
    if isinstance(rows, pa.Table):
        raw = raw_from_table(path, _with_names(rows, tasks), types, problems)
    else:
        raw = raw_from_rows(path, enumerate(rows, 1), types, "row", problems)
    table = check(raw, tasks, root.resolve(), problems, object_classes)
    if path.suffix == ".csv":
        _check_separator(path, tasks, problems)
        for name in NOT_IN_CSV:
            if raw.columns[name].null_count < len(raw):
                problems.add(path, None, f"column {name!r} cannot be held by csv; use .parquet or .jsonl")
    check_neighbours(path, root, tasks, object_classes, problems)
    problems.raise_if_any()
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_both(path, raw, dataset_json(root, path.parent, tasks, object_classes))
    by_name = {task.name: task for task in tasks}
    return _with_warnings(Manifest(path, root.resolve(), by_name, table, object_classes=object_classes))


def check_place(path: Path, root: Path, manifest: Manifest) -> None:
    """Fail early if `write_manifest` would refuse the folder because of another manifest in it.

    Args:
        path: where a manifest will be written.
        root: folder of its videos.
        manifest: has the tasks and object classes that it will have.

    Raises:
        ManifestError: another manifest in the folder needs another ``dataset.json``.
    """
    problems = Problems()
    check_neighbours(path, root, list(manifest.tasks.values()), manifest.object_classes, problems)
    problems.raise_if_any()


def _folder(root: Path, named_in: Path, problems: Problems) -> Path:
    """Return the data root without links and ``..``; a missing one is noted."""
    try:
        if root.is_dir():
            return root.resolve()
    except (OSError, ValueError):  # name too long, NUL
        pass
    problems.add(named_in, None, f"root {str(root)!r:.200} is not a folder; it must hold the videos")
    return root.absolute()


def _with_names(table: pa.Table, tasks: Sequence[Task]) -> pa.Table:
    """Replace class ids by class names."""
    for task in tasks:
        if task.name not in table.column_names:
            continue
        position, column = table.column_names.index(task.name), table.column(task.name).combine_chunks()
        names = pa.array(task.classes.names)
        if pa.types.is_integer(column.type):
            table = table.set_column(position, task.name, names.take(column))
        elif pa.types.is_list(column.type) and pa.types.is_integer(column.type.value_type):
            lengths = np.asarray(pc.list_value_length(column))
            offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
            named = pa.ListArray.from_arrays(offsets, names.take(pc.list_flatten(column)))
            table = table.set_column(position, task.name, named)
    return table


def _with_warnings(manifest: Manifest) -> Manifest:
    """Finish a manifest whose table is checked."""
    manifest.warnings = tuple(_warnings(manifest))
    pa.default_memory_pool().release_unused()  # the checks need as much memory again, which Arrow would keep
    return manifest


def _warnings(manifest: Manifest) -> Iterable[str]:
    """Name the classes of val and test that training has no sample of."""
    manifest = replace(manifest, table=manifest.table.drop_columns(["tracks"]))  # a split would copy them
    train = manifest.split("train")
    if not len(train):
        yield f"{manifest.path}: no clip is in split train"
    for split in ("val", "test"):
        rows = manifest.split(split)
        for name, task in manifest.tasks.items() if len(train) and len(rows) else ():
            seen, met = train.counts(name).positives, rows.counts(name).positives
            unseen = [task.classes.names[k] for k in range(task.num_classes) if met[k] and not seen[k]]
            if unseen:
                yield f"{manifest.path}: {name}: split {split} has classes that train never has: {', '.join(unseen)}"


def _check_format(path: Path) -> None:
    if path.suffix not in FORMATS:
        raise _refuse(path, f"a manifest's name ends in {', '.join(FORMATS)}, not in {path.suffix!r}")


def _check_separator(path: Path, tasks: Iterable[Task], problems: Problems) -> None:
    for task in tasks:
        several = task.labels == "multi" and task.of == "clip"
        if several and (name := next((name for name in task.classes if SEPARATOR in name), None)):
            problems.add(path, None, f"{task.name}: csv joins class names by {SEPARATOR!r}, which is part of {name!r}")


def _refuse(path: Path, text: str) -> ManifestError:
    return ManifestError((Problem(path, None, text),), 1)
