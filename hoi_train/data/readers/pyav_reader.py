"""Decode with PyAV: the exact frames of any intact file.

Decoding begins at the key frame before a wanted frame if the packets prove that this is exact, otherwise at the first
frame of the file: seeking decoders return wrong frames, without an error, on stream-copied trims, open GOPs, transport
streams and Xvid files. Frames that no other frame refers to are skipped on the way. The time of every decoded frame is
compared with the expected one; a file with other times is refused.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Generator, Iterable, Iterator, Sequence, Set
from contextlib import closing, contextmanager
from fractions import Fraction
from itertools import count, groupby, islice
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer

from hoi_train.core.records import Clip, ClipError
from hoi_train.data.readers.base import Image, Reader, clip_error
from hoi_train.data.readers.packet_index import (
    FrameIndex,
    PacketInfo,
    Stretch,
    closed_stretches,
    is_entry,
    is_spare,
    undecodable_packets,
)

# Containers that hold the video themselves; a playlist or concat script would open other files.
CONTAINERS = ("mov", "matroska", "avi", "mpegts", "mpeg", "asf", "flv", "ogg")
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": ",".join(CONTAINERS)}

# One packet of these is one frame with its own time, so frames can be counted without decoding. Not so VP8 (hidden
# frames), packed MPEG-4 (two frames per packet), or any codec in avi, which stores no times.
ONE_FRAME_PER_PACKET = ("h264", "hevc", "vp9", "av1")

PNG = b"\x89PNG"

FAULTS = (av.FFmpegError, OSError, ValueError)

KEPT_BYTES = 32 << 20  # packets of larger files are not kept in memory but read again

Packet: TypeAlias = "av.Packet[av.VideoStream]"
Packets: TypeAlias = "Iterable[tuple[int, Packet]]"


class PyAVReader(Reader):
    """Decode in one thread from the nearest safe key frame before each wanted frame; only those are converted.

    Frames are made upright by the file's display matrix (rotations by 90 degrees and mirrors). Pixels count as square.

    Attributes:
        index: frame times and starting points.
    """

    index: FrameIndex

    def __init__(self, clip: Clip) -> None:
        super().__init__(clip)
        self._ready: InputContainer | None = _open(clip)
        try:
            self.index, self._kept = _index(clip, self._ready)
        except ClipError:
            self.close()
            raise
        self.timestamps = self.index.seconds
        if self._kept is None:
            self.close()

    def _decode(self, wanted: npt.NDArray[np.int64]) -> Iterator[Image]:
        container, self._ready = self._ready or _open(self.clip), None
        try:
            yield from self._from(container, wanted)
        finally:
            # Kept for the next call: opening takes an eighth of the time of reading a short clip.
            if self.index.seekable and self._kept is not None and self._ready is None:
                self._ready = container
            else:
                container.close()

    def _from(self, container: InputContainer, wanted: npt.NDArray[np.int64]) -> Iterator[Image]:
        codec, stretches = container.streams.video[0].codec_context, self.index.stretches
        packets = _numbered(container) if self._kept is None else enumerate(self._kept)
        firsts = [stretch.first for stretch in stretches]
        asked = set(wanted.tolist())
        passed = {number: index for number, index in self.index.spare.items() if index not in asked}
        left_out, missing = self.index.undecodable | passed.keys(), set(passed.values())
        for place, due in groupby(wanted.tolist(), key=lambda index: bisect_right(firsts, index) - 1):
            part = _part(packets, stretches[place])
            with closing(_decoded(self.clip, part, codec, left_out)) as frames:
                numbers = (number for number in count(firsts[place]) if number not in missing)
                yield from self._due(list(due), zip(numbers, frames, strict=False))

    def _due(self, due: list[int], frames: Iterable[tuple[int, av.VideoFrame]]) -> Iterator[Image]:
        for number, frame in frames:
            self._check(number, frame)
            if number == due[0]:
                yield _upright(self.clip, frame)
                due = due[1:]
                if not due:
                    return
        raise clip_error(self.clip, f"it ends before frame {due[0]} of {len(self.timestamps)}: damaged or cut off")

    def _check(self, number: int, frame: av.VideoFrame) -> None:
        times = self.index.times
        # The decoder raises for few faults; most damaged frames it conceals and marks.
        if number >= len(times) or frame.pts != times[number] or frame.is_corrupt:
            raise clip_error(self.clip, f"frame {number} of {len(times)} does not decode: the file is damaged")

    def close(self) -> None:
        """Close the file and free its packets."""
        self._kept = None
        if self._ready is not None:
            self._ready.close()
            self._ready = None


def index_frames(clip: Clip) -> FrameIndex:
    """Return frame times and starting points of a clip's file.

    Raises:
        ClipError: not a video file, damaged, or without any frame.
    """
    with closing(_open(clip)) as container:
        return _index(clip, container)[0]


def _index(clip: Clip, container: InputContainer) -> tuple[FrameIndex, list[Packet] | None]:
    """Return the index of an open file, and its packets unless they are too large to keep.

    Times come from the packets if that is exact, otherwise from decoding all frames.
    """
    stream = container.streams.video[0]
    codec, form = stream.codec_context.codec.canonical_name, container.format.name
    packets, kept = _scan(clip, container, codec)
    undecodable = undecodable_packets(packets)
    coded = [p for number, p in enumerate(packets) if p.size and number not in undecodable]
    shown = [p.time for p in coded if p.time is not None and not p.is_discard]
    exact = codec in ONE_FRAME_PER_PACKET and form != "avi"
    exact = exact and len(set(shown)) == sum(not p.is_discard for p in coded)
    times = tuple(sorted(shown)) if exact else tuple(_decoded_times(clip, undecodable))
    if not times:
        raise clip_error(clip, "its video stream has no frames")
    # Libraries choose differently among several video streams.
    sound = exact and form.startswith(("mov", "matroska")) and len(container.streams.video) == 1
    sound = sound and len(times) == len(coded)
    stretches = closed_stretches(packets) if sound else ()
    places = {time: index for index, time in enumerate(times)} if sound else {}
    spare = {n: places[p.time] for n, p in enumerate(packets) if p.is_spare and p.time in places}
    seconds = _seconds(clip, times, stream.time_base, stream.average_rate)
    whole = (Stretch(0, 0, len(packets)),)
    return FrameIndex(times, seconds, undecodable, bool(stretches), stretches or whole, spare), kept


def _scan(clip: Clip, container: InputContainer, codec: str) -> tuple[list[PacketInfo], list[Packet] | None]:
    header = container.streams.video[0].codec_context.extradata
    packets, kept, size = [], [], 0
    with _faults(clip):
        for _, packet in _numbered(container):
            key = packet.is_keyframe
            data = memoryview(packet)
            entry, spare = key and is_entry(codec, header, data), not key and is_spare(codec, header, data)
            packets.append(PacketInfo(packet.pts, key, entry, packet.is_discard, spare, packet.size))
            size += packet.size
            if size <= KEPT_BYTES:
                kept.append(packet)
    return packets, kept if size <= KEPT_BYTES else None


def _decoded_times(clip: Clip, undecodable: frozenset[int]) -> Iterator[int | None]:
    with closing(_open(clip)) as container:
        codec = container.streams.video[0].codec_context
        for frame in _decoded(clip, _numbered(container), codec, undecodable):
            yield frame.pts


def _seconds(
    clip: Clip, times: Sequence[int | None], unit: Fraction | None, rate: Fraction | None
) -> npt.NDArray[np.float64]:
    known = np.array([time for time in times if time is not None], dtype=np.int64)
    if unit and len(known) == len(times) and (np.diff(known) > 0).all():
        return np.asarray((known - known[0]) * unit.numerator / unit.denominator)
    if not rate:
        raise clip_error(clip, "its frames have neither times nor a rate; re-encode it: hoi-data reencode")
    return np.asarray(np.arange(len(times)) * rate.denominator / rate.numerator)


def _open(clip: Clip) -> InputContainer:
    """Open a file that has video."""
    if clip.path.is_dir():
        raise clip_error(clip, "a folder, not a video file; use reader: auto")
    with _faults(clip):
        container = av.open(f"file:{clip.path}", container_options=OPTIONS)
    if not container.streams.video:
        container.close()
        raise clip_error(clip, "it has no video stream")
    stream = container.streams.video[0]
    if stream.codec_context is None:
        container.close()
        raise clip_error(clip, "its video is in a form that FFmpeg does not know")
    # One thread: two are faster alone, but slower where every core has a worker.
    stream.codec_context.thread_count = 1
    stream.thread_type = "NONE"
    return container


@contextmanager
def _faults(clip: Clip) -> Iterator[None]:
    """Raise PyAV's errors as ``ClipError``."""
    try:
        yield
    except FAULTS as error:
        raise clip_error(clip, f"cannot be read as video: {_reason(error)}") from None


def _numbered(container: InputContainer) -> Packets:
    return enumerate(container.demux(container.streams.video[0]))


def _part(packets: Packets, stretch: Stretch) -> Packets:
    """Return the packets of a stretch; earlier ones are consumed, later ones are not."""
    begun = (item for item in packets if item[0] >= stretch.start)
    return islice(begun, stretch.stop - stretch.start)


def _decoded(
    clip: Clip, packets: Packets, codec: av.VideoCodecContext, left_out: Set[int]
) -> Generator[av.VideoFrame, None, None]:
    """Yield the frames of some packets in presentation order, without those left out."""
    with _faults(clip):
        codec.flush_buffers()  # otherwise a frame could refer to one of another stretch
        for number, packet in packets:
            if packet.size and number not in left_out:
                yield from codec.decode(packet)
        yield from codec.decode(None)


def decode_image(clip: Clip, path: Path) -> Image:
    """Decode a JPEG or PNG file of a frame folder, uint8 ``[H, W, 3]``; raises ``ClipError`` if it is incomplete."""
    try:
        data = path.read_bytes()
        decoder = av.CodecContext.create("png" if data.startswith(PNG) else "mjpeg", "r")
        decoder.options, decoder.thread_count = {"err_detect": "explode"}, 1  # the default fills with grey
        (frame,) = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    except FAULTS as error:
        raise clip_error(clip, f"{path.name} is not a whole JPEG or PNG image: {_reason(error)}") from None
    return _upright(clip, frame)


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _upright(clip: Clip, frame: av.VideoFrame) -> Image:
    """Return a frame as RGB, rotated and mirrored by its display matrix, x' = a x + c y, y' = b x + d y."""
    # By default the conversion of each frame starts its own threads, which takes 25 times as long.
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
        text = "rotated by an angle that is not a multiple of 90 degrees; re-encode it: hoi-data reencode"
        raise clip_error(clip, text)
    return np.ascontiguousarray(image[:: 1 if down > 0 else -1, :: 1 if across > 0 else -1])
