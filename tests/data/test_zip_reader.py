"""Clips of the frame cache: the frames asked for, or an error that names clip and shard."""

from __future__ import annotations

import io
import multiprocessing
import struct
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hoi_train.core.records import Clip, ClipError
from hoi_train.data.opencv import decode_jpeg
from hoi_train.data.readers import open_clip
from hoi_train.data.readers.zip_reader import frame_name
from hoi_train.data.workers import worker_context
from tests.videos import clip_of, number_of, numbered

COUNT = 20


def clip_zip(path: Path, names: Sequence[str], **options: int) -> Path:
    with zipfile.ZipFile(path, "w", **options) as target:
        for number, name in enumerate(names):
            data = io.BytesIO()
            Image.fromarray(numbered(number)).save(data, "JPEG", quality=95)
            target.writestr(name, data.getvalue())
    return path


def shard_of(folder: Path, clips: dict[str, Path], **options: int) -> Path:
    with zipfile.ZipFile(folder / "00000.zip", "w", **options) as target:
        for name, path in clips.items():
            target.write(path, name)
    return folder / "00000.zip"


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    long = clip_zip(tmp_path / "long.zip", [frame_name(k) for k in range(COUNT)])
    short = clip_zip(tmp_path / "short.zip", [frame_name(0)])
    return shard_of(tmp_path, {"short.zip": short, "long.zip": long})


def in_shard(shard: Path, name: str = "long.zip", **fields: object) -> Clip:
    return clip_of(shard / name, **fields)


def numbers(clip: Clip, indices: Sequence[int], reader: str = "auto") -> list[int]:
    with open_clip(clip, reader) as opened:
        return [number_of(image) for image in opened.read(indices)]


def refused(clip: Clip, reader: str = "auto") -> str:
    with pytest.raises(ClipError) as caught, open_clip(clip, reader) as opened:
        opened.read(np.arange(len(opened.timestamps)))
    text = str(caught.value)
    assert text.startswith(f"clip {clip.clip_id!r}: {clip.path}: ")
    assert "\n" not in text
    return text.removeprefix(f"clip {clip.clip_id!r}: {clip.path}: ")


@pytest.mark.parametrize("reader", ["auto", "zip"])
def test_a_cached_clip_gives_the_frames_asked_for(shard: Path, reader: str) -> None:
    asked = np.random.default_rng(0).integers(0, COUNT, 30).tolist()
    assert numbers(in_shard(shard), asked, reader) == asked
    assert numbers(in_shard(shard, "short.zip"), [0, 0], reader) == [0, 0]
    with open_clip(in_shard(shard), reader) as opened:
        assert [number_of(image) for image in opened.frames()] == list(range(COUNT))
        image = opened.read([3])
        assert image.dtype == np.uint8
        assert np.abs(image[0].astype(int) - numbered(3)).mean() < 8
        with pytest.raises(ClipError, match="frame 20 was requested, it has frames 0 to 19"):
            opened.read([20])


def test_times_are_places_at_the_rate_of_the_manifest(shard: Path) -> None:
    with open_clip(in_shard(shard, fps=10.0, start=0.5, end=1.0)) as opened:
        assert opened.window() == range(5, 10)
    assert "fill the column fps" in refused(in_shard(shard, start=0.5))
    assert refused(in_shard(shard, num_frames=21)) == "it has 20 frames, the manifest says 21"


def test_what_another_tool_packed_is_read_too(tmp_path: Path, shard: Path) -> None:
    with zipfile.ZipFile(shard) as old, zipfile.ZipFile(tmp_path / "other.zip", "w") as new:
        for entry in old.infolist():
            info = zipfile.ZipInfo(entry.filename)
            info.extra = struct.pack("<HH4s", 0xCAFE, 4, b"more")  # makes the local header longer
            with new.open(info, "w", force_zip64=True) as target:
                target.write(old.read(entry))
    assert numbers(in_shard(tmp_path / "other.zip"), [0, 7, 19]) == [0, 7, 19]


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut off": (
        lambda data: data[: len(data) // 2],
        "cannot be read from its shard: it has no entry 'long.zip', or is damaged",
    ),
    "empty": (lambda data: b"", "cannot be read from its shard: File is not a zip file"),
    "text": (lambda data: b"no shard at all " * 500, "cannot be read from its shard: File is not a zip file"),
    "a frame changed": (
        lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
        "is damaged in the shard: bad checksum of 0000",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_shards_are_refused_by_name(shard: Path, name: str) -> None:
    change, text = DAMAGE[name]
    shard.write_bytes(change(shard.read_bytes()))
    assert text in refused(in_shard(shard))


def test_any_changed_byte_gives_the_same_frames_or_an_error(shard: Path) -> None:
    data, generator = shard.read_bytes(), np.random.default_rng(0)
    with open_clip(in_shard(shard)) as opened:
        expected = opened.read(np.arange(COUNT))
    for place in generator.integers(0, len(data), 150).tolist():
        shard.write_bytes(data[:place] + bytes([data[place] ^ int(generator.integers(1, 256))]) + data[place + 1 :])
        try:
            with open_clip(in_shard(shard)) as opened:
                assert np.array_equal(opened.read(np.arange(COUNT)), expected)
        except ClipError:
            continue


def test_what_is_no_clip_of_a_cache_is_refused(tmp_path: Path, shard: Path) -> None:
    assert "it has no entry 'none.zip'" in refused(in_shard(shard, "none.zip"))
    assert "no such file" in refused(clip_of(tmp_path / "gone.zip" / "long.zip"))
    names = {
        "gap.zip": ["000000.jpg", "000002.jpg"],
        "hostile.zip": ["../../000000.jpg"],
        "absolute.zip": ["/etc/000000.jpg"],
        "none.zip": [],
    }
    made = {name: clip_zip(tmp_path / name, entries) for name, entries in names.items()}
    (tmp_path / "no.zip").write_text("no zip")
    shard_of(tmp_path, {**made, "no.zip": tmp_path / "no.zip"})
    before = sorted(tmp_path.rglob("*"))
    assert "'000002.jpg' where 000001.jpg was due" in refused(in_shard(shard, "gap.zip"))
    assert "'../../000000.jpg' where 000000.jpg was due" in refused(in_shard(shard, "hostile.zip"))
    assert "'/etc/000000.jpg' where" in refused(in_shard(shard, "absolute.zip"))
    assert "its zip has no frames" in refused(in_shard(shard, "none.zip"))
    assert "File is not a zip file" in refused(in_shard(shard, "no.zip"))
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "video.mp4").touch()
    assert "cannot be read from its shard" in refused(clip_of(tmp_path / "video.mp4"), "zip")


def test_compressed_entries_and_false_sizes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(bytes(2**24))
    names = [frame_name(0)]
    packed = clip_zip(tmp_path / "packed.zip", names, compression=zipfile.ZIP_DEFLATED)
    shard = shard_of(tmp_path, {"bomb.zip": tmp_path / "bomb"}, compression=zipfile.ZIP_DEFLATED)
    assert "'bomb.zip' is compressed; shards store their entries" in refused(in_shard(shard, "bomb.zip"))
    shard = shard_of(tmp_path, {"packed.zip": packed})
    assert "'000000.jpg' is compressed" in refused(in_shard(shard, "packed.zip"))
    data = bytearray(shard_of(tmp_path, {"clip.zip": clip_zip(tmp_path / "clip.zip", names)}).read_bytes())
    place = data.rindex(b"PK\x01\x02") + 20
    data[place : place + 8] = struct.pack("<LL", 2**32 - 2, 2**32 - 2)
    shard.write_bytes(data)
    text = refused(in_shard(shard, "clip.zip"))
    assert "is said to be longer than the file" in text or "possible zip bomb" in text


def _read_in_child(clip: Clip, queue: object) -> None:
    queue.put(numbers(clip, [4, 9, 17]))  # type: ignore[attr-defined]


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_children_of_any_kind_read_beside_their_parent(shard: Path, start: str) -> None:
    context = multiprocessing.get_context(start)
    queue = context.Queue()
    with open_clip(in_shard(shard)) as opened:
        opened.read([1])
        child = context.Process(target=_read_in_child, args=(in_shard(shard), queue))
        child.start()
        assert number_of(opened.read([2])[0]) == 2
        assert queue.get(timeout=120) == [4, 9, 17]
        child.join()
        assert number_of(opened.read([18])[0]) == 18


def test_nothing_stays_open(shard: Path) -> None:
    bad = replace(in_shard(shard), num_frames=99)
    handles = len([*Path("/dev/fd").iterdir()])
    for _ in range(20):
        assert numbers(in_shard(shard), [5]) == [5]
        refused(bad)
        refused(in_shard(shard, "none.zip"))
    assert len([*Path("/dev/fd").iterdir()]) == handles


def test_pixels_are_those_of_another_decoder_and_a_frame_that_claims_too_many_is_refused() -> None:
    for mode in ("RGB", "L"):
        data = io.BytesIO()
        Image.fromarray(numbered(77, 341, 256)).convert(mode).save(data, "JPEG", quality=80)
        decoded = decode_jpeg(data.getvalue())
        assert decoded.flags.c_contiguous
        with Image.open(data) as picture:
            assert np.array_equal(decoded, np.asarray(picture.convert("RGB")))
    large = bytearray(data.getvalue())
    start = large.index(b"\xff\xc0") + 5
    large[start : start + 4] = struct.pack(">HH", 65500, 65500)
    for wrong in (bytes(large[:600]), b"no picture", b""):
        with pytest.raises(ValueError):
            decode_jpeg(wrong)
    with (
        ProcessPoolExecutor(1, mp_context=worker_context()) as worker,
        pytest.raises(ValueError, match="MAX_IMAGE_PIXELS"),
    ):
        worker.submit(decode_jpeg, bytes(large[:600])).result()
