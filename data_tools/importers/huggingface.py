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
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from data_tools.importers.folder import read_folder
from data_tools.importers.labels import id_classes, read_classes, with_names
from data_tools.importers.samples import Options, Reading, Sample
from data_tools.importers.tables import RowError, TableRow, read_rows
from data_tools.sources import SPLIT_NAMES, numbered_lines
from hoi_train.core.paths import inside
from hoi_train.core.records import LabelKind, Split, UserError
from hoi_train.core.strict_json import JSONError, parse_json
from hoi_train.data.manifest.problems import Problems

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"


def read_huggingface(
    options: Options,
    *,
    labels: Sequence[str] = ("label",),
    file_column: str | None = None,
    classes: Path | None = None,
) -> Reading:
    """Read a Hugging Face video folder, with or without metadata.

    Args:
        options: what every importer is told.
        labels: columns of the metadata that are tasks; without metadata, the name of the task.
        file_column: column of the path, if several end in file_name.
        classes: file of class names for labels that are ids; with one task only.

    Raises:
        UserError: no videos, or no metadata for options that need it.
    """
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
        return read_folder(options, task=labels[0])
    problems, remarks = Problems(), Counter[str]()
    samples: list[Sample] = []
    for row in (row for file in files for row in read_metadata(file, problems)):
        with row.faults_noted(problems):
            sample = _sample(row, options.videos, labels, file_column)
            samples += [sample] if sample else []
            remarks["left out, row without a label"] += sample is None
    kinds: dict[str, tuple[Sequence[str], LabelKind]] = {}
    for label in labels:
        several: LabelKind = "multi" if any(not isinstance(each.labels[label], str) for each in samples) else "single"
        kinds[label] = id_classes(name for sample in samples for name in sample.names(label)), several
    if classes:
        known = read_classes(classes, problems)
        samples = with_names(samples, labels[0], known, problems)
        kinds[labels[0]] = list(known.values()), kinds[labels[0]][1]
    return Reading(samples, kinds, problems, remarks)


def read_metadata(file: Path, problems: Problems) -> Iterator[TableRow]:
    """Yield the rows of a metadata file of any of the three forms, noting what cannot be read."""
    if file.suffix == ".csv":
        yield from read_rows(file, (), problems)
    elif file.suffix == ".jsonl":
        yield from _json_lines(file, problems)
    else:
        try:
            table = parquet.ParquetFile(file).read().to_pylist()
        except (pa.ArrowException, OSError, ValueError) as error:
            problems.add(file, None, f"not a readable Parquet file: {error}")
            return
        yield from (TableRow(file, number, cells, "row") for number, cells in enumerate(table, 1))


def _json_lines(file: Path, problems: Problems) -> Iterator[TableRow]:
    for number, line in numbered_lines(file, problems):
        try:
            cells = parse_json(line)
        except JSONError as error:
            problems.add(file, number, str(error))
            continue
        if isinstance(cells, dict):
            yield TableRow(file, number, cells)
        else:
            problems.add(file, number, f'must be an object such as {{"file_name": …}}, got {cells!r:.80}')


def _sample(row: TableRow, root: Path, labels: Sequence[str], file_column: str | None) -> Sample | None:
    """Return the sample of a row; ``None`` if it lacks a label."""
    folder = row.file.parent
    name = row[_file_column(row.cells, file_column)]
    below = None if not isinstance(name, str) or not name or "\0" in name else inside(folder.resolve(), name)
    if below is None:
        raise RowError(f"the video must be a path below {folder}, got {name!r:.80}")
    values = {label: _label(row.cells, label) for label in labels}
    known = {label: value for label, value in values.items() if value is not None}
    if len(known) < len(values):
        return None
    path = (PurePosixPath(folder.relative_to(root).as_posix()) / below).as_posix()
    return Sample(path, path, _split(path), known, row.file, row.number, row.unit)


def _file_column(cells: Mapping[str, Any], wanted: str | None) -> str:
    columns = [name for name in cells if name == FILE_NAME or name.endswith(f"_{FILE_NAME}")]
    if wanted is not None:
        columns = [wanted] if wanted in cells else []
    elif FILE_NAME in columns:
        columns = [FILE_NAME]
    if len(columns) > 1:
        raise RowError(f"several videos per row, in {', '.join(columns)}; choose one with --file-column")
    if not columns:
        several = next((name for name in cells if name.endswith("file_names")), None)
        hint = f"; {several!r:.80} lists several videos per row, which a manifest does not hold" if several else ""
        raise RowError(f"no column {wanted or FILE_NAME!r}{hint}")
    return columns[0]


def _label(cells: Mapping[str, Any], column: str) -> str | list[str] | None:
    """Return the label in a column, or the labels in its list."""
    if column not in cells:
        raise RowError(f"no column {column!r} for --label; there are {', '.join(map(repr, cells)):.200}")
    value = cells[column]
    if value is None or value == "":
        return None
    texts = [_text(entry, column) for entry in (value if isinstance(value, list) else [value])]
    return list(dict.fromkeys(texts)) if isinstance(value, list) else texts[0]


def _text(value: Any, column: str) -> str:
    if type(value) not in (str, int) or not str(value).strip():
        raise RowError(f"{column} must be a class name, a class id or a list of these, got {value!r:.80}")
    return str(value).strip()


def _split(path: str) -> Split:
    words = [SPLIT_NAMES[part.lower()] for part in PurePosixPath(path).parts[:-1] if part.lower() in SPLIT_NAMES]
    return words[0] if words else "train"
