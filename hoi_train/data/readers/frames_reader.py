"""Read a folder of numbered frame images."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hoi_train.core.records import Clip
from hoi_train.data.readers.base import Image, Reader, clip_error, even_times
from hoi_train.data.readers.pyav_reader import decode_image

SUFFIXES = (".jpg", ".jpeg", ".png")
NUMBER = re.compile(r"(\d+)$")


class FramesReader(Reader):
    """Read JPEG or PNG files whose names end in the frame's number: ``img_00001.jpg``, ``7.png``.

    The numbers may begin anywhere, with or without padding, but must be evenly spaced: a gap is a lost frame. Times are
    `even_times`.
    """

    def __init__(self, clip: Clip) -> None:
        super().__init__(clip)
        if not clip.path.is_dir():
            raise clip_error(clip, "the reader 'frames' needs a folder of images, this is a file; use reader: auto")
        self._files = _numbered(clip)
        self.timestamps = even_times(clip, len(self._files))

    def _decode(self, wanted: npt.NDArray[np.int64]) -> Iterator[Image]:
        for index in wanted:
            yield decode_image(self.clip, self._files[index])

    def close(self) -> None:
        """Do nothing: no file stays open between frames."""


def _numbered(clip: Clip) -> list[Path]:
    """Return the folder's images in the order of their numbers."""
    images: dict[int, Path] = {}
    for path in sorted(clip.path.iterdir()):
        number = NUMBER.search(path.stem)
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if number is None:
            raise clip_error(clip, f"the name of {path.name} does not end in a frame number")
        twin = images.setdefault(int(number[1]), path)
        if twin != path:
            raise clip_error(clip, f"{twin.name} and {path.name} have the same frame number")
    if not images:
        raise clip_error(clip, f"no frame images in the folder; their names end in {', '.join(SUFFIXES)}")
    numbers = sorted(images)
    steps = np.diff(numbers)
    if len(steps) and (gaps := np.flatnonzero(steps != steps.min())).size:
        before = numbers[gaps[0]]
        raise clip_error(clip, f"frame {before + steps.min()} is missing after {images[before].name}")
    return [images[number] for number in numbers]
