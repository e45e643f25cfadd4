"""Classify and report faults of clips, and tell them from errors of the output disk."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_tools.console import counted, first_of
from hoi_train.core.records import Clip, ClipError, UserError
from hoi_train.data.pair_places import check_frame
from hoi_train.data.readers import Reader

Fault = Literal["missing", "unreadable", "shorter", "empty", "boxes", "timeout", "crashed"]

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG, errno.ENOENT}


class OutputError(UserError):
    """The result cannot be written, for a reason other than the clip."""


@dataclass(frozen=True)
class Outcome:
    """The result of processing a clip: made now (``made``), made earlier, or bad (``fault``, ``text``)."""

    clip_id: str
    made: bool = False
    fault: Fault | None = None
    text: str = ""


@contextmanager
def on_disk(folder: Path) -> Iterator[None]:
    """Convert an ``OSError`` of a full or failing output disk to ``OutputError``."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise OutputError(f"{folder}: {error.strerror}; nothing that is finished is lost") from None


def fault_of(path: Path, error: Exception) -> tuple[Fault, str]:
    """Return the fault and its text for any exception raised while a clip's file is read."""
    if isinstance(error, FileNotFoundError):
        return "missing", "no such file"
    text = without_place(path, error)
    if text.startswith("no such file"):
        return "missing", text
    return "unreadable", text if isinstance(error, (ClipError, ValueError)) else f"{type(error).__name__}: {text}"


def without_place(path: Path, error: Exception) -> str:
    """Return an error's text without its prefix of clip and file."""
    return str(error).split(f"{path}: ", 1)[-1]


def too_short(reader: Reader, num_frames: int | None, labelled: Iterable[int] = ()) -> tuple[Fault, str] | None:
    """Return the fault of a file that has too few frames for its clip, else ``None``.

    Args:
        reader: reads the clip.
        num_frames: frames of the whole file according to the manifest.
        labelled: frames of the clip with annotated pairs.
    """
    times, clip = reader.timestamps, reader.clip
    if num_frames is not None and len(times) < num_frames:
        return "shorter", f"it has {len(times)} frames, the manifest says {num_frames}"
    try:
        window = reader.window()
    except ClipError as error:
        return "empty", without_place(clip.path, error)
    step = step_of(times)
    # the last frame lasts about one step; one more step allows for rounded ends
    if clip.end is not None and clip.end > times[-1] + 2 * step + 1e-3:
        return "shorter", f"it ends at about {times[-1] + step:.3f} s, the manifest's end is {clip.end:g} s"
    return beyond_end(clip, labelled, len(window))


def beyond_end(clip: Clip, labelled: Iterable[int], num_frames: int) -> tuple[Fault, str] | None:
    """Return the fault of a clip with pairs annotated beyond its last frame, else ``None``.

    Args:
        clip: as in the manifest.
        labelled: frames of the clip with annotated pairs.
        num_frames: number of frames of the clip.
    """
    try:
        check_frame(clip, max(labelled, default=0), num_frames)
    except ClipError as error:
        return "shorter", without_place(clip.path, error)
    return None


def step_of(times: npt.NDArray[np.float64]) -> float:
    """Return the median time between frames in seconds, from their times float64 ``[F]``; 0 for a single frame."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def lines_of(manifest: str, clips: int, made: int, bad: Sequence[Outcome]) -> list[str]:
    """Return the summary lines of a manifest: clips made now, made before and bad, then the first bad clips."""
    faults = counted(Counter(clip.fault for clip in bad if clip.fault))
    before = clips - made - len(bad)
    return [
        f"{manifest}: {clips} clips: {made} made, {before} made before, {len(bad)} bad{faults}",
        *first_of([f"{clip.fault}: clip {clip.clip_id!r}: {clip.text}" for clip in bad]),
    ]
