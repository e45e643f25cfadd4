"""The interface of readers: the times of a file's frames, and the pixels of requested frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from types import TracebackType

import numpy as np
import numpy.typing as npt

from hoi_train.core.records import Clip, ClipError

Image = npt.NDArray[np.uint8]

MICROSECOND = 1e-6  # tolerance of times in seconds, which may be written with six decimals


def clip_error(clip: Clip, text: str) -> ClipError:
    """Return an error that names a clip, its file and the fault."""
    return ClipError(f"clip {clip.clip_id!r}: {clip.path}: {text}")


def even_times(clip: Clip, num_frames: int) -> npt.NDArray[np.float64]:
    """Return the times ``i / fps`` of frames without times of their own, float64 ``[F]``.

    Without ``fps`` they count frames, which a clip with ``start`` or ``end`` cannot use: it raises ``ClipError``.
    """
    if clip.fps is None and (clip.start, clip.end) != (None, None):
        raise clip_error(clip, "start and end of a clip of images need its frames per second; fill the column fps")
    return np.arange(num_frames) / (clip.fps or 1.0)


class Reader(ABC):
    """The frames of one clip's file in presentation order.

    Attributes:
        clip: the clip.
        timestamps: float64 ``[F]``, presentation times of all frames of the file in seconds after the first, strictly
            ascending. A frame's index is its position here.
    """

    clip: Clip
    timestamps: npt.NDArray[np.float64]

    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def window(self) -> range:
        """Return the indices of the clip's frames, ``start <= t < end``; raises ``ClipError`` if there is none."""
        start, end = self.clip.start or 0.0, self.clip.end
        first = int(np.searchsorted(self.timestamps, start - MICROSECOND))
        stop = len(self.timestamps) if end is None else int(np.searchsorted(self.timestamps, end - MICROSECOND))
        if first >= stop:
            until = "the end" if end is None else f"{end} s"
            raise clip_error(
                self.clip,
                f"no frame from {start} s until {until}; it has {len(self.timestamps)} frames, "
                f"the last at {self.timestamps[-1]:.3f} s",
            )
        return range(first, stop)

    def read(self, indices: npt.ArrayLike) -> Image:
        """Decode frames.

        Args:
            indices: int64 ``[T]`` in ``0..F-1``, in any order, with repeats.

        Returns:
            uint8 ``[T, H, W, 3]``, RGB, upright.

        Raises:
            ClipError: an index is out of range, a frame does not decode, or the frames differ in size.
        """
        asked = np.asarray(indices, dtype=np.int64)
        total = len(self.timestamps)
        outside = asked[(asked < 0) | (asked >= total)]
        if len(outside):
            raise clip_error(self.clip, f"frame {outside[0]} was requested, it has frames 0 to {total - 1}")
        wanted, places = np.unique(asked, return_inverse=True)
        images = list(self._sized(wanted))
        return self._stacked([images[place] for place in places])

    def read_each(self, plans: Sequence[npt.NDArray[np.int64]]) -> Iterator[Image]:
        """Yield what `read` returns for each of several plans, in one pass over the file.

        Args:
            plans: int64 ``[T]`` each, valid indices; a decoded frame is kept while a later plan needs it.
        """
        last = {int(index): number for number, plan in enumerate(plans) for index in plan}
        wanted = np.array(sorted(last), dtype=np.int64)
        decoded = zip(wanted.tolist(), self._sized(wanted), strict=True)
        held: dict[int, Image] = {}
        for number, plan in enumerate(plans):
            while not held.keys() >= set(plan.tolist()):
                index, image = next(decoded)
                held[index] = image
            yield self._stacked([held[index] for index in plan.tolist()])
            held = {index: image for index, image in held.items() if last[index] > number}

    def frames(self) -> Iterator[Image]:
        """Decode all frames in order, uint8 ``[H, W, 3]`` each; raises ``ClipError`` at the first bad one."""
        return self._sized(np.arange(len(self.timestamps)))

    def _sized(self, wanted: npt.NDArray[np.int64]) -> Iterator[Image]:
        """Yield frames; refuse those of another size than the clip's boxes were annotated in."""
        for image in self._decode(wanted):
            height, width = image.shape[:2]
            if self.clip.size not in (None, (width, height)):
                annotated = "×".join(map(str, self.clip.size or ()))
                turned = ", rotated by 90 degrees" if self.clip.size == (height, width) else ""
                raise clip_error(
                    self.clip,
                    f"its frames are of {width}×{height} pixels{turned}, its boxes were annotated in {annotated} "
                    "(width × height); use the annotated file, neither resized nor rotated",
                )
            yield image

    def _stacked(self, images: Sequence[Image]) -> Image:
        sizes = {image.shape[:2] for image in images}
        if len(sizes) > 1:
            raise clip_error(self.clip, f"its frames differ in size (height, width): {sorted(sizes)}")
        return np.stack(images)

    @abstractmethod
    def _decode(self, wanted: npt.NDArray[np.int64]) -> Iterator[Image]:
        """Yield the frame of each index; indices are ascending, distinct and valid."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""
