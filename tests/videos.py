"""Videos that carry the number of every frame in the picture, so that a test sees which frame it was given."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from hoi_train.core.records import Clip

COLUMNS, ROWS = 4, 3  # twelve bits, the lowest at the top left
TIME_BASE = Fraction(1, 15360)
ENCODED: dict[str, bytes] = {}  # what ``encode`` has made already, by its arguments


def numbered(number: int, width: int = 96, height: int = 80) -> np.ndarray:
    """Draw a frame: a moving gradient, in its upper half the bits of its number as black and white blocks."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 2 + number * 5, y * 3 + number * 3, x + y + number * 7], axis=-1).astype(np.uint8)
    side = min(width // COLUMNS, height // (2 * ROWS))
    for bit in range(COLUMNS * ROWS):
        row, column = divmod(bit, COLUMNS)
        image[row * side : (row + 1) * side, column * side : (column + 1) * side] = 255 * (number >> bit & 1)
    return image


def number_of(image: np.ndarray) -> int:
    """Return the number that is drawn into a frame."""
    height, width = image.shape[:2]
    side = min(width // COLUMNS, height // (2 * ROWS))
    margin = side // 4
    bits = (
        image[row * side + margin : (row + 1) * side - margin, column * side + margin : (column + 1) * side - margin]
        for row in range(ROWS)
        for column in range(COLUMNS)
    )
    return sum(int(block.mean() > 128) << bit for bit, block in enumerate(bits))


def encode(
    path: Path,
    count: int,
    *,
    width: int = 96,
    height: int = 80,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    gop: int = 12,
    b_frames: int = 3,
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    **container: Any,
) -> Path:
    """Encode ``count`` numbered frames at 30 per second, or at ``times`` in units of ``TIME_BASE``; keep the bytes."""
    wanted = repr((path.suffix, count, width, height, codec, pixels, gop, b_frames, times, options, container))
    if wanted in ENCODED:
        path.write_bytes(ENCODED[wanted])
        return path
    with av.open(str(path), "w", **container) as output:
        stream = output.add_stream(codec, rate=30, options={"threads": "1", **(options or {})})
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        context = stream.codec_context
        context.gop_size, context.max_b_frames = gop, b_frames
        context.time_base = Fraction(1, 30) if times is None else TIME_BASE
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(numbered(number, width, height))
            frame.time_base = context.time_base
            frame.pts = number if times is None else int(times[number])
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    ENCODED[wanted] = path.read_bytes()
    return path


def write_image(path: Path, image: np.ndarray) -> Path:
    """Write a JPEG or PNG file."""
    frame = av.VideoFrame.from_ndarray(image)
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as output:
        png = path.suffix == ".png"
        stream = output.add_stream("png" if png else "mjpeg", rate=1)
        stream.height, stream.width, stream.pix_fmt = *image.shape[:2], "rgb24" if png else "yuvj444p"
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def cut(source: Path, target: Path, first: int, *, keyframe: int = 1) -> Path:
    """Cut without encoding: copy from the given key frame on, and let an edit list hide what is before ``first``."""
    with av.open(str(source)) as given, av.open(str(target), "w", options={"avoid_negative_ts": "disabled"}) as output:
        stream = given.streams.video[0]
        copy = output.add_stream_from_template(stream)
        packets = [packet for packet in given.demux(stream) if packet.size]
        start = [place for place, packet in enumerate(packets) if packet.is_keyframe][keyframe]
        shift = int(Fraction(first, 30) / stream.time_base)
        for packet in packets[start:]:
            packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
            output.mux(packet)
    return target


def turn(source: Path, target: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Copy an mp4 file with another display matrix (a, b, c, d)."""
    data = bytearray(source.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[place : place + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], dtype=">i4").tobytes()
    target.write_bytes(data)
    return target


def packet_places(path: Path) -> list[tuple[int, int]]:
    """Return where the video's packets lie in the file and how long they are, in the order they are decoded."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def sequential(path: Path) -> list[np.ndarray]:
    """Decode all frames with nothing but PyAV's own loop: the reference."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def clip_of(path: Path, **fields: Any) -> Clip:
    """Return a clip of a file or folder."""
    return Clip(**{"clip_id": path.stem, "path": path, "split": "train", "labels": {}, **fields})
