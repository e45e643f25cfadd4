"""List files: a clip per line, with its label; which column is which is found from the lines themselves.

Cells are separated by tabs, or commas (quoted as in csv), or blanks: whichever of these, in this order, is found in
every line. Accepted forms are ``path label``, ``label path``, ``index label path`` and ``index path label``, where the
index is an ascending number. The path column is the one whose cells are on disk or end like videos. A first line of
column names is passed over; so are a BOM, CRLF and empty lines.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

from data_tools.importers.samples import Sample
from data_tools.sources import SPLIT_NAMES, is_clip, is_video, numbered_lines
from hoi_train.core.paths import inside
from hoi_train.core.records import Split, UserError
from hoi_train.data.manifest.problems import Problems

FORMS = "path label | label path | index label path | index path label"
_LOOKED_AT = 1_000  # paths that decide what all paths of a list are relative to

_HEADER = re.compile(r"(path|file|file_?name|video|clip|label|class|category|id|index|name|target)s?", re.IGNORECASE)


def list_files(train: Path | None, val: Path | None, test: Path | None) -> dict[Split, Path]:
    """Return the list files that were named, by split; raises ``UserError`` if there are none."""
    lists: dict[Split, Path | None] = {"train": train, "val": val, "test": test}
    if named := {split: file for split, file in lists.items() if file}:
        return named
    raise UserError("name a list with --list, --val-list or --test-list")


def read_list(file: Path, split: Split, root: Path, task: str, problems: Problems) -> list[Sample]:
    """Read a list file, noting what is wrong.

    Args:
        file: the list.
        split: of its clips.
        root: the data root, absolute; paths are relative to it or to its folder of the split.
        task: what the labels are of.
        problems: where faults are noted.
    """
    rows = _cells(list(numbered_lines(file, problems)), file, problems)
    if rows and all(_HEADER.fullmatch(cell) for cell in rows[0][1]):
        header, *rows = rows
        if not rows:
            problems.add(file, header[0], "only a header")
    columns = _columns([cells for _, cells in rows], split_folders(root, split))
    if columns is None:
        if rows:
            text = f"cannot tell path and label in {rows[0][1]!r:.120}; accepted forms: {FORMS}"
            problems.add(file, rows[0][0], text)
        return []
    path, label = columns
    base = base_of(root, split, [cells[path] for _, cells in rows])
    paths = [below(root, base, cells[path]) for _, cells in rows]
    return [
        Sample(path, path, split, {task: cells[label]}, file, line)
        for path, (line, cells) in zip(paths, rows, strict=True)
    ]


def split_folders(root: Path, split: Split) -> list[Path]:
    """Return the folders that paths of a list may be relative to: the data root, and its folders of the split."""
    folders = [child for child in sorted(root.iterdir()) if child.is_dir()]
    words = {folder: re.split("[^a-z]+", folder.name.lower()) for folder in folders}
    return [root, *(folder for folder in folders if any(SPLIT_NAMES.get(word) == split for word in words[folder]))]


def base_of(root: Path, split: Split, paths: Iterable[str]) -> Path:
    """Return what the paths of a list are relative to: the folder with most of the files, the first of equals."""
    folders = split_folders(root, split)
    if len(folders) == 1:
        return root
    looked_at = [path for path in paths if ".." not in path][:_LOOKED_AT]
    return max(folders, key=lambda folder: sum(is_clip(folder / path) for path in looked_at))


def below(root: Path, base: Path, path: str) -> str:
    """Return a path of a list relative to the data root; one that leads out stays as it is, and is refused later."""
    return inside(root, path if Path(path).is_absolute() else (base / path).as_posix()) or path


def _cells(lines: list[tuple[int, str]], file: Path, problems: Problems) -> list[tuple[int, list[str]]]:
    """Split lines into cells, as many in each as most lines have."""
    texts = [line for _, line in lines]
    if all("\t" in line for line in texts):
        rows = [(number, [cell.strip() for cell in line.split("\t")]) for number, line in lines]
    elif all("," in line for line in texts):
        rows = [(number, _comma_cells(line)) for number, line in lines]
    else:
        rows = [(number, line.split()) for number, line in lines]
    if not rows:
        return []
    usual = Counter(len(cells) for _, cells in rows).most_common(1)[0][0]
    for number, cells in rows:
        if len(cells) != usual:
            text = f"cells: {len(cells)}, most lines have {usual}: {' '.join(cells)!r:.80}"
            problems.add(file, number, f"{text}; separate by tabs if names hold blanks")
        elif not all(cells):
            problems.add(file, number, f"an empty cell: {' '.join(cells)!r:.80}")
    return [(number, cells) for number, cells in rows if len(cells) == usual and all(cells)]


def _comma_cells(line: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line]))]
    except csv.Error:  # a cell of more than 128 KiB, or a NUL: no list has that
        return [line]


def _columns(rows: list[list[str]], bases: Sequence[Path]) -> tuple[int, int] | None:
    """Return which columns hold path and label, or ``None`` if that is not clear."""
    if not rows:
        return None
    candidates = list(range(len(rows[0])))
    if len(candidates) == 3 and _ascends([row[0] for row in rows]):
        candidates = candidates[1:]
    if len(candidates) != 2:
        return None
    likeness = {column: sum(_like_path(row[column], bases) for row in rows) for column in candidates}
    first, second = candidates
    if likeness[first] == likeness[second]:
        return None
    return (first, second) if likeness[first] > likeness[second] else (second, first)


def _ascends(cells: Sequence[str]) -> bool:
    """Return whether the cells are ascending whole numbers."""
    if not all(cell.isascii() and cell.isdigit() and len(cell) < 12 for cell in cells):
        return False
    numbers = [int(cell) for cell in cells]
    return all(before < after for before, after in pairwise(numbers))


def _like_path(cell: str, bases: Sequence[Path]) -> bool:
    return is_video(Path(cell)) or any(is_clip(base / cell) for base in bases)
