"""Decode with decord, which brings its own FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator

import decord
import numpy as np
import numpy.typing as npt

from hoi_train.data.readers.base import Image, clip_error
from hoi_train.data.readers.seeking import SeekingReader, first_line

# More recovered frames than this share of the file is an error: decord replaces what it cannot decode by neighbours.
FAULT_TOLERANCE = 1e-9

# Its times are float32.
TIME_ROUNDING = 1e-3

FAULTS = (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, StopIteration)


class DecordReader(SeekingReader):
    """Let decord seek, in files in which that is exact; see ``SeekingReader``."""

    library = "decord"

    def _open(self) -> None:
        try:
            self._video = decord.VideoReader(str(self.clip.path), num_threads=1, fault_tol=FAULT_TOLERANCE)
            times = self._video.get_frame_timestamp(np.arange(len(self._video)))[:, 0]
        except (*FAULTS, AssertionError) as error:
            raise self._refusal(f"cannot read it ({first_line(error)})") from None
        due = self.timestamps
        if len(times) != len(due) or not np.allclose(times - times[0], due, rtol=1e-6, atol=TIME_ROUNDING):
            raise self._refusal(f"sees {len(times)} frames at other times than the file's {len(due)}")

    def _decode(self, wanted: npt.NDArray[np.int64]) -> Iterator[Image]:
        for index in wanted:
            try:
                yield _without_padding(self._video[int(index)].asnumpy())
            except FAULTS as error:
                raise clip_error(self.clip, f"frame {index} does not decode: {first_line(error)}") from None

    def close(self) -> None:
        """Free the decoder."""
        del self._video


def _without_padding(picture: Image) -> Image:
    """Return the colours of a picture whose rows decord has padded: at widths of 16, 24, 48 and 72 it shows them so."""
    height, width, depth = picture.shape
    return picture if depth == 3 else picture.reshape(height, width * depth)[:, : 3 * width].reshape(height, width, 3)
