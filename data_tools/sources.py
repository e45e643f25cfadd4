"""Find videos and frame folders on disk, and read text files line by line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from hoi_train.core.paths import is_plain
from hoi_train.core.records import Split
from hoi_train.data.manifest import Manifest
from hoi_train.data.manifest.problems import Problems

VIDEO_SUFFIXES = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".ogv")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
MANIFEST = "manifest.parquet"
MISSING = "missing_clips.txt"
# names of splits in folders and columns, including those that Hugging Face accepts
SPLIT_NAMES: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


@dataclass(frozen=True)
class Imported:
    """A manifest that was written, with notes for the user.

    Args:
        path: the manifest.
        notes: one sentence each.
        manifest: the content of the file, if it is in memory.
    """

    path: Path
    notes: tuple[str, ...]
    manifest: Manifest | None = None


def is_video(path: PurePath) -> bool:
    """Return whether a file has the suffix of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def count_images(folder: Path) -> int:
    """Count the images of a frame folder."""
    return sum(entry.suffix.lower() in IMAGE_SUFFIXES and entry.name[0] != "." for entry in folder.iterdir())


def is_clip(path: Path) -> bool:
    """Return whether a path is a file or a folder with frame images."""
    try:
        return count_images(path) > 0 if path.is_dir() else path.exists()
    except (OSError, ValueError):  # a name too long, or with a NUL
        return False


def find_clips(root: Path, top: Path, passed_over: Counter[str]) -> Iterator[str]:
    """Yield the videos and frame folders below ``top``, sorted by name, those in linked folders last.

    Args:
        root: folder that the yielded paths are relative to.
        top: folder to search.
        passed_over: counts by kind what is neither; updated in place.
    """
    for folder, children, paths in _walk(top, passed_over):
        videos = [path for path in paths if is_video(path)]
        images = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
        if images and not videos and folder != top:
            videos, images, children[:] = [folder], [], []
        for path in images:
            passed_over[f"{path.suffix} image that is not in a frame folder of its own"] += 1
        for path in paths:
            if not is_video(path) and path.suffix.lower() not in IMAGE_SUFFIXES:
                passed_over[f"{path.suffix or 'unnamed'} file"] += 1
        for path in videos:
            relative = path.relative_to(root).as_posix()
            if is_plain(relative):
                yield relative
            else:
                passed_over["clip whose name holds control characters or is not UTF-8"] += 1


def _walk(top: Path, passed_over: Counter[str]) -> Iterator[tuple[Path, list[str], list[Path]]]:
    """Walk a tree with symbolic links; yield each folder once, with its subfolders, which may be cleared, and files.

    Links are followed last, so that a folder below ``top`` is found at its real path. Links to a parent are skipped.
    """
    tops, entered = [top], set[str]()
    for start in tops:  # grows while it is iterated
        for name, children, files in os.walk(start):
            folder, real = Path(name), os.path.realpath(name)
            if real in entered:
                passed_over["link to a folder that was looked through already"] += 1
                children.clear()
                continue
            entered.add(real)
            children[:] = sorted(child for child in children if child[0] != ".")
            yield folder, children, [folder / file for file in sorted(files) if file[0] != "."]
            for link in (folder / child for child in children if (folder / child).is_symlink()):
                if Path(real).is_relative_to(os.path.realpath(link)):
                    passed_over["link to a folder that it lies in"] += 1
                else:
                    tops.append(link)


def numbered_lines(file: Path, problems: Problems) -> Iterator[tuple[int, str]]:
    """Yield the non-empty lines of a text file with their numbers from 1; accepts a BOM and CRLF."""
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
