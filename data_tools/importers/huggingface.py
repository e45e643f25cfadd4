"""Hugging Face video folders to a manifest.

Without metadata the folder that a video is in names its class, below folders of the splits if there are any; that is
what ``hoi-data folder`` reads. With ``metadata.csv``, ``metadata.jsonl`` or ``metadata.parquet`` in any folder, a row
is a video: ``file_name``, or another column whose name ends in ``_file_name``, is its path relative to the metadata,
and every other column may be a label; the folders then name no classes. A label is a class name, a class id, or in
jsonl and Parquet a list of these for a multi-label task. A video belongs to the split that the first folder of its path
with such a name means (train, training, validation, valid, val, dev, test, testing, eval, evaluation), else to train.
A row of several videos (``*_file_names``) is refused. Splits that README.md declares are not read.

Source: docs/source/video_dataset.mdx, repository_structure.mdx and
src/datasets/packaged_modules/folder_based_builder of github.com/huggingface/datasets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import pyarrow as pa
from pyarrow import parquet

from data_tools.importers.folder import import_folder
from data_tools.importers.lists import read_classes
from data_tools.importers.samples import Options, Sample, write_samples
from data_tools.importers.tables import RowError, class_names, read_rows
from data_tools.sources import SPLIT_NAMES, Imported, numbered_lines
from hoi_train.core.paths import inside
from hoi_train.core.records import LabelKind, Split, UserError
from hoi_train.core.strict_json import JSONError, parse_json
from hoi_train.data.manifest.problems import Problems

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"


class Row(NamedTuple):
    """A row of metadata."""

    file: Path
    number: int
    unit: Literal["line", "row"]
    cells: Mapping[str, Any]


def import_huggingface(
    options: Options,
    *,
    labels: Sequence[str] | None = None,
    file_column: str | None = None,
    classes: Path | None = None,
) -> Imported:
    """Write the manifest of a folder of videos.

    Args:
        options: what all formats are told.
        labels: columns that are tasks; without metadata, the name of the task. By default ``label``.
        file_column: which column has the path, if several end in ``file_name``.
        classes: class names for labels that are ids; with one task only.

    Raises:
        ManifestError: with everything that is wrong in the metadata, each with file and line.
        UserError: no videos, no such columns, or no metadata for options that need them.
    """
    labels = labels or ("label",)
    if len(labels) > 1 and classes:
        raise UserError("--classes names the classes of one task; leave it out, or give one --label")
    files = sorted(file for name in METADATA for file in options.videos.rglob(name))
    if not files:
        asked = {
            "all but one --label": len(labels) > 1,
            "--classes": classes is not None,
            "--file-column": file_column is not None,
            "--keep-missing": options.keep_missing,
        }
        if vain := [name for name, given in asked.items() if given]:
            raise UserError(
                f"no {', '.join(METADATA)} is below {options.videos}: the folders name the classes, and what is there "
                f"is listed; leave out {', '.join(vain)}, or add metadata"
            )
        return import_folder(
            options.videos,
            options.out,
            task=labels[0],
            val_fraction=options.val_fraction,
            seed=options.seed,
            fps=options.fps,
        )
    problems, left_out = Problems(), Counter[str]()
    rows = [row for file in files for row in read_metadata(file, problems)]
    names = read_classes(classes, problems) if classes else None
    samples: list[Sample] = []
    for row in rows:
        try:
            sample = _sample(row, options.videos, labels, file_column, names)
        except RowError as error:
            problems.add(row.file, row.number, str(error), row.unit)
            continue
        if sample is None:
            left_out["row without a label"] += 1
        else:
            samples.append(sample)
    samples, tasks = _tasks(samples, labels, names)
    return write_samples(samples, tasks, options, problems, left_out)


def read_metadata(file: Path, problems: Problems) -> list[Row]:
    """Read a metadata file of any of the three forms, noting what cannot be read."""
    if file.suffix == ".csv":
        return read_rows(file, (), lambda line, cells: [Row(file, line, "line", cells)], problems)
    if file.suffix == ".jsonl":
        return [Row(file, line, "line", cells) for line, cells in _json_lines(file, problems)]
    try:
        table = parquet.ParquetFile(file).read().to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        problems.add(file, None, f"not a readable Parquet file: {error}")
        return []
    return [Row(file, number, "row", cells) for number, cells in enumerate(table, 1)]


def _json_lines(file: Path, problems: Problems) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in numbered_lines(file, problems):
        try:
            cells = parse_json(line)
        except JSONError as error:
            problems.add(file, number, str(error))
            continue
        if isinstance(cells, dict):
            yield number, cells
        else:
            problems.add(file, number, f'must be an object such as {{"file_name": …}}, got {cells!r:.80}')


def _sample(
    row: Row, root: Path, labels: Sequence[str], file_column: str | None, names: Mapping[int, str] | None
) -> Sample | None:
    """Make a sample of a row; ``None`` if it lacks a label."""
    name = row.cells[_file_column(row.cells, file_column)]
    below = None if not isinstance(name, str) or not name or "\0" in name else inside(row.file.parent.resolve(), name)
    if below is None:
        raise RowError(f"the video must be a path below {row.file.parent}, got {name!r:.80}")
    values = {label: _label(row.cells, label, names) for label in labels}
    if any(value is None for value in values.values()):
        return None
    path = (PurePosixPath(row.file.parent.relative_to(root).as_posix()) / below).as_posix()
    known = {label: value for label, value in values.items() if value is not None}
    return Sample(path, path, _split(path), known, row.file, row.number, unit=row.unit)


def _file_column(cells: Mapping[str, Any], wanted: str | None) -> str:
    columns = [name for name in cells if name == FILE_NAME or name.endswith(f"_{FILE_NAME}")]
    if wanted is not None:
        columns = [wanted] if wanted in cells else []
    elif FILE_NAME in columns:
        columns = [FILE_NAME]
    if len(columns) > 1:
        raise RowError(f"several videos a row, in {', '.join(columns)}; choose one with --file-column")
    if not columns:
        several = next((name for name in cells if name.endswith("file_names")), None)
        hint = f"; {several!r:.80} lists several videos a row, which a manifest does not hold" if several else ""
        raise RowError(f"no column {wanted or FILE_NAME!r}{hint}")
    return columns[0]


def _label(cells: Mapping[str, Any], column: str, names: Mapping[int, str] | None) -> str | list[str] | None:
    if column not in cells:
        raise RowError(f"no column {column!r} for --label; there are {', '.join(map(repr, cells)):.200}")
    value = cells[column]
    if isinstance(value, list):
        return list(dict.fromkeys(_class(entry, column, names) for entry in value))
    return None if value is None or value == "" else _class(value, column, names)


def _class(value: Any, column: str, names: Mapping[int, str] | None) -> str:
    if type(value) not in (str, int) or not str(value).strip():
        raise RowError(f"{column} must be a class name, a class id or a list of these, got {value!r:.80}")
    text = str(value).strip()
    if names is None or text in names.values():
        return text
    named = names.get(int(text)) if text.isascii() and text.isdigit() and len(text) < 10 else None
    if named is None:
        raise RowError(f"unknown class {text!r:.80}; --classes has {len(names)} names")
    return named


def _split(path: str) -> Split:
    words = [SPLIT_NAMES[part.lower()] for part in PurePosixPath(path).parts[:-1] if part.lower() in SPLIT_NAMES]
    return words[0] if words else "train"


def _tasks(
    samples: Sequence[Sample], labels: Sequence[str], names: Mapping[int, str] | None
) -> tuple[list[Sample], dict[str, tuple[Sequence[str], LabelKind]]]:
    """Return the samples with lists of names where a task is multi-label, and the classes of each task."""
    tasks: dict[str, tuple[Sequence[str], LabelKind]] = {}
    for label in labels:
        values = [sample.labels[label] for sample in samples]
        several: LabelKind = "multi" if any(not isinstance(value, str) for value in values) else "single"
        found = {name for value in values for name in ([value] if isinstance(value, str) else value)}
        tasks[label] = (list(names.values()) if names else class_names(found), several)
    lists = {label for label, (_, several) in tasks.items() if several == "multi"}
    changed = [
        replace(
            sample,
            labels={
                label: [value] if label in lists and isinstance(value, str) else value
                for label, value in sample.labels.items()
            },
        )
        for sample in samples
    ]
    return changed, tasks
