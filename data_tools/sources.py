"""Files as people have them: which are videos and frame folders, and how text files are read."""

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
# what folders and columns call the splits; the words that Hugging Face knows are among them
SPLIT_NAMES: Mapping[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


@dataclass(frozen=True)
class Imported:
    """A manifest that was written, and what its user should know.

    Args:
        path: the manifest.
        notes: a sentence each.
        manifest: what the file holds, where it is in memory anyway.
    """

    path: Path
    notes: tuple[str, ...]
    manifest: Manifest | None = None


def is_video(path: PurePath) -> bool:
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


def find_clips(root: Path, top: Path, passed_over: Counter[str]) -> Iterator[str]:
    """Yield the videos and frame folders below ``top``, relative to ``root``; what is neither is counted.

    They come by name, those in linked folders last.
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
    """Yield folders with their children, which may be emptied, and files; a folder of several links once, none above.

    Linked folders come last, so that a folder is found where it lies if it lies below ``top``, too.
    """
    tops, entered = [top], set[str]()
    for start in tops:  # which grows
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
