"""What the readers that leave seeking to another library have in common: the proof that it may seek."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import closing

import numpy as np

from hoi_train.core.records import Clip, ClipError
from hoi_train.data.readers.base import Image, Reader, clip_error
from hoi_train.data.readers.pyav_reader import PyAVReader

# The libraries carry different versions of FFmpeg's colour conversion.
COLOUR_ROUNDING = 2


class SeekingReader(Reader):
    """Let a library decode only what each wanted frame needs, from the key frame before it on, in one thread.

    These libraries do not say when they return wrong frames. So PyAV looks through the packets and decodes the first
    frame before (about 2 ms); refused is a file in which seeking is not safe, in which the library sees other frames,
    or whose first picture it shows in another way (mirrored video is left as it is).
    """

    library: str

    def __init__(self, clip: Clip) -> None:
        super().__init__(clip)
        with closing(PyAVReader(clip)) as exact:
            if not exact.index.seekable:
                text = "seeking in it is not exact; use reader: auto, or re-encode it: hoi-data reencode"
                raise clip_error(clip, text)
            self.timestamps = exact.timestamps
            first = exact.read([0])[0]
        self._open()
        self._check_picture(first)

    def _check_picture(self, first: Image) -> None:
        seen = self.read([0])[0]
        if seen.shape != first.shape or int(np.abs(seen.astype(np.int16) - first).max()) > COLOUR_ROUNDING:
            raise self._refusal("shows its first frame in another way than PyAV")

    def _refusal(self, text: str) -> ClipError:
        return clip_error(self.clip, f"{self.library} {text}; use reader: auto")

    @abstractmethod
    def _open(self) -> None:
        """Open the file with the library; raises ``ClipError`` if it sees other frames than ``timestamps``."""


def first_line(error: Exception) -> str:
    """Return what a library says first; more is a trace of its own."""
    return str(error).strip().partition("\n")[0]
