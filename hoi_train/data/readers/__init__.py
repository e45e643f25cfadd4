"""From a clip to pixels: three readers behind one interface, and the rule that chooses among them.

========== ================================================================================================
``auto``   folders by ``frames``; files that the data tools encoded (``seekable`` in the manifest) by
           ``decord`` where it is installed; all other files by ``pyav``
``decord`` seeks: fastest for few frames of a file made for it; refuses files in which seeking is not exact
``pyav``   decodes in sequence until the last frame wanted: exact for every sound file
``frames`` a folder of numbered images
========== ================================================================================================
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from importlib.util import find_spec

from hoi_train.data.readers.base import Reader, clip_error
from hoi_train.records import Clip, UserError, nearest

__all__ = ["READERS", "Reader", "check_reader", "open_clip"]


def open_clip(clip: Clip, reader: str = "auto") -> Reader:
    """Open a clip's file; use as a context manager, in the process that reads.

    Args:
        clip: what to read; its file must be a regular file or a folder.
        reader: a name in ``READERS``.

    Raises:
        ClipError: the file is missing, of another kind, unreadable, or shorter than the manifest says.
        UserError: the reader is unknown, or decord is not installed.
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
    if reader == "decord" and not _has_decord():
        raise UserError("reader 'decord': decord is not installed (it has wheels for x86-64 only); use reader: auto")


def _check_file(clip: Clip) -> None:
    """Refuse what is not there, and what would hang or never end: pipes, sockets, devices."""
    try:
        mode = clip.path.stat().st_mode
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        text = "no such file; check the manifest's root" if missing else f"cannot be opened: {error}"
        raise clip_error(clip, text) from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise clip_error(clip, "neither a regular file nor a folder")


def _has_decord() -> bool:
    return find_spec("decord") is not None


def _auto(clip: Clip) -> Reader:
    if clip.path.is_dir():
        return _frames(clip)
    return _decord(clip) if clip.seekable and _has_decord() else _pyav(clip)


def _decord(clip: Clip) -> Reader:
    from hoi_train.data.readers.decord_reader import DecordReader

    return DecordReader(clip)


def _pyav(clip: Clip) -> Reader:
    from hoi_train.data.readers.pyav_reader import PyAVReader

    return PyAVReader(clip)


def _frames(clip: Clip) -> Reader:
    from hoi_train.data.readers.frames_reader import FramesReader

    return FramesReader(clip)


READERS: Mapping[str, Callable[[Clip], Reader]] = {
    "auto": _auto,
    "decord": _decord,
    "pyav": _pyav,
    "frames": _frames,
}
