"""Write pictures as a video file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from hoi_train.core.disk import whole_file

TICK = Fraction(1, 90_000)
X264 = {"preset": "veryfast", "crf": "20"}


def write_video(path: Path, pictures: Iterable[npt.NDArray[np.uint8]], seconds: Sequence[float]) -> None:
    """Encode RGB pictures as H.264 in mp4; the file appears when it is complete.

    Args:
        path: the file; its folder must be there.
        pictures: uint8 ``[H, W, 3]``, all of one size; an odd side is drawn out by one pixel.
        seconds: when each is shown, ascending.

    Raises:
        OSError: the file cannot be written.
    """
    between = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1.0
    rate = Fraction(1 / between).limit_denominator(1001)  # how long the last one is shown
    with whole_file(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=X264)
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", TICK
        for number, (picture, moment) in enumerate(zip(pictures, seconds, strict=True)):
            height, width = picture.shape[:2]
            even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
            if number == 0:
                stream.height, stream.width = even.shape[:2]
            frame = av.VideoFrame.from_ndarray(even, format="rgb24")
            frame.pts, frame.time_base = round(moment / TICK), TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
