"""What the importers share: which files are clips, which are there, and the writing of what they found."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import pyarrow as pa

from hoi_train.core.paths import is_plain
from hoi_train.core.randomness import seed_of
from hoi_train.core.records import SPLITS, ClassList, Split, Task
from hoi_train.data.manifest import Manifest, written_manifest
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


class ClipFolders:
    """Finds ``<root>/<folder>/<name>``, a video file or a folder of frames, listing each folder once.

    Args:
        root: what the paths of a manifest start from.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[str, dict[str, Path]] = {}

    def place(self, folder: str, name: str, fps: float) -> dict[str, Any] | None:
        """Return the columns of a manifest that say where a clip is, or ``None`` if it is not on disk.

        Args:
            folder: below the root.
            name: of the clip, without suffix.
            fps: of a folder of frames.
        """
        if folder not in self._listed:
            self._listed[folder] = clips_in(self.root / folder)
        found = self._listed[folder].get(name)
        if found is None:
            return None
        path = found.relative_to(self.root).as_posix()
        if not found.is_dir():
            return {"path": path}
        num_frames = count_images(found)
        return {"path": path, "num_frames": num_frames, "fps": fps} if num_frames else None


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


class Divided(Protocol):
    """A clip as annotated."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def split(self) -> Split: ...  # noqa: D102
    @property
    def group(self) -> str | None: ...  # noqa: D102


AnyClip = TypeVar("AnyClip", bound=Divided)


def with_val(
    clips: Sequence[AnyClip], name_and_class: Callable[[AnyClip], tuple[str, str]], fraction: float, seed: int
) -> tuple[list[AnyClip], int]:
    """Draw val from train if there is none: a fraction of the groups, and of the clips without one of each class.

    The number is rounded, and at least one stays. A name's place in the draw depends on itself and the seed alone.

    Args:
        clips: of any annotation.
        name_and_class: of a clip; clips of the class ``""`` are drawn together with the groups.
        fraction: 0..1.
        seed: of the draw.

    Returns:
        The clips in the same order, and how many were drawn.
    """
    if any(clip.split == "val" for clip in clips):
        return list(clips), 0
    units: defaultdict[str, set[str]] = defaultdict(set)
    for clip in clips:
        if clip.split == "train":
            name, label = name_and_class(clip)
            units["" if clip.group else label].add(clip.group or name)
    drawn: set[str] = set()
    for names in units.values():
        ordered = sorted(names, key=lambda name: seed_of(seed, "val", name))
        drawn.update(ordered[: min(int(fraction * len(ordered) + 0.5), len(ordered) - 1)])
    chosen = [clip.split == "train" and (clip.group or name_and_class(clip)[0]) in drawn for clip in clips]
    moved = [replace(clip, split="val") if is_val else clip for clip, is_val in zip(clips, chosen, strict=True)]
    return moved, sum(chosen)


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
    written = written_manifest(out / MANIFEST, rows, tasks, root, object_classes)
    (out / MISSING).unlink(missing_ok=True)  # that of an earlier import
    said = list(notes)
    if missing:
        (out / MISSING).write_text("".join(f"{split}\t{name}\n" for name, split in missing.items()), encoding="utf-8")
        said.insert(0, f"clips not on disk: {len(missing)} ({_by_split(missing)}); {out / MISSING} lists them")
    return Imported(written.path, (*said, *written.warnings), written)


def _by_split(splits: Mapping[str, str]) -> str:
    counts = Counter(splits.values())
    return ", ".join(f"{counts[split]} {split}" for split in SPLITS if counts[split])
