"""Readers: decode the frames of a clip, behind one interface.

============== ==================================================================================================
``auto``       ``frames`` for folders, ``zip`` for clips in a shard, ``pyav`` for all other files
``pyav``       any intact file, exactly: seeks where the packets prove it safe, else decodes in sequence
``frames``     a folder of numbered images
``zip``        a clip of the frame cache, ``<shard>.zip/<entry>``; see ``hoi-data cache``
``torchcodec`` seeks with the system's FFmpeg; refuses files in which seeking is not exact; an optional extra
``decord``     seeks with its own FFmpeg; refuses the same files
============== ==================================================================================================

On two cores ``pyav`` was as fast as ``torchcodec`` and faster than ``decord`` on all files tried: it opens a file once,
the others open it again after PyAV has read its packets. So ``auto`` needs neither.
"""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from hoi_train.core.records import Clip, UserError, nearest
from hoi_train.data.readers.base import Reader, clip_error

__all__ = ["READERS", "Reader", "check_reader", "choose_reader", "count_readers", "open_clip"]

OPTIONAL = {
    "decord": "decord has wheels for x86-64 only",
    "torchcodec": "pip install 'hoi_train[torchcodec]'",
}


def open_clip(clip: Clip, reader: str = "auto") -> Reader:
    """Open a clip's file; use the reader as a context manager, in the process that reads.

    Args:
        clip: the clip; its path must be a regular file or a folder.
        reader: a name in ``READERS``.

    Raises:
        ClipError: the file is missing, of another kind, unreadable, or shorter than the manifest says.
        UserError: the reader is unknown or not installed.
    """
    check_reader(reader)
    _check_file(clip)
    opened = READERS[reader](clip)
    if clip.num_frames is not None and len(opened.timestamps) < clip.num_frames:
        opened.close()
        raise clip_error(clip, f"it has {len(opened.timestamps)} frames, the manifest says {clip.num_frames}")
    return opened


def check_reader(reader: str) -> None:
    """Raise ``UserError`` if a reader is unknown or not installed."""
    if reader not in READERS:
        raise UserError(f"reader {reader!r} is not one of {', '.join(READERS)}{nearest(reader, list(READERS))}")
    if reader in OPTIONAL:
        try:
            import_module(f"{__name__}.{reader}_reader")
        except (ImportError, OSError, RuntimeError) as error:  # not installed; made for another torch
            text = f"reader {reader!r} cannot be used: {str(error).strip().splitlines()[0]} ({OPTIONAL[reader]})"
            raise UserError(f"{text}; use reader: auto") from None


def choose_reader(path: Path) -> str:
    """Return the reader that ``auto`` uses for a path."""
    if path.is_dir():
        return "frames"
    return "pyav" if source_of(path) == path else "zip"


def count_readers(paths: Mapping[Path, int], reader: str) -> dict[str, int]:
    """Return how many clips each reader would read; no file is opened.

    Args:
        paths: files, folders and entries of shards, each with its number of clips.
        reader: a name in ``READERS``.
    """
    found = Counter[str]()
    for path, clips in paths.items():
        found[choose_reader(path) if reader == "auto" else reader] += clips
    return dict(sorted(found.items()))


def _check_file(clip: Clip) -> None:
    """Refuse missing files, and pipes, sockets and devices, which would block or never end."""
    try:
        mode = source_of(clip.path).stat().st_mode
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        text = "no such file; check the manifest's root" if missing else f"cannot be opened: {error}"
        raise clip_error(clip, text) from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise clip_error(clip, "neither a regular file nor a folder")


def source_of(path: Path) -> Path:
    """Return the file or folder on disk that holds a clip: its path, or its shard."""
    return path.parent if path.parent.suffix == ".zip" and path.parent.is_file() else path


def _auto(clip: Clip) -> Reader:
    return READERS[choose_reader(clip.path)](clip)


def _lazy(name: str, reader: str) -> Callable[[Clip], Reader]:
    """Return a function that imports ``<name>_reader`` when it opens a clip."""

    def open_with(clip: Clip) -> Reader:
        opened: Reader = getattr(import_module(f"{__name__}.{name}_reader"), reader)(clip)
        return opened

    return open_with


READERS: Mapping[str, Callable[[Clip], Reader]] = {
    "auto": _auto,
    "pyav": _lazy("pyav", "PyAVReader"),
    "frames": _lazy("frames", "FramesReader"),
    "zip": _lazy("zip", "ZipReader"),
    "torchcodec": _lazy("torchcodec", "TorchcodecReader"),
    "decord": _lazy("decord", "DecordReader"),
}
