"""When the frames of a file are shown, and where decoding may begin: from its packets alone, without decoding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Of H.264 and H.265: where the size of a NAL unit's length field stands in the codec's header, and which types of
# coded pictures refer to nothing before them (IDR; IDR, CRA and BLA).
LENGTH_PLACE = {"h264": 4, "hevc": 21}
H264_PICTURES, H264_ENTRY = range(1, 6), 5
HEVC_PICTURES, HEVC_ENTRIES = range(32), range(16, 22)

# NAL units of H.264 that are nothing to the pictures after them: messages, delimiters, filling.
H264_ASIDES = (6, 9, 12)


class PacketInfo(NamedTuple):
    """What is kept of a packet.

    Args:
        time: when its frame is shown, in the stream's unit.
        is_key: marked as a key frame by the container.
        is_entry: a key frame that refers to nothing before it.
        is_discard: decoded but not shown.
        is_spare: no other frame refers to its frame.
        size: in bytes.
    """

    time: int | None
    is_key: bool
    is_entry: bool
    is_discard: bool
    is_spare: bool
    size: int


class Stretch(NamedTuple):
    """Packets that decode without those before them.

    Args:
        first: index of the first frame they show.
        start, stop: numbers of the first packet and of the one after the last.
    """

    first: int
    start: int
    stop: int


@dataclass(frozen=True)
class FrameIndex:
    """The frames of a file in the order they are shown.

    Args:
        times: when each frame is shown, in the stream's unit; ``None`` where the file does not say.
        seconds: float64 ``[F]``, after the first frame.
        undecodable: numbers of the packets that no decoder can decode, and that none is given.
        seekable: decoding may begin at any key frame: nothing shown later depends on what came before it.
        stretches: in order; a single one if the file is not seekable.
        spare: of the packets that others decode without: number of the packet to index of its frame.
    """

    times: tuple[int | None, ...]
    seconds: npt.NDArray[np.float64]
    undecodable: frozenset[int]
    seekable: bool
    stretches: tuple[Stretch, ...]
    spare: Mapping[int, int]


def is_entry(codec: str, header: bytes | None, packet: memoryview) -> bool:
    """Return whether decoding may begin at a key packet.

    Containers also mark as key frames where an H.264 picture merely starts to recover (intra refresh): decoders that
    seek there show pictures of other frames, and say nothing.

    Args:
        codec: its canonical name.
        header: of the codec, as mp4 and Matroska keep it (avcC, hvcC).
        packet: NAL units, each after its length.
    """
    if codec not in LENGTH_PLACE:
        return True
    for first in _unit_headers(codec, header, packet):
        if codec == "h264" and first & 31 in H264_PICTURES:
            return first & 31 == H264_ENTRY
        if codec == "hevc" and first >> 1 & 63 in HEVC_PICTURES:
            return first >> 1 & 63 in HEVC_ENTRIES
    return False


def is_spare(codec: str, header: bytes | None, packet: memoryview) -> bool:
    """Return whether an H.264 packet says that no other picture refers to its own (``nal_ref_idc`` 0 in all slices).

    Args: as of ``is_entry``.
    """
    slices = 0
    for first in _unit_headers(codec, header, packet) if codec == "h264" else ():
        if first & 31 in H264_PICTURES and not first >> 5 & 3:
            slices += 1
        elif first & 31 not in H264_ASIDES:
            return False
    return slices > 0


def _unit_headers(codec: str, header: bytes | None, packet: memoryview) -> Iterator[int]:
    """Yield the first byte of each NAL unit; nothing where it is not known how long their length fields are."""
    place = LENGTH_PLACE[codec]
    if header is None or len(header) <= place or header[0] != 1:
        return
    width, position = (header[place] & 3) + 1, 0
    while position + width < len(packet):
        body = position + width
        yield packet[body]
        position = body + int.from_bytes(packet[position:body], "big")


def undecodable_packets(packets: Sequence[PacketInfo]) -> frozenset[int]:
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


def closed_stretches(packets: Sequence[PacketInfo]) -> tuple[Stretch, ...]:
    """Return the stretches of a file of one frame a packet, from key frame to key frame; none if one is not closed.

    Closed are those that begin with an entry, and whose packets are all shown after it and before the next one.
    """
    coded = [(number, packet) for number, packet in enumerate(packets) if packet.size]
    starts = [place for place, (_, packet) in enumerate(coded) if packet.is_key]
    if not starts or starts[0] != 0 or not all(coded[place][1].is_entry for place in starts):
        return ()
    found, latest = [], -1
    for start, stop in pairwise([*starts, len(coded)]):
        times = [packet.time for _, packet in coded[start:stop] if packet.time is not None]
        if len(times) < stop - start or min(times) < times[0] or (start and times[0] <= latest):
            return ()
        latest = max(times)
        found.append(Stretch(start, coded[start][0], coded[stop - 1][0] + 1))
    return tuple(found)
