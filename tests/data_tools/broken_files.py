"""Sets of small videos of which some are broken, in every way that a set of videos can be."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import av
import numpy as np

from tests.videos import packet_places, write_image

SIDE = 64


def sound_video(path: Path, draw: random.Random, *, form: str | None = None) -> Path:
    """Encode a short video whose container, groups of pictures, rate and length are drawn too."""
    form = form or draw.choice(["fast", "fast", "plain", "plain", "fragmented", "mkv", "avi", "ts", "uneven"])
    flags = {"fast": "faststart", "fragmented": "frag_keyframe+empty_moov+default_base_moof"}.get(form)
    muxer = {"mkv": "matroska", "avi": "avi", "ts": "mpegts"}.get(form, "mp4")
    count, rate = draw.randint(10, 40), draw.choice([15, 24, 25, 30])
    b_frames = draw.choice([0, 2, 3]) if form != "avi" else 0  # avi stores no times
    background = np.random.default_rng(draw.randrange(2**32)).integers(0, 200, (SIDE, SIDE, 3), dtype=np.uint8)
    with av.open(str(path), "w", format=muxer, options={"movflags": flags} if flags else {}) as output:
        stream = output.add_stream("libx264", rate=rate, options={"threads": "1", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
        context = stream.codec_context
        context.gop_size, context.max_b_frames = draw.choice([1, 6, 12, 250]), b_frames
        context.time_base = Fraction(1, 600)
        time = 0
        for number in range(count):
            image = np.roll(background, number, axis=1)
            image[number : number + 16, 8:24] = 255
            frame = av.VideoFrame.from_ndarray(image).reformat(format="yuv420p", threads=1)
            frame.pts, frame.time_base = time, context.time_base
            time += 600 // rate + (draw.randint(0, 5) if form == "uneven" else 0)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def _media(path: Path) -> tuple[bytearray, int, int]:
    """Return a video's bytes, and where its frames begin and end in them."""
    places = packet_places(path)
    return bytearray(path.read_bytes()), min(a for a, _ in places), max(a + size for a, size in places)


def _cut(path: Path, draw: random.Random) -> None:
    data = sound_video(path, draw, form="fast").read_bytes()
    path.write_bytes(data[: max(1, round(len(data) * draw.uniform(0.01, 0.99)))])


def _cut_other_container(path: Path, draw: random.Random) -> None:
    data = sound_video(path, draw, form=draw.choice(["mkv", "avi", "fragmented"])).read_bytes()
    path.write_bytes(data[: max(1, round(len(data) * draw.uniform(0.01, 0.99)))])


def _cut_at_a_frame(path: Path, draw: random.Random) -> None:
    sound_video(path, draw, form="fast")
    end, _ = draw.choice(packet_places(path)[1:])
    path.write_bytes(path.read_bytes()[:end])


def _lacks_last_bytes(path: Path, draw: random.Random) -> None:
    data = sound_video(path, draw, form="fast").read_bytes()
    path.write_bytes(data[: -draw.randint(1, 20)])


def _lacks_index(path: Path, draw: random.Random) -> None:
    data = sound_video(path, draw, form="plain").read_bytes()
    path.write_bytes(data[: data.rindex(b"moov") - draw.randint(4, 500)])


def _flips(path: Path, draw: random.Random) -> None:
    data, first, stop = _media(sound_video(path, draw, form="plain"))
    for _ in range(100):
        data[draw.randrange(first, stop)] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def _hole(path: Path, draw: random.Random) -> None:
    data, first, stop = _media(sound_video(path, draw, form="plain"))
    length = round((stop - first) * draw.uniform(0.2, 0.9))
    start = draw.randint(first, stop - length)
    data[start : start + length] = bytes(length)
    path.write_bytes(data)


def _damaged_header(path: Path, draw: random.Random) -> None:
    data, _, stop = _media(sound_video(path, draw, form="plain"))
    for place in range(data.index(b"stbl", stop), len(data)):
        data[place] = draw.randrange(256)
    path.write_bytes(data)


def _swapped_header(path: Path, draw: random.Random) -> None:
    data, first, stop = _media(sound_video(path, draw, form="plain"))
    other, other_first, other_stop = _media(sound_video(path, draw, form="plain"))
    path.write_bytes(data[:first] + other[other_first:other_stop] + data[stop:])


def _empty(path: Path, draw: random.Random) -> None:
    path.touch()


def _zeros(path: Path, draw: random.Random) -> None:
    path.write_bytes(bytes(draw.randint(1, 100_000)))


def _noise(path: Path, draw: random.Random) -> None:
    path.write_bytes(draw.randbytes(draw.randint(1, 100_000)))


def _text(path: Path, draw: random.Random) -> None:
    texts = ["version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "<html><title>404</title></html>\n"]
    path.write_text(draw.choice([*texts, "no video at all\n" * draw.randint(1, 500)]))


def _picture(path: Path, draw: random.Random) -> None:
    image = np.full((SIDE, SIDE, 3), draw.randrange(256), dtype=np.uint8)
    write_image(path.with_suffix(".jpg"), image).rename(path)


def _playlist(path: Path, draw: random.Random) -> None:
    other = sound_video(path.with_suffix(".other"), draw, form="fast").name
    path.write_text(
        draw.choice([f"#EXTM3U\n#EXTINF:9,\n{other}\n#EXT-X-ENDLIST\n", f"ffconcat version 1.0\nfile {other}"])
    )


def _sound_only(path: Path, draw: random.Random) -> None:
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode())


def _pipe(path: Path, draw: random.Random) -> None:
    os.mkfifo(path)


def _folder(path: Path, draw: random.Random) -> None:
    path.mkdir()


def _link_to_itself(path: Path, draw: random.Random) -> None:
    path.symlink_to(path.name)


def _link_to_nothing(path: Path, draw: random.Random) -> None:
    path.symlink_to("nothing.mp4")


def _device(path: Path, draw: random.Random) -> None:
    path.symlink_to("/dev/zero")


def _forbidden(path: Path, draw: random.Random) -> None:
    sound_video(path, draw, form="fast").chmod(0)


def _promises_billions(path: Path, draw: random.Random) -> None:
    """Let the sample table claim billions of frames, or frames of gigabytes."""
    data = bytearray(sound_video(path, draw, form="plain").read_bytes())
    place = data.rindex(b"stsz") + 8
    size, count = draw.choice([(1, 2**32 - 1), (2**31 - 1, 10), (0, 2**31 - 1), (2**32 - 1, 2**32 - 1)])
    data[place : place + 8] = struct.pack(">II", size, count)
    path.write_bytes(data)


def _nested(path: Path, draw: random.Random) -> None:
    """Put boxes into boxes, deeper than any parser should follow."""
    depth = draw.randint(5_000, 20_000)
    boxes = b"".join(struct.pack(">I4s", 8 * (depth - level), b"moov") for level in range(depth))
    path.write_bytes(struct.pack(">I4s4sI", 16, b"ftyp", b"isom", 0) + boxes)


def _never_ends(path: Path, draw: random.Random) -> None:
    """Write a small file whose sample table shows one large picture 200,000 times: hours of decoding."""
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("libx264", rate=30, options={"threads": "1", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 2048, 2048, "yuv420p"
        frame = av.VideoFrame(2048, 2048, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes([draw.randrange(60, 200)]) * plane.buffer_size)
        frame.pts = 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    ((place, size),) = packet_places(path)
    count, data = 200_000, path.read_bytes()
    tables = {
        b"stts": struct.pack(">IIII", 0, 1, count, 512),
        b"stsz": struct.pack(">III", 0, size, count),
        b"stsc": struct.pack(">IIIII", 0, 1, 1, 1, 1),
        b"stco": struct.pack(">II", 0, count) + struct.pack(">I", place) * count,
    }
    header = data.index(b"moov", place + size) - 4
    path.write_bytes(data[:header] + _rebuilt(data[header:], tables))


def _rebuilt(data: bytes, tables: dict[bytes, bytes]) -> bytes:
    """Return mp4 boxes with some tables replaced, the edit list and the list of key frames left out."""
    made = b""
    while data:
        size, kind = struct.unpack(">I4s", data[:8])
        content, data = data[8:size], data[size:]
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            content = _rebuilt(content, tables)
        if kind not in (b"edts", b"stss", b"ctts"):
            content = tables.get(kind, content)
            made += struct.pack(">I4s", 8 + len(content), kind) + content
    return made


BREAKAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "cut at any byte": _cut,
    "cut, of other containers": _cut_other_container,
    "cut between two frames": _cut_at_a_frame,
    "last bytes lacking": _lacks_last_bytes,
    "index lacking": _lacks_index,
    "100 bits flipped": _flips,
    "zeros in the middle": _hole,
    "damaged header": _damaged_header,
    "header of another video": _swapped_header,
    "0 bytes": _empty,
    "nothing but zeros": _zeros,
    "noise": _noise,
    "text": _text,
    "picture": _picture,
    "playlist of other files": _playlist,
    "sound only": _sound_only,
    "named pipe": _pipe,
    "folder": _folder,
    "link to itself": _link_to_itself,
    "link to nothing": _link_to_nothing,
    "link to a device": _device,
    "forbidden to read": _forbidden,
    "sample table of billions": _promises_billions,
    "nested boxes": _nested,
    "decoding never ends": _never_ends,
}
COSTLY = {"decoding never ends": 6}  # of these at most so many: each costs the whole time limit


def kinds(count: int) -> list[str]:
    """Return the kinds of so many breakages, in turn and the costly ones last; root is forbidden nothing."""
    usable = [kind for kind in BREAKAGES if kind != "forbidden to read" or os.geteuid()]
    costly = [kind for kind in usable if kind in COSTLY for _ in range(min(COSTLY[kind], count // 20))]
    cheap = cycle(kind for kind in usable if kind not in COSTLY)
    return [*islice(cheap, count - len(costly)), *costly]
