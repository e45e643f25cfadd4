"""Base of the readers that let another library seek: check that seeking is exact."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import closing

import numpy as np

from hoi_train.core.records import Clip, ClipError
from hoi_train.data.readers.base import Reader, clip_error
from hoi_train.data.readers.pyav_reader import PyAVReader

COLOUR_ROUNDING = 2  # the libraries have different versions of FFmpeg's colour conversion


class SeekingReader(Reader):
    """Let a library decode each frame from the key frame before it, in one thread.

    These libraries return wrong frames without an error. So PyAV first reads the packets and decodes the first frame
    (about 2 ms). A file is refused if seeking in it is not safe, if the library finds other frames, or if its first
    picture differs (the libraries do not undo mirroring).
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
        seen = self.read([0])[0]
        if seen.shape != first.shape or int(np.abs(seen.astype(np.int16) - first).max()) > COLOUR_ROUNDING:
            raise self._refusal("decodes its first frame differently from PyAV")

    def _refusal(self, text: str) -> ClipError:
        return clip_error(self.clip, f"{self.library} {text}; use reader: auto")

    @abstractmethod
    def _open(self) -> None:
        """Open the file with the library; raises ``ClipError`` if its frames are not those of ``timestamps``."""


def first_line(error: Exception) -> str:
    """Return the first line of a library's message, without its own trace."""
    return str(error).strip().partition("\n")[0]
