"""What can be wrong with a clip, or with the disk that its result goes to, and how the tools say so."""

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
    """The result cannot be written: no fault of the clip."""


@dataclass(frozen=True)
class Outcome:
    """What became of a clip: made, found made already, or bad."""

    clip_id: str
    made: bool = False
    fault: Fault | None = None
    text: str = ""


@contextmanager
def on_disk(folder: Path) -> Iterator[None]:
    """Raise ``OutputError`` where a full or failing disk, and not the clip, is at fault."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise OutputError(f"{folder}: {error.strerror}; nothing that is finished is lost") from None


def fault_of(path: Path, error: Exception) -> tuple[Fault, str]:
    """Return what an error in reading a clip's file means, whatever a decoder raises."""
    if isinstance(error, FileNotFoundError):
        return "missing", "no such file"
    text = without_place(path, error)
    if text.startswith("no such file"):
        return "missing", text
    return "unreadable", text if isinstance(error, (ClipError, ValueError)) else f"{type(error).__name__}: {text}"


def without_place(path: Path, error: Exception) -> str:
    """Return an error's text without the clip and file that it names."""
    return str(error).split(f"{path}: ", 1)[-1]


def too_short(reader: Reader, num_frames: int | None, labelled: Iterable[int] = ()) -> tuple[Fault, str] | None:
    """Return what a file lacks in frames for the clip that is read from it, if anything.

    Args:
        reader: of the clip.
        num_frames: of the whole file, as the manifest has it.
        labelled: frames of the clip that pairs are of.
    """
    times, clip = reader.timestamps, reader.clip
    if num_frames is not None and len(times) < num_frames:
        return "shorter", f"it has {len(times)} frames, the manifest says {num_frames}"
    try:
        window = reader.window()
    except ClipError as error:
        return "empty", without_place(clip.path, error)
    step = step_of(times)
    # the last frame is shown for about one frame's time; one more for ends that were rounded
    if clip.end is not None and clip.end > times[-1] + 2 * step + 1e-3:
        return "shorter", f"it ends at about {times[-1] + step:.3f} s, the manifest's end is {clip.end:g} s"
    return beyond_end(clip, labelled, len(window))


def beyond_end(clip: Clip, labelled: Iterable[int], num_frames: int) -> tuple[Fault, str] | None:
    """Return that pairs are of a frame that their clip does not have, if they are.

    Args:
        clip: of the manifest.
        labelled: frames of the clip that pairs are of.
        num_frames: how many it has.
    """
    try:
        check_frame(clip, max(labelled, default=0), num_frames)
    except ClipError as error:
        return "shorter", without_place(clip.path, error)
    return None


def step_of(times: npt.NDArray[np.float64]) -> float:
    """Return the usual distance of frames in seconds, from the times of all ``[F]``; 0 for a single one."""
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def lines_of(manifest: str, clips: int, made: int, bad: Sequence[Outcome]) -> list[str]:
    """Say what became of the clips of a manifest: how many were made, and the first that are bad."""
    faults = counted(Counter(clip.fault for clip in bad if clip.fault))
    before = clips - made - len(bad)
    return [
        f"{manifest}: {clips} clips: {made} made, {before} made before, {len(bad)} bad{faults}",
        *first_of([f"{clip.fault}: clip {clip.clip_id!r}: {clip.text}" for clip in bad]),
    ]
