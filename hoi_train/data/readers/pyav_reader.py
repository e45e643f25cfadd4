"""Decode in sequence with PyAV: the exact frames of any sound file.

No seeking: the frames that seeking decoders return are wrong, without an error, on stream-copied trims, open GOPs,
transport streams and Xvid files. Every decoded frame's time is compared with the time that was due; a file that does
not keep its promise is refused.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer

from hoi_train.data.readers.base import Image, Reader, clip_error
from hoi_train.records import Clip

# Containers that hold their video themselves: a playlist or a concat script would open other files.
CONTAINERS = ("mov", "matroska", "avi", "mpegts", "mpeg", "asf", "flv", "ogg")
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(CONTAINERS)}

# One packet of these is one frame with its own time, so frames can be counted without decoding. Not so for VP8
# (hidden frames), packed MPEG-4 (two frames a packet), or any codec in avi, which stores no times at all.
ONE_FRAME_A_PACKET = ("h264", "hevc", "vp9", "av1")

PNG = b"\x89PNG"

FAULTS = (av.FFmpegError, OSError, ValueError)


class PacketInfo(NamedTuple):
    """What is kept of a packet; ``time`` is when its frame is shown, in the stream's unit."""

    time: int | None
    is_key: bool
    is_discard: bool
    size: int


@dataclass(frozen=True)
class FrameIndex:
    """The frames of a file in the order they are shown.

    Args:
        times: when each frame is shown, in the stream's unit; ``None`` where the file does not say.
        seconds: float64 ``[F]``, after the first frame.
        undecodable: numbers of the packets that no decoder can decode, and that none is given.
        seekable: decoding may begin at any key frame: nothing shown later depends on what came before it.
    """

    times: tuple[int | None, ...]
    seconds: npt.NDArray[np.float64]
    undecodable: frozenset[int]
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
        with closing(_decoded(self.clip, self._index.undecodable)) as frames:
            for number, frame in enumerate(frames):
                if due is None:
                    return
                self._check(number, frame)
                if number == due:
                    yield _upright(self.clip, frame)
                    due = next(remaining, None)
        if due is not None:
            raise clip_error(self.clip, f"it ends before frame {due} of {len(self.timestamps)}: damaged or cut off")

    def _check(self, number: int, frame: av.VideoFrame) -> None:
        times = self._index.times
        # The decoder itself raises for few faults; most damaged frames it patches up and marks.
        if number >= len(times) or frame.pts != times[number] or frame.is_corrupt:
            raise clip_error(self.clip, f"frame {number} of {len(times)} does not decode: the file is damaged")

    def close(self) -> None:
        """Nothing to do: the file is open only while frames are decoded."""


def index_frames(clip: Clip) -> FrameIndex:
    """Find when the frames of a file are shown: from its packets where that is exact, else by decoding all of them.

    Raises:
        ClipError: not a video file, or without any frame.
    """
    with _opened(clip) as (container, stream):
        packets = [PacketInfo(p.pts, p.is_keyframe, p.is_discard, p.size) for p in container.demux(stream)]
        codec, form = stream.codec_context.codec.canonical_name, container.format.name
        unit, rate = stream.time_base, stream.average_rate
    undecodable = _undecodable(packets)
    coded = [p for number, p in enumerate(packets) if p.size and number not in undecodable]
    shown = [p.time for p in coded if p.time is not None and not p.is_discard]
    exact = codec in ONE_FRAME_A_PACKET and form != "avi"
    exact = exact and len(set(shown)) == sum(not p.is_discard for p in coded)
    times = tuple(sorted(shown)) if exact else tuple(frame.pts for frame in _decoded(clip, undecodable))
    if not times:
        raise clip_error(clip, "its video stream has no frames")
    seekable = exact and form.startswith(("mov", "matroska")) and len(times) == len(coded) and _closed(packets)
    return FrameIndex(times, _seconds(clip, times, unit, rate), undecodable, seekable)


def _undecodable(packets: Sequence[PacketInfo]) -> frozenset[int]:
    """Return the numbers of the packets that refer to frames which are not in the file.

    That is what comes before the first key frame, and what comes after it but is shown before it: the leading
    pictures of an open GOP, left over when a video was cut without being encoded again.
    """
    first = next((number for number, packet in enumerate(packets) if packet.is_key), 0)
    start = packets[first].time if packets else None
    leading = (
        number
        for number, packet in enumerate(packets[first:], start=first)
        if packet.time is not None and start is not None and packet.time < start
    )
    return frozenset(range(first)).union(leading)


def _closed(packets: Sequence[PacketInfo]) -> bool:
    """Return whether all packets after a key frame are shown after it."""
    key = None
    for packet in packets:
        if packet.is_key:
            key = packet.time
        elif packet.size and (key is None or packet.time is None or packet.time < key):
            return False
    return True


def _seconds(
    clip: Clip, times: Sequence[int | None], unit: Fraction | None, rate: Fraction | None
) -> npt.NDArray[np.float64]:
    known = np.array([time for time in times if time is not None], dtype=np.int64)
    if unit and len(known) == len(times) and (np.diff(known) > 0).all():
        return np.asarray((known - known[0]) * unit.numerator / unit.denominator)
    if not rate:
        raise clip_error(clip, "its frames have neither times nor a rate; re-encode it: hoi-data reencode")
    return np.asarray(np.arange(len(times)) * rate.denominator / rate.numerator)


@contextmanager
def _opened(clip: Clip) -> Iterator[tuple[InputContainer, av.VideoStream]]:
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
            yield container, stream
    except FAULTS as error:
        raise clip_error(clip, f"cannot be read as video: {_reason(error)}") from None


def _decoded(clip: Clip, undecodable: frozenset[int]) -> Generator[av.VideoFrame, None, None]:
    """Yield the frames of a file in the order they are shown, its undecodable packets left out."""
    with _opened(clip) as (container, stream):
        for number, packet in enumerate(container.demux(stream)):
            if number not in undecodable:
                yield from packet.decode()


def decode_image(clip: Clip, path: Path) -> Image:
    """Decode a JPEG or PNG file of a frame folder, uint8 ``[H, W, 3]``; raises ``ClipError`` if it is not whole."""
    try:
        data = path.read_bytes()
        decoder = av.CodecContext.create("png" if data.startswith(PNG) else "mjpeg", "r")
        decoder.options, decoder.thread_count = {"err_detect": "explode"}, 1  # the default fills a cut image with grey
        (frame,) = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except FAULTS as error:
        raise clip_error(clip, f"{path.name} is not a whole JPEG or PNG image: {_reason(error)}") from None
    return _upright(clip, frame)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _upright(clip: Clip, frame: av.VideoFrame) -> Image:
    """Return a frame as RGB, turned and mirrored as its display matrix says.

    The matrix takes pixel (x, y) to x' = a x + c y, y' = b x + d y.
    """
    # One thread: by default each frame's conversion starts threads of its own, which takes 25 times as long.
    image: Image = np.asarray(frame.reformat(format="rgb24", threads=1).to_ndarray(), dtype=np.uint8)
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5].tolist()
    if (a, d) == (0, 0) and b and c:
        image, across, down = image.swapaxes(0, 1), c, b
    elif (b, c) == (0, 0) and a and d:
        across, down = a, d
    else:
        text = "turned by an angle that is not a multiple of 90 degrees; re-encode it: hoi-data reencode"
        raise clip_error(clip, text)
    return np.ascontiguousarray(image[:: 1 if down > 0 else -1, :: 1 if across > 0 else -1])
