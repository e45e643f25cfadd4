"""The manifest's three formats: Parquet, csv and jsonl.

What cannot be read is noted with its line or row; values are checked in ``checks``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from hoi_train.core.disk import sync, whole_file, write_whole
from hoi_train.core.records import ClassList, Task
from hoi_train.core.strict_json import JSONError, parse_json
from hoi_train.data.manifest.columns import (
    BATCH,
    DESCRIBED,
    NEEDED,
    NOT_IN_CSV,
    RawTable,
    column_types,
    note_columns,
    raw_from_rows,
    raw_from_table,
    whole,
)
from hoi_train.data.manifest.problems import ManifestError, Problems
from hoi_train.data.manifest.tasks import DATASET_FILE, read_dataset

FORMATS = (".parquet", ".csv", ".jsonl")
SEPARATOR = "|"  # between the classes of a multi-label cell in csv
ROW_GROUP = 1 << 25  # bytes of a Parquet file written or read at a time, needed beside the table itself


def read_raw(file: Path, tasks: Sequence[Task], problems: Problems, *, tracks: bool = True) -> RawTable:
    """Read a manifest in the format of its suffix, with or without tracks; what cannot be read is noted."""
    types = column_types(tasks)
    raw = _read(file, types, problems, tracks)
    if not tracks:
        raw.columns["tracks"] = pa.nulls(len(raw), types["tracks"])
    return raw


def _column_names(file: Path) -> Sequence[str]:
    """Return the names in a table's header, of jsonl in its first row; none if they cannot be read."""
    try:
        if file.suffix == ".parquet":
            return list(parquet.read_schema(file).names)
        with file.open(encoding="utf-8-sig") as stream:
            head = next((line for line in stream if line.strip()), "")
        return next(csv.reader([head]), []) if file.suffix == ".csv" else list(parse_json(head))
    except (pa.ArrowException, csv.Error, OSError, ValueError, TypeError):
        return []


def _read(file: Path, types: Mapping[str, Any], problems: Problems, tracks: bool) -> RawTable:
    if file.suffix == ".parquet":
        return _read_parquet(file, types, problems, tracks)
    if file.suffix == ".csv":
        return _read_csv(file, types, problems)
    return raw_from_rows(file, _json_rows(file, problems), types, "line", problems)


def write_raw(file: Path, raw: RawTable) -> None:
    """Write the columns that hold anything, in the format of the suffix."""
    used = {name: column for name, column in raw.columns.items() if column.null_count < len(column)}
    table = pa.table(used)
    if file.suffix == ".parquet":
        rows = max(1, table.num_rows * ROW_GROUP // max(1, table.nbytes))
        parquet.write_table(table, file, compression="zstd", row_group_size=rows)
    elif file.suffix == ".csv":
        with file.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(table.column_names)
            writer.writerows([_cell(value) for value in row.values()] for row in _rows(table))
    else:
        with file.open("w", encoding="utf-8") as stream:
            for row in _rows(table):
                kept = {name: value for name, value in row.items() if value is not None}
                stream.write(json.dumps(kept, ensure_ascii=False) + "\n")


def _rows(table: Any) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(BATCH):
        yield from batch.to_pylist()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return SEPARATOR.join(value)
    return str(value)


def _read_parquet(file: Path, types: Mapping[str, Any], problems: Problems, tracks: bool) -> RawTable:
    try:
        opened = parquet.ParquetFile(file)
        names = None if tracks else [name for name in opened.schema_arrow.names if name != "tracks"]
        groups = [opened.read_row_group(number, names) for number in range(opened.num_row_groups)]
        table = pa.concat_tables(groups) if groups else opened.read()
    except (pa.ArrowException, OSError) as error:
        problems.add(file, None, f"not a readable Parquet file: {error}")
        table = pa.table({name: pa.array([], wanted) for name, wanted in types.items()})
    return raw_from_table(file, table, types, problems)


def _json_rows(file: Path, problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            line = line.strip()
            row = _json_row(line) if line else ""
            if isinstance(row, dict):
                yield number, row
            elif row:
                problems.add(file, number, row)


def _json_row(line: bytes) -> dict[str, Any] | str:
    """Return the object on a line, or the line's fault."""
    try:
        row = parse_json(line)
    except JSONError as error:
        return str(error)
    return row if isinstance(row, dict) else f'must be a JSON object such as {{"clip_id": …}}, got {row!r:.80}'


def _read_csv(file: Path, types: Mapping[str, Any], problems: Problems) -> RawTable:
    table, skipped = _parse_csv(file, _sound_lines(file, problems), types, problems)
    note_columns(file, table.column_names, types, 1, problems)
    numbers = np.setdiff1d(np.arange(2, table.num_rows + len(skipped) + 2), np.array(skipped, np.int64))
    texts = {name: whole(table.column(name)) for name in types if table.column_names.count(name) == 1}
    blank = np.ones(table.num_rows, bool)
    for column in table.columns:
        blank &= np.asarray(column.is_null())
    return _typed_csv(file, texts, numbers, ~blank, types, problems)


def _parse_csv(file: Path, data: bytes, types: Mapping[str, Any], problems: Problems) -> tuple[Any, list[int]]:
    """Return the cells as text, and the numbers of the lines that do not fit the header."""
    skipped: list[int] = []

    def refuse(row: Any) -> str:
        skipped.append(row.number)
        text = f"{row.actual_columns} cells where the header has {row.expected_columns}: {row.text!r:.80}"
        problems.add(file, row.number, text)
        return "skip"

    # one thread, one block, empty lines kept: needed for line numbers
    reading = arrow_csv.ReadOptions(use_threads=False, block_size=min(max(1 << 20, len(data) + 1), 2**31 - 1))
    parsing = arrow_csv.ParseOptions(invalid_row_handler=refuse, ignore_empty_lines=False)
    as_text = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(types, pa.string()), strings_can_be_null=True, null_values=[""]
    )
    if separator := _other_separator(data):
        problems.add(file, 1, f"cells are separated by {separator!r}; a csv manifest needs commas")
    elif data.strip():
        try:
            return arrow_csv.read_csv(io.BytesIO(data), reading, parsing, as_text), skipped
        except pa.ArrowException as error:
            problems.add(file, None, f"not readable as csv: {error}")
    return pa.table({}), []


def _other_separator(data: bytes) -> str | None:
    """Return the header's separator if it is not a comma; many locales' spreadsheets write semicolons."""
    header = data.split(b"\n", 1)[0]
    return next((other.decode() for other in (b";", b"\t") if other in header and b"," not in header), None)


def _sound_lines(file: Path, problems: Problems) -> bytes:
    """Blank out unreadable lines, so that the others keep their numbers."""
    data = file.read_bytes().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        data.decode()
        if b'"' not in data:
            return data
    except UnicodeDecodeError:
        pass
    lines = data.split(b"\n")
    for position, line in enumerate(lines):
        fault = None
        if line.count(b'"') % 2:
            fault = "a quote is not closed on its line"
        try:
            line.decode()
        except UnicodeDecodeError as error:
            fault = (
                f"not UTF-8 text: byte 0x{line[error.start]:02x} at column {error.start + 1}; save the file as UTF-8"
            )
        if fault:
            problems.add(file, position + 1, fault)
            lines[position] = b""
    return b"\n".join(lines)


def _typed_csv(
    file: Path,
    texts: dict[str, Any],
    numbers: NDArray[np.int64],
    kept: NDArray[np.bool_],
    types: Mapping[str, Any],
    problems: Problems,
) -> RawTable:
    raw = RawTable(file, {}, numbers[kept], "line", {})
    for name, wanted in types.items():
        text = texts[name].filter(pa.array(kept)) if name in texts else pa.nulls(len(raw), pa.string())
        if name in NOT_IN_CSV:
            if text.null_count < len(text):
                problems.add(file, 1, f"column {name!r} cannot be held by csv; use .parquet or .jsonl")
            raw.columns[name] = pa.nulls(len(raw), wanted)
        elif pa.types.is_list(wanted):
            cells = pc.split_pattern(pc.fill_null(text, ""), SEPARATOR)
            none = pa.array([[]], wanted)[0]
            raw.columns[name] = pc.if_else(text.is_null(), none, cells) if name in texts else pa.nulls(len(raw), wanted)
        elif wanted == pa.string():
            raw.columns[name] = text
        else:
            raw.columns[name] = _parsed(raw, name, text, wanted, problems)
    return raw


def _parsed(raw: RawTable, name: str, text: Any, wanted: Any, problems: Problems) -> Any:
    """Parse one csv column of numbers; other cells are noted."""
    try:
        return text.cast(wanted)
    except pa.ArrowException:
        pass
    values = text.to_pylist()
    bad = []
    for position, cell in enumerate(values):
        try:
            values[position] = None if cell is None else pa.scalar(cell).cast(wanted).as_py()
        except pa.ArrowException:
            bad.append(position)
            values[position] = None
    raw.refused[name] = set(bad)
    raw.note(problems, bad, lambda i: f"{name} must be {DESCRIBED[str(wanted)]}, got {text[i].as_py()!r:.80}")
    return pa.array(values, type=wanted)


def replace_both(path: Path, raw: RawTable, description: str) -> None:
    """Write a manifest and its ``dataset.json``, neither of which is replaced before both are on disk."""
    with whole_file(path) as waiting:
        write_raw(waiting, raw)
        sync(waiting)
        write_whole(path.parent / DATASET_FILE, description)


def check_neighbours(
    path: Path, root: Path, tasks: Sequence[Task], object_classes: ClassList | None, problems: Problems
) -> None:
    """Note another manifest in the folder that needs another ``dataset.json`` than the one to be written."""
    described = path.parent / DATASET_FILE
    if not described.is_file():
        return
    files = sorted(file for file in path.parent.iterdir() if file.suffix in FORMATS and file.name[0] != ".")
    others = [file.name for file in files if file.name != path.name and {*_column_names(file)} >= NEEDED]
    try:
        there, *classes = read_dataset(path.parent)
        alike = there.resolve() == root.resolve() and classes == [{task.name: task for task in tasks}, object_classes]
    except (ManifestError, OSError, RuntimeError):  # damaged, and not ours to replace
        alike = False
    if others and not alike:
        text = f"describes {', '.join(others):.200}; {path.name} has another root or other classes"
        problems.add(described, None, f"{text}: write to another folder, or remove the other manifest")
