"""Check one clip: decode it from its first frame to its last, and measure it on the way."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_tools.faults import fault_of, step_of, too_short, without_place
from data_tools.jobs.local import limit_memory
from data_tools.verify.container import Container, look_at
from data_tools.verify.records import Checked, Measures, Warn
from hoi_train.core.disk import sha256_of
from hoi_train.core.records import Clip, ClipError, UserError
from hoi_train.data.pair_places import NOWHERE, Places, check_boxes
from hoi_train.data.readers import OPTIONAL, Reader, check_reader, open_clip
from hoi_train.data.readers.base import Image
from hoi_train.data.readers.pyav_reader import index_frames
from hoi_train.data.readers.seeking import COLOUR_ROUNDING

Blocks = npt.NDArray[np.float32]

SAMPLED = 8  # frames that stand for a clip where clips are compared, and that are sought at most
BLACK = 24  # no pixel is brighter: the darkest sets of real video have brighter ones
BLANK = 12  # the picture's parts differ by no more
# Pictures are compared by the means of blocks, which what an encoder adds hardly moves. In 19 very dark real videos
# (ARID) no picture was nearer than 1.9 to the one before in every block; frozen ones mostly stay within 5 of the first.
BLOCK = 8  # pixels
STILL, FROZEN = 1.0, 5.0
STILL_AMID_MOTION, SHARE_OF_MOTION = 3.0, 0.1  # an encoder mends a picture over the frames that repeat it
NEARLY_ALL, MANY = 0.9, 0.25
HOLE = 0.25  # seconds, and at least HOLE_FRAMES usual steps
HOLE_FRAMES = 4


def check_in_worker(labelled: tuple[Clip, Places], *, reader: str) -> Checked:
    """Check a clip in a process of its own, with a limit to the memory that it may take."""
    limit_memory()
    return check_clip(*labelled, reader=reader)


def check_clip(clip: Clip, places: Places = NOWHERE, *, reader: str) -> Checked:
    """Decode all frames of a clip in order; return what is wrong with it, or its measures.

    Args:
        clip: of the manifest.
        places: of its pairs.
        reader: a name in ``READERS``.
    """
    try:
        with open_clip(replace(clip, num_frames=None), reader) as opened:
            container = look_at(clip.path) if clip.path.is_file() else None
            if fault := too_short(opened, clip.num_frames, places.frames.tolist()):
                return Checked(*fault)
            if container and container.lacking:
                return Checked("shorter", f"its last {container.lacking} bytes are not there: it was cut off")
            return _decode(clip, places, opened, container)
    except Exception as error:  # whatever a decoder raises is said of its clip, and the next clip is checked
        return Checked(*fault_of(clip.path, error))


def _decode(clip: Clip, places: Places, opened: Reader, container: Container | None) -> Checked:
    """Decode from the first frame to the last of the clip: a seek would hide damage that training can meet."""
    window, times = opened.window(), opened.timestamps
    sought = _spread(range(len(times)), min(SAMPLED, max(2, container.key_frames if container else 0)))
    look = _Look(window, keep=frozenset(sought) & frozenset(range(window.stop)))
    for image in islice(opened.frames(), window.stop):
        look.at(image)
    if look.number < window.stop:
        return Checked("shorter", f"only {look.number} of {window.stop} frames decode")
    if len(look.sizes) > 1:
        return Checked("unreadable", f"its frames differ in size (height, width): {sorted(look.sizes)}")
    ((height, width),) = look.sizes
    try:
        check_boxes(clip, places, (width, height))
    except ClipError as error:
        return Checked("boxes", without_place(clip.path, error))
    step = step_of(times)
    measures = Measures(
        frames=len(times),
        fps=round((len(times) - 1) / float(times[-1]), 6) if container and len(times) > 1 else clip.fps,
        window=len(window),
        seconds=round(float(times[window[-1]] - times[window[0]]) + step, 6) if container or clip.fps else None,
        colour_range=container.colour_range if container else None,
        seekable=container is not None and _seeks_exactly(clip, look.kept),
        file_digest=_file_digest(clip.path),
        picture_digest=f"{look.digest.hexdigest()}-{len(window)}",
    )
    said = container.warnings if container else ()
    warnings = (*_frame_warnings(clip, len(times), container), *said, *_holes(times), *look.warnings())
    return Checked(measures=measures, warnings=warnings)


class _Look:
    """Looks at the frames of a file one after the other, at those of the clip closely.

    Args:
        window: the clip's frames.
        keep: frames to keep.
    """

    def __init__(self, window: range, keep: frozenset[int]) -> None:
        self.window, self.keep = window, keep
        self.sampled = frozenset(_spread(window, SAMPLED))
        self.number, self.black, self.blank, self.frozen = 0, 0, 0, 0
        self.steps: list[float] = []
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.kept: dict[int, Image] = {}
        self.digest = hashlib.blake2b(digest_size=16)
        self._first: Blocks | None = None
        self._before: Blocks | None = None

    def at(self, image: Image) -> None:
        """Look at the next frame, uint8 ``[H, W, 3]``."""
        height, width = image.shape[:2]
        self.sizes[height, width] += 1
        if self.number in self.keep:
            self.kept[self.number] = image
        if self.number in self.sampled:
            self.digest.update(image.tobytes())
        if self.number in self.window:
            self._look(image)
        self.number += 1

    def _look(self, image: Image) -> None:
        blocks = _blocks(image)
        if image.max() <= BLACK:
            self.black += 1
        elif max(np.ptp(part, axis=(0, 1)).max() for part in (blocks, image[::BLOCK, ::BLOCK])) <= BLANK:
            self.blank += 1
        if self._first is None or self._before is None or self._before.shape != blocks.shape:
            self._first = blocks
        else:
            self.steps.append(float(np.abs(blocks - self._before).max()))
            self.frozen += bool(np.abs(blocks - self._first).max() <= FROZEN)
        self._before = blocks

    def warnings(self) -> Iterator[tuple[Warn, str]]:
        """Say what looks wrong with the pictures."""
        frames, steps, still = len(self.window), len(self.steps), 0
        if steps:
            motion = float(np.quantile(self.steps, NEARLY_ALL))
            still = int((np.array(self.steps) <= min(max(STILL, SHARE_OF_MOTION * motion), STILL_AMID_MOTION)).sum())
        if self.black >= NEARLY_ALL * frames:
            yield "black", f"{self.black} of {frames} frames are black"
        elif self.black + self.blank >= NEARLY_ALL * frames:
            yield "blank", f"{self.black + self.blank} of {frames} frames are of one colour"
        elif steps > 1 and self.frozen >= NEARLY_ALL * steps:
            yield "frozen", f"{self.frozen + 1} of {frames} frames are the same picture"
        elif steps > 1 and still >= MANY * steps:
            yield "repeated", f"{still} of {frames} frames are the picture before once more"


def _blocks(image: Image) -> Blocks:
    """Return the mean colours of a picture's blocks; what is left over at the right and below is not looked at."""
    height, width = image.shape[:2]
    side = min(BLOCK, height, width)
    down, across = height // side, width // side
    part = np.ascontiguousarray(image[: down * side, : across * side])
    # rows first, in few bytes: several times as fast as a mean over both
    rows = part.reshape(down, side, -1).sum(axis=1, dtype=np.uint16)
    means: Blocks = rows.reshape(down, across, side, 3).sum(axis=2, dtype=np.float32) / side**2
    return means


def _spread(frames: range, count: int) -> list[int]:
    """Return at most ``count`` of the frames, the first and the last among them."""
    return sorted({frames[int(place)] for place in np.linspace(0, len(frames) - 1, count).round()})


def _seeks_exactly(clip: Clip, expected: dict[int, Image]) -> bool:
    """Return whether the readers that seek, asked backwards so that each frame is sought, give the expected frames."""
    try:
        if not index_frames(clip).seekable:
            return False
        for name in ("pyav", *OPTIONAL):
            if not _is_installed(name):
                continue
            with open_clip(replace(clip, num_frames=None), name) as opened:
                if not all(_same(opened.read([k])[0], expected[k]) for k in sorted(expected, reverse=True)):
                    return False
    except (ClipError, UnicodeError):  # a library that does not take the file's name
        return False
    return True


def _same(one: Image, other: Image) -> bool:
    return one.shape == other.shape and int(np.abs(one.astype(np.int16) - other).max()) <= COLOUR_ROUNDING


@cache
def _is_installed(reader: str) -> bool:
    try:
        check_reader(reader)
    except UserError:
        return False
    return True


def _file_digest(path: Path) -> str | None:
    if not path.is_dir():
        return sha256_of(path) if path.is_file() else None
    files = "".join(f"{sha256_of(each)}\n" for each in sorted(path.iterdir()) if each.is_file())
    return hashlib.sha256(files.encode()).hexdigest()


def _frame_warnings(clip: Clip, frames: int, container: Container | None) -> Iterator[tuple[Warn, str]]:
    if clip.num_frames is not None and frames > clip.num_frames:
        yield "frames", f"it has {frames} frames, the manifest says {clip.num_frames}"
    if container is not None and container.declared not in (0, frames):
        yield "frames", f"{frames} frames decode, its container declares {container.declared}"


def _holes(times: npt.NDArray[np.float64]) -> Iterator[tuple[Warn, str]]:
    steps = np.diff(times)
    if len(steps) and steps.max() > max(HOLE, HOLE_FRAMES * float(np.median(steps))):
        after, usual = int(steps.argmax()), float(np.median(steps))
        yield "times", f"nothing is shown for {steps[after]:.3f} s after frame {after} (usually {usual:.3f} s)"
