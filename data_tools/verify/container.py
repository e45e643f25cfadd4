"""What a video file says of itself, held against what is in it; looked at without decoding more than a few pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import numpy.typing as npt

from data_tools.verify.records import ColourRange, Warn
from hoi_train.data.readers.pyav_reader import ONE_FRAME_PER_PACKET, OPTIONS

PICTURES = 3  # key frames whose brightness is looked at
FULL_RANGE = 2  # of ``AVColorRange``; 1 is limited, 0 is not said

# Limited range puts black at 16 and white at 235. Cameras overshoot a little, upwards more than downwards.
BELOW, ABOVE = 12, 245
SHARE_BELOW, SHARE_ABOVE = 0.01, 0.05

# How a Matroska file begins, and the part of it that holds everything else.
EBML, SEGMENT = bytes.fromhex("1a45dfa3"), bytes.fromhex("18538067")


class _Packet(NamedTuple):
    pts: int | None
    dts: int | None
    is_key: bool
    is_discard: bool


@dataclass(frozen=True)
class Container:
    """A video file from outside.

    Args:
        declared: frames by its header; 0 if it does not say.
        lacking: bytes that the header counts on and that are not there: the file was cut off.
        key_frames: how many.
        colour_range: what it says.
        warnings: what looks wrong.
    """

    declared: int
    lacking: int
    key_frames: int
    colour_range: ColourRange
    warnings: tuple[tuple[Warn, str], ...]


def look_at(path: Path) -> Container:
    """Read a file's header, packets and the brightness of a few key frames; raises what PyAV raises."""
    with av.open(f"file:{path}", container_options=OPTIONS) as container:
        stream, form = container.streams.video[0], container.format.name
        # without their data, which a hostile file can make far larger than itself
        packets = [_Packet(p.pts, p.dts, p.is_keyframe, p.is_discard) for p in container.demux(stream) if p.size]
        entries = [entry.pos + entry.size for entry in stream.index_entries] if form.startswith("mov") else []
        codec, declared = stream.codec_context.codec.canonical_name, stream.frames
    said, luma = _brightness(path)
    # avi stores no times, and counts pictures that it skips
    warnings = list(_time_warnings(packets)) if codec in ONE_FRAME_PER_PACKET and form != "avi" else []
    return Container(
        declared=declared if form != "avi" else 0,
        lacking=max(0, max(entries, default=_declared_size(path)) - path.stat().st_size),
        key_frames=sum(packet.is_key for packet in packets),
        colour_range=said,
        warnings=(*warnings, *_range_warnings(said, luma)),
    )


def _declared_size(path: Path) -> int:
    """Return the bytes that an avi or Matroska file has by its header; 0 if it does not say."""
    with path.open("rb") as file:
        start = file.read(1024)
    if start.startswith(b"RIFF"):
        return 8 + int.from_bytes(start[4:8], "little")
    place = start.find(SEGMENT) + len(SEGMENT)
    if not start.startswith(EBML) or place < len(SEGMENT) or not start[place:]:
        return 0
    # the leading zeros of a number say how many bytes it has; all ones: the writer did not know
    length = 9 - start[place].bit_length()
    value = int.from_bytes(start[place : place + length], "big") & (1 << 7 * length) - 1
    return 0 if value == (1 << 7 * length) - 1 else place + length + value


def _time_warnings(packets: Sequence[_Packet]) -> Iterator[tuple[Warn, str]]:
    shown = [packet.pts for packet in packets if not packet.is_discard]
    coded = np.array([packet.dts for packet in packets if packet.dts is not None], dtype=np.int64)
    untimed = shown.count(None)
    twice = len(shown) - untimed - len({time for time in shown if time is not None})
    backward = int((np.diff(coded) < 0).sum())
    for count, text in (
        (untimed, "have no time"),
        (twice, "have the time of another"),
        (backward, "are stored with a time before that of the frame before"),
    ):
        if count:
            yield "times", f"{count} of {len(shown)} frames {text}"


def _brightness(path: Path) -> tuple[ColourRange, npt.NDArray[np.uint8]]:
    """Return the range that the first key frames say they have, and their luma as it is stored, of 8-bit video."""
    said: ColourRange = "unspecified"
    found = [np.empty(0, np.uint8)]
    # what does not decode, the check of all frames says in words
    with suppress(av.FFmpegError), av.open(f"file:{path}", container_options=OPTIONS) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.skip_frame = 1, "NONKEY"
        for frame in islice(container.decode(stream), PICTURES):
            form = frame.format
            full = frame.color_range == FULL_RANGE or form.name.startswith("yuvj")
            said = "full" if full or form.is_rgb else "limited" if frame.color_range else "unspecified"
            if form.name.startswith(("yuv", "nv")) and form.components[0].bits == 8:
                plane = frame.planes[0]
                rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
                found.append(rows[: frame.height, : frame.width].ravel())
    return said, np.concatenate(found)


def _range_warnings(said: ColourRange, luma: npt.NDArray[np.uint8]) -> Iterator[tuple[Warn, str]]:
    if not len(luma):
        return
    if said == "full":
        low, high = np.quantile(luma, (0.001, 0.999))
        if 15 <= low <= 18 and 232 <= high <= 236:
            yield "range", f"it says full range, its luma ends at {low:.0f} and {high:.0f} as limited range does"
        return
    below, above = float((luma < BELOW).mean()), float((luma > ABOVE).mean())
    if below > SHARE_BELOW or above > SHARE_ABOVE:
        share = f"{below:.1%} of its luma lies below {BELOW}, {above:.1%} above {ABOVE}"
        yield "range", f"it is shown as limited range, and {share}: likely full range"
