"""Checks of a manifest's values, on whole columns at once; class names become class ids."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from hoi_train.core.paths import CONTROL, inside, is_plain, real_folder
from hoi_train.core.records import SPLITS, ClassList, Task, nearest
from hoi_train.data.manifest.columns import RawTable
from hoi_train.data.manifest.problems import Problems

Mask = NDArray[np.bool_]

_UPWARDS = r"(^|/)\.\.(/|$)"
_DETOUR = r"(^|/)\.?(/|$)"  # an absolute path, or one with parts that lead nowhere
MOST = 2**31 - 1  # frames, or pixels
_NO_TRACK = "a pair names a person_id or object_id that has no track; a row has all of them or no tracks"
_PAIR_KEYS = ("frame", "person_id", "object_id")
_TWO_PAIRS = "a pair occurs twice in its frame; give it once"
_NO_BOX = "is not [x0, y0, x1, y1] with x0 < x1, y0 < y1"


def check(
    raw: RawTable, tasks: Sequence[Task], root: Path, problems: Problems, object_classes: ClassList | None = None
) -> Any:
    """Check every value and return the table with class ids; it is valid only if nothing was noted.

    Paths and missing groups, which can be written in several ways, are normalised in ``raw``.
    """
    checker = _ValueChecker(raw, problems)
    if not len(raw):
        if not problems.total:
            problems.add(raw.file, None, "no clips: the file is empty or has only a header")
        return None
    checker.clip_ids()
    checker.paths(root)
    checker.groups()
    checker.splits()
    checker.times()
    coded = {task.name: checker.labels(task) for task in tasks if task.of == "clip"}
    checker.pairs([name for task in tasks if task.of == "pair" for name in task.classes], object_classes)
    checker.tracks()
    columns = {name: coded.get(name, column) for name, column in raw.columns.items()}
    for name in ("split", "group"):
        columns[name] = columns[name].dictionary_encode()
    return pa.table(columns)


def _mask(values: Any) -> Mask:
    """Convert an Arrow boolean column to numpy, null to False."""
    return np.asarray(pc.fill_null(values, False))


def _repeated(*keys: NDArray[np.int64]) -> Mask:
    """Return which entries equal an earlier one in all keys."""
    order = np.lexsort(keys)
    again = np.zeros(len(order), bool)
    again[order[1:]] = np.logical_and.reduce([key[order[1:]] == key[order[:-1]] for key in keys])
    return again


def _below(root: Path, path: str, resolve: Callable[[Path], Path]) -> str | None:
    """Return `inside`, but the unchanged path if a link leads to a name that a manifest cannot hold."""
    straight = inside(root, path, resolve)
    return straight if straight is None or is_plain(straight) else path


class _ValueChecker:
    """Check one manifest; each method checks and notes one group of columns."""

    def __init__(self, raw: RawTable, problems: Problems) -> None:
        self.raw = raw
        self.problems = problems

    def note(self, column: str, bad: Mask, text: str | Callable[[int], str]) -> None:
        """Note the rows of a mask, except those whose value in the column is noted already."""
        rows = np.flatnonzero(bad)
        refused = self.raw.refused.get(column)
        if refused:
            rows = np.array([row for row in rows.tolist() if row not in refused], np.int64)
        self.raw.note(self.problems, rows.tolist(), text)

    def value(self, column: str, row: int) -> Any:
        return self.raw.columns[column][row].as_py()

    def required(self, column: str) -> Any:
        """Return a required column; rows without a value are noted."""
        values = self.raw.columns[column]
        if values.null_count == len(values) and not self.raw.refused.get(column):
            self.problems.add(self.raw.file, None, f"column {column!r} is missing; every clip needs it")
        else:
            empty = _mask(values.is_null())
            if values.type == pa.string():
                empty |= _mask(pc.equal(values, ""))
            hint = "; write an empty list for none" if pa.types.is_list(values.type) else ""
            self.note(column, empty, f"{column} is empty{hint}")
        return values

    def must_be(self, column: str, words: str, row: int) -> str:
        return f"{column} must be {words}, got {self.value(column, row)}"

    def clip_ids(self) -> None:
        values = self.required("clip_id")
        self.control_characters("clip_id")
        codes = np.asarray(pc.fill_null(values.dictionary_encode().indices, -1))
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        repeated = (first[inverse] != np.arange(len(codes))) & (codes >= 0)

        def text(row: int) -> str:
            taken = f"{self.raw.unit} {self.raw.numbers[first[inverse[row]]]}"
            return f"clip_id {self.value('clip_id', row)!r:.80} is taken by {taken}; ids must be unique"

        self.note("clip_id", repeated, text)

    def control_characters(self, column: str) -> Mask:
        bad = _mask(pc.match_substring_regex(self.raw.columns[column], CONTROL))
        self.note(column, bad, lambda row: f"{column} {self.value(column, row)!r:.80} contains control characters")
        return bad

    def paths(self, root: Path) -> None:
        values = self.required("path")
        odd = self.control_characters("path")
        outside = _mask(pc.match_substring_regex(values, _UPWARDS))
        below = pc.utf8_slice_codeunits(values, len(f"{root}/"))
        is_below = pc.starts_with(values, os.fsencode(f"{root}/"))
        straight = pc.if_else(pc.and_(is_below, pc.invert(pc.match_substring_regex(below, _DETOUR))), below, values)
        detours = _mask(pc.match_substring_regex(straight, _DETOUR)) & _mask(pc.not_equal(values, "")) & ~outside & ~odd
        resolve = lru_cache(real_folder)  # few folders hold many clips
        paths = [_below(root, path, resolve) for path in values.filter(pa.array(detours)).to_pylist()]
        outside[detours] = [path is None for path in paths]
        self.note("path", outside, lambda row: f"path {self.value('path', row)!r:.80} leaves the data root {root}")
        self.raw.columns["path"] = pc.replace_with_mask(straight, pa.array(detours), pa.array(paths, pa.string()))

    def groups(self) -> None:
        values = self.raw.columns["group"]
        self.raw.columns["group"] = pc.if_else(pc.equal(values, ""), None, values)

    def splits(self) -> None:
        values = self.required("split")
        bad = ~_mask(pc.is_in(values, pa.array(SPLITS))) & ~_mask(pc.equal(pc.fill_null(values, ""), ""))

        def text(row: int) -> str:
            came = self.value("split", row)
            return f"split {came!r:.80} is not one of {', '.join(SPLITS)}{nearest(came[:80], SPLITS)}"

        self.note("split", bad, text)

    def times(self) -> None:
        columns = self.raw.columns
        sound = {}
        for name, least, most, words in (
            ("start", 0.0, np.inf, "seconds >= 0"),
            ("end", 0.0, np.inf, "seconds >= 0"),
            ("fps", np.nextafter(0, 1), np.inf, "frames per second > 0"),
            ("num_frames", 1, MOST, f"1 to {MOST}"),
            ("width", 1, MOST, f"pixels, 1 to {MOST}"),
            ("height", 1, MOST, f"pixels, 1 to {MOST}"),
        ):
            values = np.asarray(pc.fill_null(columns[name], 1))
            sound[name] = np.isfinite(values) & (values >= least) & (values <= most)
            self.note(name, ~sound[name], partial(self.must_be, name, words))
        lone = _mask(columns["width"].is_null()) != _mask(columns["height"].is_null())
        self.note("width", lone, "width and height are given together or not at all")
        start = np.asarray(pc.fill_null(columns["start"], 0.0))
        end = np.asarray(pc.fill_null(columns["end"], np.inf))
        wrong = (start >= end) & sound["start"] & sound["end"]
        self.note("end", wrong, lambda row: f"start {start[row]} is not before end {end[row]}")

    def labels(self, task: Task) -> Any:
        values = self.required(task.name)
        names = pa.array(task.classes.names)
        flat, owners = values, np.arange(len(values))
        if task.labels == "multi":
            values = pc.fill_null(values, pa.scalar([], values.type))
            flat, owners = pc.list_flatten(values), np.asarray(pc.list_parent_indices(values))
        ids = pc.index_in(flat, names)
        unknown = _mask(ids.is_null())
        if task.labels == "single":
            unknown &= ~_mask(pc.equal(pc.fill_null(flat, ""), ""))
        self.note_entries(task.name, flat, owners, unknown, task.classes.names)
        if task.labels == "single":
            return ids
        codes = np.asarray(pc.fill_null(ids, -1))
        self.note_repeated(task.name, task.name, owners, owners, codes, task.classes.names)
        codes = codes[np.lexsort((codes, owners))]
        lengths = np.asarray(pc.list_value_length(values))
        return pa.ListArray.from_arrays(
            pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), pa.array(codes)
        )

    def note_repeated(
        self,
        column: str,
        one: str,
        rows: NDArray[np.int64],
        lists: NDArray[np.int64],
        codes: NDArray[np.int64],
        names: Sequence[str],
    ) -> None:
        """Note repeated classes of a list; entries have rows, lists and class ids, -1 for unknown."""
        twice = np.flatnonzero(_repeated(codes, lists) & (codes >= 0))
        repeated = {int(rows[entry]): names[codes[entry]] for entry in twice}
        bad = np.zeros(len(self.raw), bool)
        bad[list(repeated)] = True
        self.note(column, bad, lambda row: f"{one} names {repeated[row]!r} twice")

    def note_entries(
        self, column: str, flat: Any, owners: NDArray[np.int64], bad: Mask, allowed: Sequence[str]
    ) -> None:
        """Note unknown classes in lists, the first of each row."""
        entries = np.flatnonzero(bad)
        first = dict(zip(owners[entries].tolist()[::-1], entries.tolist()[::-1], strict=True))
        rows = np.zeros(len(self.raw), bool)
        rows[list(first)] = True

        def text(row: int) -> str:
            came = flat[first[row]].as_py()
            return f"{column}: unknown class {came!r:.80}{nearest(str(came)[:80], allowed)}"

        self.note(column, rows, text)

    def pairs(self, predicates: Sequence[str], object_classes: ClassList | None) -> None:
        column = self.raw.columns["pairs"]
        if column.null_count == len(column):
            return
        if not predicates:
            self.problems.add(self.raw.file, None, 'column \'pairs\' needs a task with "of": "pair" in dataset.json')
            return
        flat, owners, sound, lacking = _records(column, "a pair")
        for text, rows in lacking.items():
            self.note_rows("pairs", rows, text)
        negative = _mask(pc.less(pc.struct_field(flat, "frame"), 0))
        self.note_rows("pairs", owners[sound & negative], "a pair has a negative frame")
        for name in ("person_box", "object_box"):
            bad = sound & ~_sound_boxes(pc.struct_field(flat, name))
            self.note_rows("pairs", owners[bad], f"{name} of a pair {_NO_BOX}")
        if object_classes is not None:
            names = pc.struct_field(flat, "object_class")
            unknown = sound & ~_mask(pc.is_in(names, pa.array(object_classes.names)))
            self.note_entries("pairs: object_class", names, owners, unknown, object_classes.names)
        keys = [np.asarray(pc.fill_null(pc.struct_field(flat, name), 0)) for name in _PAIR_KEYS]
        self.note_rows("pairs", owners[sound][_repeated(*(key[sound] for key in (*keys, owners)))], _TWO_PAIRS)
        lists = pc.struct_field(flat, "predicates")
        names, holders = pc.list_flatten(lists), np.asarray(pc.list_parent_indices(lists))
        ids = np.asarray(pc.fill_null(pc.index_in(names, pa.array(predicates)), -1))
        self.note_entries("pairs", names, owners[holders], ids < 0, predicates)
        self.note_repeated("pairs", "a pair", owners[holders], holders, ids, predicates)

    def tracks(self) -> None:
        column = self.raw.columns["tracks"]
        if column.null_count == len(column):
            return
        ids, owners, noted, start = [], [], defaultdict[str, list[NDArray[np.int64]]](list), 0
        for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            chunk_ids, chunk_owners, faults = _track_faults(chunk)
            for text, rows in faults.items():
                noted[text].append(start + rows)
            ids.append(chunk_ids)
            owners.append(start + chunk_owners)
            start += len(chunk)
        for text, lists in noted.items():
            self.note_rows("tracks", np.concatenate(lists), text)
        self.track_ids(np.concatenate(owners), np.concatenate(ids))

    def track_ids(self, rows: NDArray[np.int64], ids: NDArray[np.int64]) -> None:
        """Note ids that occur twice in a row, and pairs without a track in a row that has tracks."""
        pairs = self.raw.columns["pairs"]
        flat, owners = pc.list_flatten(pairs), np.asarray(pc.list_parent_indices(pairs))
        named = [pc.struct_field(flat, name).drop_null() for name in ("person_id", "object_id")]
        if any(len(of) < len(flat) for of in named):
            return  # noted already
        different, codes = np.unique(np.concatenate([ids, *map(np.asarray, named)]), return_inverse=True)
        places = np.concatenate([rows, owners, owners])
        keys = places * len(different) + codes
        tracked, first = np.unique(keys[: len(ids)], return_index=True)
        twice = np.ones(len(ids), bool)
        twice[first] = False
        self.note_rows("tracks", rows[twice], "two tracks have the same track_id")
        self.note_rows("tracks", places[~np.isin(keys, tracked) & np.isin(places, rows)], _NO_TRACK)

    def note_rows(self, column: str, rows: NDArray[np.int64], text: str) -> None:
        bad = np.zeros(len(self.raw), bool)
        bad[rows] = True
        self.note(column, bad, text)


FaultyRows = dict[str, NDArray[np.int64]]  # by fault


def _records(values: Any, one: str) -> tuple[Any, NDArray[np.int64], Mask, FaultyRows]:
    """Return the structs in lists, the list of each, which are without null, and the lists with other structs."""
    flat, owners = pc.list_flatten(values), np.asarray(pc.list_parent_indices(values))
    sound = ~_mask(flat.is_null())
    lacking = {f"{one} is null": owners[~sound]}
    for field in flat.type:
        present = ~_mask(pc.struct_field(flat, field.name).is_null())
        lacking[f"{one} lacks {field.name}"] = owners[sound & ~present]
        sound &= present
    return flat, owners, sound, lacking


def _track_faults(values: Any) -> tuple[NDArray[np.int64], NDArray[np.int64], FaultyRows]:
    """Return the track ids of the lists without null, the list of each, and the faulty lists."""
    flat, owners, sound, faults = _records(values, "a track")
    negative = _mask(pc.less(pc.struct_field(flat, "start_frame"), 0))
    faults["a track has a negative start_frame"] = owners[sound & negative]
    lists = pc.struct_field(flat, "boxes")
    empty = _mask(pc.equal(pc.list_value_length(lists), 0))
    faults["a track has no boxes"] = owners[sound & empty]
    bad = ~_sound_boxes(pc.list_flatten(lists))
    if bad.any():
        faults[f"a box of a track {_NO_BOX}"] = owners[np.asarray(pc.list_parent_indices(lists))[bad]]
    whole = ~np.isin(owners, owners[~sound])
    return np.asarray(pc.fill_null(pc.struct_field(flat, "track_id"), 0))[whole], owners[whole], faults


def _sound_boxes(boxes: Any) -> Mask:
    """Return which lists are four finite numbers x0 < x1, y0 < y1."""
    sound: Mask = np.asarray(pc.fill_null(pc.list_value_length(boxes), 0)) == 4
    four = boxes if sound.all() else boxes.filter(pa.array(sound))
    values = pc.list_flatten(four)
    values = pc.fill_null(values, np.nan) if values.null_count else values
    corners = np.asarray(values).reshape(-1, 4)
    ordered = (corners[:, 0] < corners[:, 2]) & (corners[:, 1] < corners[:, 3])
    # ordered values are not nan, and only the outer corners can be infinite
    sound[sound] = ordered & (corners[:, 0] > -np.inf) & (corners[:, 1] > -np.inf) & (corners[:, 2:] < np.inf).all(1)
    return sound
