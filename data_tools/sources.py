"""What the importers share: which files are clips, which are there, and the writing of what they found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from hoi_train.data.manifest import read_manifest, write_manifest
from hoi_train.data.problems import Problems
from hoi_train.records import SPLITS, ClassList, Task

VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".ogv")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MANIFEST = "manifest.parquet"
MISSING = "missing_clips.txt"


@dataclass(frozen=True)
class Imported:
    """A manifest that was written, and what its user should know.

    Args:
        path: the manifest.
        notes: a sentence each.
    """

    path: Path
    notes: tuple[str, ...]


def is_video(path: Path) -> bool:
    """Return whether a file's name is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def count_images(folder: Path) -> int:
    """Count the frames of a frame folder; 0 if it holds none."""
    return sum(entry.suffix.lower() in IMAGE_SUFFIXES and entry.name[0] != "." for entry in folder.iterdir())


def is_clip(path: Path) -> bool:
    """Return whether there is a file, or a folder with frame images."""
    try:
        return count_images(path) > 0 if path.is_dir() else path.exists()
    except (OSError, ValueError):  # a name too long, or with a NUL
        return False


def clips_in(folder: Path) -> dict[str, Path]:
    """Return the videos and folders in a folder by name without suffix; none if it is not there."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    found = {entry.name: entry for entry in entries if entry.is_dir()}
    # a video is taken before frames made from it
    found.update({entry.stem: entry for entry in entries if is_video(entry) and not entry.is_dir()})
    return found


def is_plain(name: str) -> bool:
    """Return whether a manifest can hold a name: UTF-8 without control characters."""
    return not any(ord(letter) < 32 or ord(letter) == 127 or 0xD800 <= ord(letter) < 0xE000 for letter in name)


def numbered_lines(file: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    """Yield the lines of a text file that hold anything, with their numbers; a BOM and CRLF are let pass."""
    if not file.is_file():
        problems.add(file, None, "a folder, not a file" if file.is_dir() else "no such file")
        return
    lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
    if not b"".join(lines).strip():
        problems.add(file, None, "the file is empty")
    for number, data in enumerate(lines, 1):
        try:
            line = data.decode().strip()
        except UnicodeDecodeError as error:
            problems.add(file, number, f"not UTF-8 text: byte 0x{data[error.start]:02x} at column {error.start + 1}")
            continue
        if line:
            yield number, line


def write_import(
    out: Path,
    rows: Sequence[Mapping[str, Any]] | pa.Table,
    tasks: Sequence[Task],
    root: Path,
    missing: Mapping[str, str],
    notes: Sequence[str],
    object_classes: ClassList | None = None,
) -> Imported:
    """Write the manifest below ``out``, and the list of the clips that are not on disk.

    Args:
        out: a folder, made if it is not there.
        rows: the rows to write; see ``write_manifest``.
        tasks: what their labels mean.
        root: folder of the videos.
        missing: split by clip, for clips that are annotated but not on disk.
        notes: what else the user should know.
        object_classes: classes that the objects of pairs may have.
    """
    path = write_manifest(out / MANIFEST, rows, tasks, root, object_classes)
    (out / MISSING).unlink(missing_ok=True)  # that of an earlier import
    said = list(notes)
    if missing:
        (out / MISSING).write_text("".join(f"{split}\t{name}\n" for name, split in missing.items()), encoding="utf-8")
        said.insert(0, f"clips not on disk: {len(missing)} ({_by_split(missing)}); {out / MISSING} lists them")
    return Imported(path, (*said, *read_manifest(path).warnings))


def _by_split(splits: Mapping[str, str]) -> str:
    counts = Counter(splits.values())
    return ", ".join(f"{counts[split]} {split}" for split in SPLITS if counts[split])
