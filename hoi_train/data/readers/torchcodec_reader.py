"""Decode with torchcodec, which uses the system's FFmpeg libraries."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torchcodec
from torchcodec.decoders import VideoDecoder

from hoi_train.data.readers.base import MICROSECOND, Image, clip_error
from hoi_train.data.readers.seeking import SeekingReader, first_line

if torchcodec.ffmpeg_major_version is None:
    raise ImportError("it finds no FFmpeg libraries (Debian and Ubuntu: apt-get install ffmpeg)")

BATCH = 16  # frames decoded per call; limits memory

FAULTS = (RuntimeError, ValueError, IndexError)


class TorchcodecReader(SeekingReader):
    """Let torchcodec seek in files in which that is exact, see `SeekingReader`; the time of every frame is checked.

    It conceals damaged frames without an error: run ``hoi-data verify`` first.
    """

    library = "torchcodec"

    def _open(self) -> None:
        path = str(self.clip.path)
        try:
            self._video = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
        except FAULTS as error:
            raise self._refusal(f"cannot read it ({first_line(error)})") from None
        if len(self._video) != len(self.timestamps):
            raise self._refusal(f"sees {len(self._video)} frames, the file has {len(self.timestamps)}")

    def _decode(self, wanted: npt.NDArray[np.int64]) -> Iterator[Image]:
        for start in range(0, len(wanted), BATCH):
            indices = wanted[start : start + BATCH]
            try:
                found = self._video.get_frames_at(indices.tolist())
            except FAULTS as error:
                self._open()  # otherwise it continues after the damage, with concealed frames
                text = f"one of the frames {indices[0]} to {indices[-1]} does not decode: {first_line(error)}"
                raise clip_error(self.clip, text) from None
            times = found.pts_seconds.numpy() - self._video.metadata.begin_stream_seconds
            if not np.allclose(times, self.timestamps[indices], rtol=0, atol=MICROSECOND):
                raise self._refusal(f"gives other frames than those at {indices.tolist()}")
            yield from found.data.numpy()

    def close(self) -> None:
        """Close the decoder."""
        del self._video
