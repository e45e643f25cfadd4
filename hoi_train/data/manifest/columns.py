"""The columns of a manifest: their types, and the conversion of Arrow tables and Python rows to them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from hoi_train.core.records import Task, nearest
from hoi_train.data.manifest.problems import LISTED, Problems

BATCH = 8_192  # rows converted at a time; limits the Python objects in memory
COLUMNS_NAMED = 10  # unknown columns named one by one
NEEDED = frozenset({"clip_id", "path", "split"})
FORMER = frozenset({"seekable"})  # columns of older manifests, ignored

_BOX = pa.list_(pa.float64())
PAIRS = pa.list_(
    pa.struct(
        [
            ("frame", pa.int64()),
            ("person_id", pa.int64()),
            ("object_id", pa.int64()),
            ("person_box", _BOX),
            ("object_box", _BOX),
            ("object_class", pa.string()),
            ("predicates", pa.list_(pa.string())),
        ]
    )
)
# Detected pairs: no labels, but a score of each box.
DETECTED = pa.list_(
    pa.struct([*list(PAIRS.value_type)[:-1], ("person_score", pa.float64()), ("object_score", pa.float64())])
)
# Of tens of millions of boxes: half the memory of float64, and exact for whole pixels.
_BOXES = pa.list_(pa.list_(pa.float32()))
TRACKS = pa.list_(pa.struct([("track_id", pa.int64()), ("start_frame", pa.int64()), ("boxes", _BOXES)]))
NOT_IN_CSV = {"pairs": PAIRS, "tracks": TRACKS}


@dataclass
class RawTable:
    """An unchecked manifest: every column with its type, labels as names.

    Args:
        file: the source.
        columns: arrays of one length, ``tracks`` possibly in chunks; a column missing in the file is all null.
        numbers: int64 ``[rows]``, line or row of the file of each row, from 1.
        unit: what ``numbers`` counts.
        refused: by column, positions of values that could not be read; they are null and noted already.
    """

    file: Path
    columns: dict[str, Any]
    numbers: NDArray[np.int64]
    unit: Literal["line", "row"]
    refused: dict[str, set[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.numbers)

    def note(self, problems: Problems, rows: Sequence[int], text: str | Callable[[int], str]) -> None:
        """Note one problem per row at these positions, ascending, with one text or a text of each."""
        words = (lambda _: text) if isinstance(text, str) else text
        problems.add_rows(self.file, rows, words, lambda row: int(self.numbers[row]), self.unit)


def column_types(tasks: Iterable[Task]) -> dict[str, Any]:
    """Return the Arrow types of all columns of a manifest with these tasks."""
    types = {
        "clip_id": pa.string(),
        "path": pa.string(),
        "start": pa.float64(),
        "end": pa.float64(),
        "split": pa.string(),
        "group": pa.string(),
        "num_frames": pa.int64(),
        "fps": pa.float64(),
        "width": pa.int64(),
        "height": pa.int64(),
    }
    for task in tasks:
        if task.of == "clip":
            types[task.name] = pa.string() if task.labels == "single" else pa.list_(pa.string())
    return {**types, **NOT_IN_CSV}


def raw_from_table(file: Path, table: Any, types: Mapping[str, Any], problems: Problems) -> RawTable:
    """Cast the columns of an Arrow table to the types of a manifest."""
    note_columns(file, table.column_names, types, None, problems)
    columns = {}
    for name, wanted in types.items():
        column = table.column(name) if table.column_names.count(name) == 1 else pa.nulls(table.num_rows)
        try:
            if _kind(column.type) not in (_kind(wanted), "null"):
                raise pa.ArrowTypeError("cast() would parse text, and print numbers")
            columns[name] = _held(name, column.cast(wanted, safe=wanted != pa.float64()))  # it may round
        except (pa.ArrowException, ValueError):
            problems.add(file, None, f"column {name!r} holds {column.type}, it must hold {DESCRIBED[str(wanted)]}")
            columns[name] = pa.nulls(table.num_rows, wanted)
    return RawTable(file, columns, np.arange(1, table.num_rows + 1), "row")


def raw_from_rows(
    file: Path,
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    types: Mapping[str, Any],
    unit: Literal["line", "row"],
    problems: Problems,
) -> RawTable:
    """Collect numbered rows of Python values into columns; wrong types and unknown columns are noted."""
    chunks: dict[str, list[Any]] = {name: [] for name in types}
    raw = RawTable(file, {}, np.empty(0, np.int64), unit, {name: set() for name in types})
    numbers: list[int] = []
    unknown: dict[str, int] = {}
    rows = iter(rows)
    while batch := list(islice(rows, BATCH)):
        for number, row in batch:
            if not row.keys() <= types.keys() | FORMER and len(unknown) < LISTED:
                for key in row.keys() - types.keys() - FORMER:
                    unknown.setdefault(key, number)
        for name, wanted in types.items():
            values = [row.get(name) for _, row in batch]
            for position in _make_fit(values, wanted):
                came = batch[position][1][name]
                text = f"{name} must be {DESCRIBED[str(wanted)]}, got {came!r:.80}"
                problems.add(file, batch[position][0], text, unit)
                raw.refused[name].add(len(numbers) + position)
            chunks[name].append(pa.array(values, type=wanted))
        numbers += [number for number, _ in batch]
    for number, keys in groupby(unknown, key=unknown.__getitem__):
        note_columns(file, list(keys), types, number, problems, unit)
    raw.columns = {name: _held(name, pa.chunked_array(chunks[name], type=wanted)) for name, wanted in types.items()}
    raw.numbers = np.array(numbers, np.int64)
    return raw


def note_columns(
    file: Path,
    names: Sequence[str],
    types: Mapping[str, Any],
    number: int | None,
    problems: Problems,
    unit: Literal["line", "row"] = "line",
) -> None:
    """Note unknown and repeated columns."""
    unknown = [name for name in dict.fromkeys(names) if name not in types and name not in FORMER]
    for name in unknown[:COLUMNS_NAMED]:
        hint = nearest(name[:80], list(types))
        problems.add(file, number, f"unknown column {name!r:.80}{hint} (known: {', '.join(types)})", unit)
    if len(unknown) > COLUMNS_NAMED:
        problems.add(file, number, f"… and {len(unknown) - COLUMNS_NAMED} more unknown columns", unit)
    for name, count in Counter(names).items():
        if count > 1 and name in types:
            problems.add(file, number, f"column {name!r} occurs twice", unit)


def _held(name: str, column: Any) -> Any:
    """Return a column as one array; tracks, most of a manifest's memory, stay in chunks, uncopied."""
    return column if name == "tracks" else whole(column)


def whole(column: Any) -> Any:
    """Return a chunked array as one array."""
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # a copy even of one
    return column


def _kind(type_: Any) -> str:
    """Return what an Arrow type holds, independent of width and encoding."""
    if pa.types.is_dictionary(type_):
        return _kind(type_.value_type)
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        return f"list of {_kind(type_.value_type)}"
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return "text"
    if pa.types.is_integer(type_) or pa.types.is_floating(type_):
        return "number"
    return "struct" if pa.types.is_struct(type_) else str(type_)


def _is_texts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(entry, str) for entry in value)


def _is_number(value: Any) -> bool:
    if isinstance(value, (int, np.integer)):
        return not isinstance(value, bool) and -(2**63) <= int(value) < 2**63
    return isinstance(value, (float, np.floating))


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and _is_number(value)


# name of the Arrow type → text for the user
DESCRIBED = {
    "string": "text",
    "double": "a number",
    "int64": "a whole number",
    "list<item: string>": "a list of class names",
    str(PAIRS): f"a list of pairs, each with {', '.join(field.name for field in PAIRS.value_type)}",
    str(DETECTED): f"a list of pairs, each with {', '.join(field.name for field in DETECTED.value_type)}",
    str(TRACKS): f"a list of tracks, each with {', '.join(field.name for field in TRACKS.value_type)}",
}
_FITS: dict[str, tuple[frozenset[type], Callable[[Any], bool]]] = {
    "string": (frozenset({str, type(None)}), lambda value: isinstance(value, str)),
    "double": (frozenset({float, type(None)}), _is_number),
    "int64": (frozenset({type(None)}), _is_whole),
    "list<item: string>": (frozenset({type(None)}), _is_texts),
}


def _make_fit(values: list[Any], wanted: Any) -> list[int]:
    """Convert values to fit an Arrow type, in place; others become ``None`` and their positions are returned."""
    bad = []
    exact, fits = _FITS.get(str(wanted), (frozenset({type(None)}), lambda value: _is_records(value, wanted)))
    for position, value in enumerate(values):
        if type(value) in exact:
            continue
        if wanted == pa.string() and isinstance(value, os.PathLike):
            values[position] = os.fspath(value)
        elif not fits(value):
            values[position] = None
            bad.append(position)
        elif wanted == pa.float64():
            values[position] = float(value)  # Arrow refuses integers above 2**53
    if wanted in (pa.string(), pa.list_(pa.string())):
        bad += _not_unicode(values, wanted)
    return bad


def _not_unicode(values: list[Any], wanted: Any) -> list[int]:
    """Blank out text with lone surrogates, possible in JSON escapes and file names but not in Arrow."""
    try:
        pa.array(values, type=wanted)
    except UnicodeEncodeError:
        bad = [position for position, value in enumerate(values) if "\\ud" in ascii(value) and _is_broken(value)]
        for position in bad:
            values[position] = None
        return bad
    return []


def _is_broken(value: Any) -> bool:
    try:
        "".join(value).encode()
    except UnicodeEncodeError:
        return True
    return False


def _is_records(value: Any, wanted: Any) -> bool:
    if not isinstance(value, (list, tuple)) or not all(isinstance(entry, Mapping) for entry in value):
        return False
    try:
        pa.array([value], type=wanted)
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        return False
    return True
