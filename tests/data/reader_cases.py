"""Awkward videos by name: each a file, the numbers drawn into its frames, and whether seeking in it is exact."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.videos import cut, encode, numbered, turn

UNEVEN = np.cumsum(np.random.default_rng(0).integers(200, 900, 60)).tolist()
OPEN_GOP = {"x264-params": "open-gop=1:bframes=3:scenecut=0:keyint=12:min-keyint=12:b-adapt=0"}
REFRESH = {"x264-params": "intra-refresh=1:keyint=12:bframes=0:scenecut=0"}
H265 = {"x265-params": "log-level=none:keyint=12:min-keyint=12:scenecut=0:open-gop=0"}
H265_OPEN = {"x265-params": "log-level=none:keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:open-gop=1"}
HIDDEN = {"auto-alt-ref": "1", "lag-in-frames": "8", "deadline": "realtime", "cpu-used": "8"}
AV1 = {"preset": "12", "svtav1-params": "log-level=0:keyint=12:scd=0"}
QUARTER, MIRROR = (0, 1, -1, 0), (1, 0, 0, -1)  # display matrices
SEEKING = frozenset({"torchcodec", "decord"})


@dataclass(frozen=True)
class Case:
    """A file, made in a folder.

    Args:
        first, count: numbers drawn into its frames.
        make: writes the file.
        seekable: whether its packets prove that a reader may seek.
        refused: by which seeking readers it is refused nevertheless.
        upright: from the coded picture to the one shown.
    """

    first: int
    count: int
    make: Callable[[Path], Path]
    seekable: bool = False
    refused: frozenset[str] = frozenset()
    upright: Callable[[np.ndarray], np.ndarray] = np.asarray


def made(case: Case, folder: Path) -> Path:
    """Write the file of a case, or skip the test if nothing here can."""
    try:
        return case.make(folder)
    except av.codec.codec.UnknownCodecError as error:
        pytest.skip(f"PyAV's FFmpeg has no such encoder: {error}")


def _cut_of(folder: Path, first: int, **options: object) -> Path:
    return cut(encode(folder / "whole.mp4", 60, **options), folder / "cut.mp4", first)  # type: ignore[arg-type]


def _from_inside_a_gop(folder: Path) -> Path:
    """Copy the packets from the 18th on, so that the first ones refer to frames which are not in the file."""
    with av.open(str(encode(folder / "whole.mp4", 60))) as given, av.open(str(folder / "cut.mkv"), "w") as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        for packet in [packet for packet in given.demux(stream) if packet.size][17:]:
            packet.stream = copy
            output.mux(packet)
    return folder / "cut.mkv"


def _late(folder: Path, name: str) -> Path:
    """Encode a video whose first frame is shown after five seconds."""
    return encode(folder / name, 40, times=[5 * 15360 + 512 * number for number in range(40)])


def _two_streams(folder: Path) -> Path:
    """Put a larger video, which players prefer, behind the first one."""
    with av.open(str(folder / "v.mp4"), "w") as output:
        streams = []
        for width, height in ((96, 80), (192, 160)):
            stream = output.add_stream("libx264", rate=30, options={"threads": "1"})
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for number in range(30):
            for place, stream in enumerate(streams):
                image = numbered(number + 100 * place, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(image)
                frame.pts, frame.time_base = number, Fraction(1, 30)
                output.mux(stream.encode(frame))
        for stream in streams:
            output.mux(stream.encode())
    return folder / "v.mp4"


def _ffmpeg_trim(folder: Path) -> Path:
    """Trim as users do, by the command line: the copy begins at the key frame 36, an edit list hides five frames."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the command ffmpeg")
    whole, trimmed = encode(folder / "whole.mp4", 60), folder / "trimmed.mp4"
    command = ["ffmpeg", "-v", "error", "-ss", "1.35", "-i", str(whole), "-c", "copy", str(trimmed)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=60)
    return trimmed


FRAGMENTED = {"container_options": {"movflags": "frag_keyframe"}}

CASES: Mapping[str, Case] = {
    # all readers
    "b_frames_edit_list": Case(0, 60, lambda d: encode(d / "v.mp4", 60), True),
    "one_gop": Case(0, 100, lambda d: encode(d / "v.mp4", 100, gop=250), True),
    "intra": Case(0, 30, lambda d: encode(d / "v.mp4", 30, gop=1, b_frames=0), True),
    "short_gops": Case(0, 30, lambda d: encode(d / "v.mp4", 30, gop=3, b_frames=2), True),
    "one_frame": Case(0, 1, lambda d: encode(d / "v.mp4", 1), True),
    "odd_size": Case(0, 20, lambda d: encode(d / "v.mp4", 20, width=97, height=81, pixels="yuv444p"), True),
    "variable_rate": Case(0, 60, lambda d: encode(d / "v.mp4", 60, times=UNEVEN), True),
    "late_start": Case(0, 40, lambda d: _late(d, "v.mp4"), True),
    "late_start_matroska": Case(0, 40, lambda d: _late(d, "v.mkv"), True),
    "fragmented": Case(0, 60, lambda d: encode(d / "v.mp4", 60, **FRAGMENTED), True),
    "matroska": Case(0, 60, lambda d: encode(d / "v.mkv", 60), True),
    "h265": Case(0, 40, lambda d: encode(d / "v.mp4", 40, codec="libx265", options=H265), True),
    "vp9": Case(0, 40, lambda d: encode(d / "v.webm", 40, codec="libvpx-vp9", options=HIDDEN), True),
    "turned": Case(
        0, 30, lambda d: turn(encode(d / "w.mp4", 30), d / "v.mp4", QUARTER), True, upright=lambda i: np.rot90(i, -1)
    ),
    # PyAV and some others
    "av1": Case(0, 40, lambda d: encode(d / "v.mp4", 40, codec="libsvtav1", options=AV1), True, frozenset({"decord"})),
    # PyAV alone
    "mirrored": Case(
        0, 30, lambda d: turn(encode(d / "w.mp4", 30), d / "v.mp4", MIRROR), True, SEEKING, lambda i: i[::-1]
    ),
    "odd_height_subsampled": Case(  # the colours of its edges depend on the version of FFmpeg
        0,
        40,
        lambda d: encode(d / "v.webm", 40, codec="libvpx-vp9", width=97, height=61, options=HIDDEN),
        True,
        SEEKING,
    ),
    "open_gop": Case(0, 60, lambda d: encode(d / "v.mp4", 60, options=OPEN_GOP)),
    "intra_refresh": Case(0, 60, lambda d: encode(d / "v.mp4", 60, options=REFRESH)),
    "h265_open_gop": Case(0, 40, lambda d: encode(d / "v.mp4", 40, codec="libx265", options=H265_OPEN)),
    "edit_list_cut": Case(17, 43, lambda d: _cut_of(d, 17)),
    "cut_open_gop": Case(12, 48, lambda d: _cut_of(d, 12, options=OPEN_GOP)),
    "cut_inside_open_gop": Case(17, 43, lambda d: _cut_of(d, 17, options=OPEN_GOP)),
    "cut_inside_gop": Case(24, 36, _from_inside_a_gop),
    "ffmpeg_trim": Case(41, 19, _ffmpeg_trim),
    "two_video_streams": Case(0, 30, _two_streams),
    "transport_stream": Case(0, 60, lambda d: encode(d / "v.ts", 60)),
    "avi_b_frames": Case(0, 60, lambda d: encode(d / "v.avi", 60, codec="mpeg4", b_frames=2)),
    "avi_h264": Case(0, 60, lambda d: encode(d / "v.avi", 60)),
    "mpeg4_mp4": Case(0, 60, lambda d: encode(d / "v.mp4", 60, codec="mpeg4", b_frames=2)),
    "mpeg2_program_stream": Case(0, 40, lambda d: encode(d / "v.mpg", 40, codec="mpeg2video", b_frames=2)),
    "vp8": Case(0, 30, lambda d: encode(d / "v.webm", 30, codec="libvpx", options=HIDDEN)),
}
