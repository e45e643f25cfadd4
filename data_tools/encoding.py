"""Write H.264 mp4 files with deterministic bytes and exact seeking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
import numpy.typing as npt

from hoi_train.core.disk import whole_file

# One thread: x264's slices, and so its bytes, depend on the number of threads. No B-frames and a key frame every 12
# frames: every reader finds every frame, and a seek decodes at most 12.
# Without lookahead and weighted prediction: with them 4 of 1600 encodings of the same frames differed under load.
EXACT = "rc-lookahead=0:mbtree=0:weightp=0"
X264 = {
    "preset": "veryfast",
    "crf": "21",
    "threads": "1",
    "g": "12",
    "bf": "0",
    "tune": "fastdecode",
    "x264-params": EXACT,
}


class Mp4Writer:
    """Write RGB frames to an mp4 file one by one; a context manager that completes the file on exit.

    Args:
        path: the file, written in place.
        fps: frames per second.
        size: even width and height that frames are resized to; ``None`` keeps their size.
        x264: the encoder's options.
        faststart: write the index before the frames, so that playback over a network starts at once.
    """

    def __init__(
        self,
        path: Path,
        fps: Fraction | int,
        *,
        size: tuple[int, int] | None = None,
        x264: Mapping[str, str] = X264,
        faststart: bool = False,
    ) -> None:
        self.fps, self.size, self.x264, self.count = Fraction(fps), size, x264, 0
        options = {"fflags": "+bitexact", **({"movflags": "+faststart"} if faststart else {})}
        self._container = av.open(f"file:{path}", "w", format="mp4", options=options)
        self._stream: av.VideoStream | None = None

    def write(self, image: npt.NDArray[np.uint8]) -> None:
        """Encode a frame ``[H, W, 3]``."""
        width, height = self.size or (image.shape[1], image.shape[0])
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self.fps, options=dict(self.x264))
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        # One thread here too: with several, 10 of 1600 encodings of the same frames differed.
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = frame.reformat(
            width, height, format="yuv420p", interpolation="BICUBIC" if self.size else None, threads=1
        )
        frame.pts, frame.time_base = self.count, 1 / self.fps
        self._container.mux(self._stream.encode(frame))
        self.count += 1

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._stream is not None and kind is None:
                self._container.mux(self._stream.encode())
        finally:
            self._container.close()


def write_mp4(path: Path, frames: Iterable[npt.NDArray[np.uint8]], *, fps: int) -> None:
    """Encode RGB frames ``[H, W, 3]`` of even height and width; the file appears when it is complete."""
    with whole_file(path) as partial:
        with Mp4Writer(partial, fps) as writer:
            for image in frames:
                writer.write(image)
        if not writer.count:
            raise ValueError(f"{path}: no frame to write")
