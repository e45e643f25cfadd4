"""What every reader offers: when the frames of a file are shown, and the pixels of the frames asked for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from types import TracebackType

import numpy as np
import numpy.typing as npt

from hoi_train.core.records import Clip, ClipError

Image = npt.NDArray[np.uint8]

# Times written with six decimals still find their frame.
MICROSECOND = 1e-6


def clip_error(clip: Clip, text: str) -> ClipError:
    """Return the error that names a clip, its file and what is wrong with it."""
    return ClipError(f"clip {clip.clip_id!r}: {clip.path}: {text}")


class Reader(ABC):
    """The frames of one clip's file in the order they are shown; opened where it is used, for one clip.

    Attributes:
        clip: what is read.
        timestamps: float64 ``[F]``, when each of the F frames of the file is shown, in seconds after the first,
            strictly ascending. A frame's index is its place here.
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
        """Return the indices of the clip's frames: those shown at ``start <= t < end``.

        Raises:
            ClipError: no frame is shown in that time.
        """
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
            indices: int64 ``[T]`` in ``0..F-1``, in any order, repeats allowed.

        Returns:
            uint8 ``[T, H, W, 3]``, RGB, upright.

        Raises:
            ClipError: an index has no frame, a frame does not decode, or the frames differ in size.
        """
        asked = np.asarray(indices, dtype=np.int64)
        total = len(self.timestamps)
        outside = asked[(asked < 0) | (asked >= total)]
        if len(outside):
            raise clip_error(self.clip, f"frame {outside[0]} was asked for, it has frames 0 to {total - 1}")
        wanted, places = np.unique(asked, return_inverse=True)
        images = list(self._sized(wanted))
        return self._stacked([images[place] for place in places])

    def read_each(self, plans: Sequence[npt.NDArray[np.int64]]) -> Iterator[Image]:
        """Yield what ``read`` gives for each of several plans, in one pass over the file.

        Args:
            plans: int64 ``[T]`` each, valid indices; a decoded frame is kept as long as a later plan wants it.
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
        """Yield frames, refusing those of another size than the clip's boxes were annotated in."""
        for image in self._decode(wanted):
            height, width = image.shape[:2]
            if self.clip.size not in (None, (width, height)):
                annotated = "×".join(map(str, self.clip.size or ()))
                turned = ", turned on their side" if self.clip.size == (height, width) else ""
                raise clip_error(
                    self.clip,
                    f"its frames are of {width}×{height} pixels{turned}, its boxes were annotated in {annotated} "
                    "(width × height); put the file here that was annotated, neither resized nor rotated",
                )
            yield image

    def _stacked(self, images: Sequence[Image]) -> Image:
        sizes = {image.shape[:2] for image in images}
        if len(sizes) > 1:
            raise clip_error(self.clip, f"its frames differ in size (height, width): {sorted(sizes)}")
        return np.stack(images)

    @abstractmethod
    def _decode(self, wanted: npt.NDArray[np.int64]) -> Iterator[Image]:
        """Yield the frames of ascending, distinct, valid indices, exactly one each."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""
