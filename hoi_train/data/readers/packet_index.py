"""Frame times and safe starting points of a file, found in its packets without decoding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Of H.264 and H.265: position of the NAL length size in the codec's header, and types of coded pictures that do not
# refer to earlier ones (IDR; IDR, CRA and BLA).
LENGTH_PLACE = {"h264": 4, "hevc": 21}
H264_PICTURES, H264_ENTRY = range(1, 6), 5
HEVC_PICTURES, HEVC_ENTRIES = range(32), range(16, 22)

# NAL units of H.264 that later pictures do not need: SEI, delimiters, filler.
H264_ASIDES = (6, 9, 12)


class PacketInfo(NamedTuple):
    """Facts about a packet.

    Args:
        time: presentation time of its frame, in the stream's unit.
        is_key: marked as a key frame by the container.
        is_entry: a key frame that does not refer to earlier frames.
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
    """Packets that decode without earlier ones.

    Args:
        first: index of their first frame.
        start, stop: numbers of the first packet and of the one after the last.
    """

    first: int
    start: int
    stop: int


@dataclass(frozen=True)
class FrameIndex:
    """The frames of a file in presentation order.

    Args:
        times: presentation time of each frame in the stream's unit; ``None`` if unknown.
        seconds: float64 ``[F]``, times after the first frame.
        undecodable: numbers of packets that cannot be decoded; they are not passed to the decoder.
        seekable: whether decoding may begin at any key frame, because no later frame depends on earlier ones.
        stretches: in order; a single one if the file is not seekable.
        spare: packets that no other packet needs, as packet number to frame index.
    """

    times: tuple[int | None, ...]
    seconds: npt.NDArray[np.float64]
    undecodable: frozenset[int]
    seekable: bool
    stretches: tuple[Stretch, ...]
    spare: Mapping[int, int]


def is_entry(codec: str, header: bytes | None, packet: memoryview) -> bool:
    """Return whether decoding may begin at a key packet.

    Containers also mark recovery points of H.264 (intra refresh) as key frames; decoders that seek there return wrong
    pictures without an error.

    Args:
        codec: canonical name.
        header: the codec's header in mp4 and Matroska (avcC, hvcC).
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
    """Return whether no other picture refers to an H.264 packet's (``nal_ref_idc`` 0 in all slices).

    Args: as of `is_entry`.
    """
    slices = 0
    for first in _unit_headers(codec, header, packet) if codec == "h264" else ():
        if first & 31 in H264_PICTURES and not first >> 5 & 3:
            slices += 1
        elif first & 31 not in H264_ASIDES:
            return False
    return slices > 0


def _unit_headers(codec: str, header: bytes | None, packet: memoryview) -> Iterator[int]:
    """Yield the first byte of each NAL unit; nothing if the size of the length fields is unknown."""
    place = LENGTH_PLACE[codec]
    if header is None or len(header) <= place or header[0] != 1:
        return
    width, position = (header[place] & 3) + 1, 0
    while position + width < len(packet):
        body = position + width
        yield packet[body]
        position = body + int.from_bytes(packet[position:body], "big")


def undecodable_packets(packets: Sequence[PacketInfo]) -> frozenset[int]:
    """Return the numbers of packets that refer to frames missing in the file.

    These precede the first key frame, or follow it but are shown before it: leading pictures of an open GOP, left when
    a video was cut without re-encoding.
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
    """Return the stretches between key frames of a file with one frame per packet; none if one is not closed.

    A closed stretch begins with an entry, and all its packets are shown after it and before the next one.
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
