"""Decode with decord, which seeks: fast where few frames of many are wanted, exact only in files fit for it."""

from __future__ import annotations

from collections.abc import Iterator

import decord
import numpy as np
import numpy.typing as npt

from hoi_train.data.readers.base import Image, Reader, clip_error
from hoi_train.data.readers.pyav_reader import PyAVReader, index_frames
from hoi_train.records import Clip

# More recovered frames than this share of the file is an error: decord replaces what it cannot decode by neighbours.
FAULT_TOLERANCE = 1e-9

# The two libraries carry different versions of FFmpeg's colour conversion.
COLOUR_ROUNDING = 2

FAULTS = (decord.DECORDError, decord.DECORDLimitReachedError, RuntimeError, StopIteration)


class DecordReader(Reader):
    """Decode only what each wanted frame needs, from the key frame before it on, in one thread.

    The packets are looked through first (about 1 ms): decord does not say when it returns wrong frames, and its times
    are rounded to float32. A file in which seeking is not safe, or of which decord sees other frames, is refused; so
    is one not from our tools whose first picture differs from PyAV's (decord leaves mirrored video as it is).
    """

    def __init__(self, clip: Clip) -> None:
        super().__init__(clip)
        index = index_frames(clip)
        if not index.seekable:
            raise clip_error(clip, "seeking in it is not exact; use reader: auto, or re-encode it: hoi-data reencode")
        self.timestamps = index.seconds
        try:
            self._video = decord.VideoReader(str(clip.path), num_threads=1, fault_tol=FAULT_TOLERANCE)
            times = self._video.get_frame_timestamp(np.arange(len(self._video)))[:, 0]
        except (*FAULTS, AssertionError) as error:
            raise clip_error(clip, f"decord cannot read it ({_first_line(error)}); use reader: auto") from None
        if len(times) != len(index.seconds) or not np.allclose(times - times[0], index.seconds, rtol=1e-6, atol=1e-3):
            text = f"decord sees {len(times)} frames at other times than the file's {len(index.seconds)}"
            raise clip_error(clip, f"{text}; use reader: auto")
        if not clip.seekable:
            self._check_picture(PyAVReader(clip).read([0])[0])

    def _check_picture(self, first: Image) -> None:
        seen = self.read([0])[0]
        if seen.shape != first.shape or int(np.abs(seen.astype(np.int16) - first).max()) > COLOUR_ROUNDING:
            raise clip_error(self.clip, "decord shows its first frame in another way than PyAV; use reader: auto")

    def _decode(self, wanted: npt.NDArray[np.int64]) -> Iterator[Image]:
        for index in wanted:
            try:
                yield _without_padding(self._video[int(index)].asnumpy())
            except FAULTS as error:
                raise clip_error(self.clip, f"frame {index} does not decode: {_first_line(error)}") from None

    def close(self) -> None:
        """Free the decoder."""
        del self._video


def _without_padding(picture: Image) -> Image:
    """Return the colours of a picture whose rows decord has padded: at widths of 16, 24, 48 and 72 it shows them so."""
    height, width, depth = picture.shape
    return picture if depth == 3 else picture.reshape(height, width * depth)[:, : 3 * width].reshape(height, width, 3)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
