"""Frames and boxes of annotated pairs, with bounds checks, as training and ``hoi-data verify`` make them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hoi_train.core.records import Clip
from hoi_train.data.readers.base import clip_error

Floats = npt.NDArray[np.float64]

BOXES = ("person_box", "object_box")


@dataclass(frozen=True, eq=False)
class Places:
    """The frames and boxes of M pairs.

    Args:
        frames: int64 ``[M]``, numbers of frames in the clip, from 0.
        boxes: float64 ``[M, 2, 4]``, of the person and the object, ``x0, y0, x1, y1`` in pixels of the file, upright.
    """

    frames: npt.NDArray[np.int64]
    boxes: Floats

    @classmethod
    def of(cls, pairs: Any) -> Places:
        """Read those of an Arrow array of pairs; empty for ``None``."""
        import pyarrow.compute as pc  # not needed by processes that only check

        if pairs is None:
            return NOWHERE
        frames = np.asarray(pc.struct_field(pairs, "frame"), np.int64)
        return cls(frames, np.stack([boxes_of(pairs, name) for name in BOXES], axis=1))

    def digest(self) -> str:
        """Return a sha256 of all frames and boxes."""
        return hashlib.sha256(self.frames.tobytes() + self.boxes.tobytes()).hexdigest()


NOWHERE = Places(np.empty(0, np.int64), np.empty((0, 2, 4)))


def boxes_of(pairs: Any, name: str) -> Floats:
    """Return one box of each pair in an Arrow array, float64 ``[M, 4]``."""
    import pyarrow.compute as pc

    return np.asarray(pc.list_flatten(pc.struct_field(pairs, name)), np.float64).reshape(-1, 4)


def check_frame(clip: Clip, frame: int, num_frames: int) -> None:
    """Raise ``ClipError`` if the frame lies beyond the clip."""
    if frame >= num_frames:
        raise clip_error(clip, f"its pairs are of frame {frame}, it has frames 0 to {num_frames - 1}")


def check_boxes(clip: Clip, places: Places, size: tuple[int, int]) -> None:
    """Raise ``ClipError`` if a box lies outside the picture: it belongs to another file, or to another scale.

    Args:
        clip: what the error names.
        places: of its annotated pairs; a tracker's boxes may drift away.
        size: width and height of its frames.
    """
    outside = (places.boxes[..., :2] >= size).any(-1) | (places.boxes[..., 2:] <= 0).any(-1)
    for pair, which in np.argwhere(outside).tolist():
        what = f"{BOXES[which]} {places.boxes[pair, which].tolist()} of frame {places.frames[pair]}"
        text = f"{what} lies outside its {size[0]}×{size[1]} pixels (width × height)"
        raise clip_error(clip, f"{text}; boxes are in pixels of this file, upright")
