"""Decode with decord, which contains its own FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator

import decord
import numpy as np
import numpy.typing as npt

from hoi_train.data.readers.base import Image, clip_error
from hoi_train.data.readers.seeking import SeekingReader, first_line

FAULT_TOLERANCE = 1e-9  # allowed share of frames that decord replaces by neighbours because they do not decode
TIME_ROUNDING = 1e-3  # its times are float32

FAULTS = (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, StopIteration)


class DecordReader(SeekingReader):
    """Let decord seek in files in which that is exact; see `SeekingReader`."""

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
        """Close the decoder."""
        del self._video


def _without_padding(picture: Image) -> Image:
    """Remove the padding that decord leaves in the rows of pictures 16, 24, 48 or 72 pixels wide."""
    height, width, depth = picture.shape
    return picture if depth == 3 else picture.reshape(height, width * depth)[:, : 3 * width].reshape(height, width, 3)
