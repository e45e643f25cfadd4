"""Write H.264 mp4 files whose bytes depend on the frames alone, and in which seeking is exact."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

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


def write_mp4(path: Path, frames: Iterable[npt.NDArray[np.uint8]], *, fps: int) -> None:
    """Encode RGB frames ``[H, W, 3]`` of even height and width; the file appears when it is complete."""
    partial = path.with_suffix(".partial")
    with av.open(str(partial), "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = None
        for number, image in enumerate(frames):
            if stream is None:
                stream = container.add_stream("libx264", rate=fps, options=X264)
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = "yuv420p"
            # One thread here too: converted by several, 10 of 1600 encodings of the same frames differed.
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p", threads=1)
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        if stream is None:
            raise ValueError(f"{path}: no frame to write")
        container.mux(stream.encode())
    partial.replace(path)
