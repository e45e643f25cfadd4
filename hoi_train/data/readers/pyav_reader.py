"""Decode in sequence with PyAV: the exact frames of any sound file.

No seeking: the frames returned by seeking decoders are wrong, without an error, on stream-copied trims, open GOPs,
transport streams and Xvid files. Every decoded frame's time is compared with the time that was due; a file that does
not keep its promise is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import numpy.typing as npt

from hoi_train.data.readers.base import Image, Reader, clip_error
from hoi_train.records import Clip

# Containers that hold their video themselves: a playlist or a concat script would open other files.
CONTAINERS = ("mov", "matroska", "avi", "mpegts", "mpeg", "asf", "flv", "ogg")
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(CONTAINERS)}

# One packet of these is one frame with its own time, so frames can be counted without decoding. Not so for VP8
# (hidden frames), packed MPEG-4 (two frames a packet), or any codec in avi, which stores no times at all.
ONE_FRAME_A_PACKET = ("h264", "hevc", "vp9", "av1")

# Without this, 4 of 10 single flipped bits in an H.264 stream give wrong pictures and no error.
STRICT = {"err_detect": "explode"}

FAULTS = (av.FFmpegError, OSError, ValueError)


@dataclass(frozen=True)
class FrameIndex:
    """The frames of a file in the order they are shown.

    Args:
        times: presentation time of each frame, in the stream's unit; ``None`` where the file has none.
        seconds: float64 ``[F]``, after the first frame.
        seekable: decoding may begin at any key frame: nothing shown later depends on what came before it.
    """

    times: tuple[int | None, ...]
    seconds: npt.NDArray[np.float64]
    seekable: bool


class PyAVReader(Reader):
    """Decode from the first frame on, in one thread, until the last frame wanted; convert only the wanted ones.

    Frames are turned upright by the file's display matrix (quarter turns and mirrors). Pixels are taken as square.
    """

    def __init__(self, clip: Clip) -> None:
        super().__init__(clip)
        self._index = index_frames(clip)
        self.timestamps = self._index.seconds

    def _decode(self, wanted: npt.NDArray[np.int64]) -> Iterator[Image]:
        remaining = iter(wanted.tolist())
        due = next(remaining, None)
        for number, frame in enumerate(_decoded(self.clip)):
            self._check(number, frame)
            if number == due:
                yield _upright(self.clip, frame)
                due = next(remaining, None)
            if due is None:
                return
        if due is not None:
            raise clip_error(self.clip, f"it ends before frame {due} of {len(self.timestamps)}: damaged or cut off")

    def _check(self, number: int, frame: av.VideoFrame) -> None:
        times = self._index.times
        if number >= len(times) or frame.pts != times[number] or frame.is_corrupt:
            raise clip_error(
                self.clip,
                f"frame {number} of {len(times)} does not decode: the file is damaged, or cut where it cannot be",
            )

    def close(self) -> None:
        """The file is open only while frames are decoded."""


def index_frames(clip: Clip) -> FrameIndex:
    """Find when the frames of a file are shown, from its packets where that is exact, else by decoding them all.

    Raises:
        ClipError: not a video file, or without any frame.
    """
    with _opened(clip) as (container, stream):
        keep = _Decodable()
        packets = [packet for packet in container.demux(stream) if packet.size]
        kept = [packet for packet in packets if keep(packet)]
        times: list[int | None] = [packet.pts for packet in kept if not packet.is_discard]
        codec = stream.codec_context.codec.canonical_name
        exact = codec in ONE_FRAME_A_PACKET and container.format.name != "avi" and _distinct(times)
        unit, rate = stream.time_base, stream.average_rate
        container_seeks = container.format.name.startswith(("mov", "matroska"))
    if exact:
        times.sort(key=lambda time: time or 0)
    else:
        times = [frame.pts for frame in _decoded(clip)]
    if not times:
        raise clip_error(clip, "its video stream has no frames")
    seekable = exact and container_seeks and len(times) == len(packets) and _closed(packets)
    return FrameIndex(tuple(times), _seconds(clip, times, unit, rate), seekable)


def _distinct(times: list[int | None]) -> bool:
    return None not in times and len(set(times)) == len(times)


def _closed(packets: list[av.Packet]) -> bool:
    """Return whether no packet after a key frame is shown before it."""
    latest_key = None
    for packet in packets:
        if packet.is_keyframe:
            latest_key = packet.pts
        elif latest_key is None or packet.pts < latest_key:
            return False
    return True


def _seconds(
    clip: Clip, times: list[int | None], unit: Fraction | None, rate: Fraction | None
) -> npt.NDArray[np.float64]:
    known = np.array([time for time in times if time is not None], dtype=np.int64)
    if len(known) == len(times) and (np.diff(known) > 0).all() and unit:
        return (known - known[0]) * unit.numerator / unit.denominator
    if not rate:
        raise clip_error(clip, "its frames have neither times nor a rate; re-encode it: hoi-data reencode")
    return np.arange(len(times)) * rate.denominator / rate.numerator


class _Decodable:
    """Say of packets, in the order of the file, whether a decoder that begins here can decode them.

    What comes before the first key frame cannot be, nor the packets after it that are shown before it: the leading
    pictures of a cut open GOP, which refer to frames that are not in the file.
    """

    def __init__(self) -> None:
        self._first: av.Packet | None = None

    def __call__(self, packet: av.Packet) -> bool:
        if self._first is None and packet.is_keyframe:
            self._first = packet
        if self._first is None:
            return not packet.size  # the empty packet at the end makes the decoder give its last frames
        return packet.pts is None or self._first.pts is None or packet.pts >= self._first.pts


@contextmanager
def _opened(clip: Clip) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a file as video; whatever fails inside becomes a ``ClipError``."""
    if clip.path.is_dir():
        raise clip_error(clip, "a folder, not a video file; use reader: auto")
    try:
        with av.open(f"file:{clip.path}", container_options=OPTIONS) as container:
            if not container.streams.video:
                raise clip_error(clip, "it has no video stream")
            stream = container.streams.video[0]
            # One thread a worker: two threads win alone, but lose where every core has a worker.
            stream.codec_context.thread_count = 1
            stream.thread_type = "NONE"
            stream.codec_context.options = STRICT
            yield container, stream
    except FAULTS as error:
        raise clip_error(clip, f"cannot be read as video: {getattr(error, 'strerror', None) or error}") from None


def _decoded(clip: Clip) -> Iterator[av.VideoFrame]:
    """Yield all decodable frames of a file in the order they are shown."""
    with _opened(clip) as (container, stream):
        keep = _Decodable()
        for packet in container.demux(stream):
            if keep(packet):
                yield from packet.decode()


def _upright(clip: Clip, frame: av.VideoFrame) -> Image:
    """Return a frame as RGB, turned and mirrored as its display matrix says.

    The matrix takes pixel (x, y) to x' = a x + c y, y' = b x + d y.
    """
    image: Image = frame.to_ndarray(format="rgb24")
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    a, b, _, c, d = np.sign(np.frombuffer(matrix, dtype=np.int32)[:5]).tolist()
    if (a != 0) + (b != 0) != 1 or (a, b) != (d if a * d > 0 else -d, c if b * c > 0 else -c):
        raise clip_error(
            clip, "turned by an angle that is not a multiple of 90 degrees; re-encode it: hoi-data reencode"
        )
    across, down = (a, d) if a else (c, b)
    turned = image if a else image.swapaxes(0, 1)
    return np.ascontiguousarray(turned[::down, ::across])
