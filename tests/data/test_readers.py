"""What readers promise beyond the frames themselves (see test_readers_matrix), and what they refuse."""

from __future__ import annotations

import contextlib
import os
import sys
import wave
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.encoding import write_mp4
from hoi_train.core.records import Clip, ClipError, UserError
from hoi_train.data.readers import READERS, check_reader, choose_reader, count_readers, open_clip, pyav_reader
from hoi_train.data.readers.base import Reader
from tests.data.reader_cases import SEEKING, UNEVEN
from tests.data.test_readers_matrix import need
from tests.videos import clip_of, encode, number_of, numbered, packet_places, sequential, turn, write_image

VIDEO_READERS = ("pyav", *sorted(SEEKING))


def _read(clip: Clip, reader: str, indices: object) -> np.ndarray:
    with open_clip(clip, reader) as opened:
        return opened.read(indices)  # type: ignore[arg-type]


def test_times_are_those_of_the_encoder(tmp_path: Path) -> None:
    with open_clip(clip_of(encode(tmp_path / "even.mp4", 31))) as reader:
        assert np.array_equal(reader.timestamps, np.arange(31) / 30)
    with open_clip(clip_of(encode(tmp_path / "uneven.mp4", 60, times=UNEVEN))) as reader:
        assert np.allclose(reader.timestamps, (np.array(UNEVEN) - UNEVEN[0]) / 15360, atol=1e-9)


def test_several_plans_are_read_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [np.array(plan) for plan in ([0, 2, 2], [3, 1, 29], [29, 30, 31], [5, 5, 30])]
    with open_clip(clip_of(encode(tmp_path / "video.mp4", 40)), "pyav") as reader:
        passes: list[list[int]] = []
        decode = reader._decode
        monkeypatch.setattr(reader, "_decode", lambda wanted: passes.append(wanted.tolist()) or decode(wanted))
        read = list(reader.read_each(plans))
    assert [[number_of(frame) for frame in frames] for frames in read] == [plan.tolist() for plan in plans]
    assert passes == [[0, 1, 2, 3, 5, 29, 30, 31]]


def test_frames_that_nothing_refers_to_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "b.mp4", 40, gop=250, b_frames=3)
    decoded, given = pyav_reader._decoded, []

    def noted(clip: Any, packets: Any, codec: Any, left_out: Any) -> Any:
        given.append(len(left_out))
        return decoded(clip, packets, codec, left_out)

    monkeypatch.setattr(pyav_reader, "_decoded", noted)
    with open_clip(clip_of(path)) as reader:
        for wanted in ([0, 39], list(range(1, 40, 7)), list(range(40))):
            assert [number_of(frame) for frame in reader.read(wanted)] == wanted
    assert given[0] > given[1] > given[2] == 0
    assert given[0] >= 10
    monkeypatch.setattr(pyav_reader, "is_spare", lambda codec, header, packet: True)  # the control: others are missed
    with open_clip(clip_of(path)) as reader:
        expected = sequential(path)[39]
        with contextlib.suppress(ClipError):
            assert (reader.read([39])[0] != expected).any()


def test_auto_takes_what_the_path_holds(tmp_path: Path) -> None:
    path, folder = encode(tmp_path / "v.mp4", 3), _folder(tmp_path / "frames", [1])
    for clip, reader in ((clip_of(path), "pyav"), (clip_of(folder), "frames")):
        assert choose_reader(clip.path) == reader
        with open_clip(clip) as opened, open_clip(clip, reader) as same:
            assert type(opened) is type(same)


def test_the_clips_of_each_reader_are_counted(tmp_path: Path) -> None:
    paths = {_folder(tmp_path / "frames", [1]): 2, encode(tmp_path / "v.mp4", 1): 3, tmp_path / "missing.mp4": 1}
    assert count_readers(paths, "auto") == {"frames": 2, "pyav": 4}
    assert count_readers(paths, "decord") == {"decord": 6}


TURNS = {(0, 1, -1, 0): -1, (-1, 0, 0, -1): 2, (0, -1, 1, 0): 1}  # matrix -> quarter turns against the clock
MIRRORS = {
    (-1, 0, 0, 1): lambda image: image[:, ::-1],
    (1, 0, 0, -1): lambda image: image[::-1],
    (0, 1, 1, 0): lambda image: image.swapaxes(0, 1),
    (0, -1, -1, 0): lambda image: image[::-1, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("reader", VIDEO_READERS)
@pytest.mark.parametrize("matrix", TURNS)
def test_rotated_files_come_upright(matrix: tuple[int, int, int, int], reader: str, tmp_path: Path) -> None:
    need(reader)
    source = encode(tmp_path / "v.mp4", 5)
    turned = _read(clip_of(turn(source, tmp_path / "turned.mp4", matrix)), reader, [3])[0]
    assert np.array_equal(turned, np.rot90(sequential(source)[3], TURNS[matrix]))


@pytest.mark.parametrize("matrix", MIRRORS)
@pytest.mark.parametrize("reader", VIDEO_READERS)
def test_mirrored_files_come_upright(matrix: tuple[int, int, int, int], reader: str, tmp_path: Path) -> None:
    need(reader)
    source = encode(tmp_path / "v.mp4", 5)
    clip = clip_of(turn(source, tmp_path / "mirrored.mp4", matrix))
    if reader in SEEKING:
        with pytest.raises(
            ClipError, match=f"{reader} decodes its first frame differently from PyAV; use reader: auto"
        ):
            open_clip(clip, reader)
    else:
        assert np.array_equal(_read(clip, reader, [3])[0], MIRRORS[matrix](sequential(source)[3]))


def test_a_slanted_file_is_refused(tmp_path: Path) -> None:
    clip = clip_of(turn(encode(tmp_path / "v.mp4", 2), tmp_path / "slanted.mp4", (1, 1, -1, 1)))
    with pytest.raises(ClipError, match="not a multiple of 90 degrees; re-encode it"):
        _read(clip, "pyav", [0])


def _damaged(folder: Path) -> Path:
    """Encode 60 frames in one GOP and overwrite the packet that is decoded as the 30th."""
    whole = encode(folder / "whole.mp4", 60, gop=60)
    path = folder / "damaged.mp4"
    path.write_bytes(whole.read_bytes())
    place, size = packet_places(path)[30]
    data = bytearray(path.read_bytes())
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    return path


def test_damage_is_an_error_and_what_precedes_it_is_not(tmp_path: Path) -> None:
    path = _damaged(tmp_path)
    whole = sequential(tmp_path / "whole.mp4")
    assert np.array_equal(_read(clip_of(path), "pyav", [0, 2, 5]), [whole[0], whole[2], whole[5]])
    with pytest.raises(ClipError, match=r"clip 'damaged': .*damaged\.mp4: "):
        _read(clip_of(path), "pyav", [59])
    with open_clip(clip_of(path), "pyav") as reader, pytest.raises(ClipError):
        list(reader.frames())


def test_flipped_bits_that_the_decoder_marks_are_errors(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mp4", 30)
    data = path.read_bytes()
    rng, outcomes = np.random.default_rng(3), Counter[str]()
    for _ in range(60):
        damaged = bytearray(data)
        damaged[rng.integers(data.index(b"mdat") + 800, data.index(b"moov") - 8)] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            _read(clip_of(path), "pyav", np.arange(30))
        except ClipError as error:
            outcomes["marked" if "does not decode" in str(error) else "refused"] += 1
    # The rest leaves a valid stream of another video, which only a checksum could tell.
    assert outcomes["marked"] >= 5
    assert outcomes["refused"] >= 1


@pytest.mark.parametrize("reader", sorted(SEEKING))
@pytest.mark.parametrize("width", range(8, 102, 4))
def test_narrow_videos(width: int, reader: str, tmp_path: Path) -> None:
    need(reader)
    shades = np.random.default_rng(width).integers(0, 255, (3, 1, 1, 3)) + np.arange(width)[:, None]
    write_mp4(tmp_path / "v.mp4", np.broadcast_to(shades % 256, (3, 32, width, 3)).astype(np.uint8), fps=8)
    clip = clip_of(tmp_path / "v.mp4")
    with open_clip(clip, reader) as fast, open_clip(clip, "pyav") as exact:
        assert np.abs(fast.read([0, 2]).astype(int) - exact.read([0, 2])).max() <= 2


@pytest.mark.parametrize("reader", VIDEO_READERS)
def test_nothing_comes_in_the_place_of_damaged_frames(reader: str, tmp_path: Path) -> None:
    need(reader)
    clip = clip_of(_damaged(tmp_path))
    for asked in (np.arange(60), np.array([59])):  # the decoder goes on behind the damage, with a patched frame
        with pytest.raises(ClipError, match=r"does not decode|cannot be read as video"):
            _read(clip, reader, asked)


def test_torchcodec_does_not_go_on_behind_the_damage(tmp_path: Path) -> None:
    need("torchcodec")
    with open_clip(clip_of(_damaged(tmp_path)), "torchcodec") as opened:
        for asked in (np.arange(60), np.array([59])):
            with pytest.raises(ClipError, match="does not decode"):
                opened.read(asked)


def test_a_file_that_is_replaced_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hoi_train.data.readers.pyav_reader.KEPT_BYTES", 0)
    clip = clip_of(encode(tmp_path / "v.mp4", 60))
    with open_clip(clip) as reader:
        encode(tmp_path / "other.mp4", 60, times=UNEVEN).replace(clip.path)
        with pytest.raises(ClipError, match=r"frame \d+ of 60 does not decode"):
            reader.read([40])


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = encode(tmp_path / "v.mkv", 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with open_clip(clip_of(path)) as reader:
        assert len(reader.timestamps) < 60
    with pytest.raises(ClipError, match=r"it has \d+ frames, the manifest says 60"):
        open_clip(clip_of(path, num_frames=60))


def _playlist(path: Path, other: Path) -> Path:
    path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2.0,\n{other}\n#EXT-X-ENDLIST\n")
    return path


def _script(path: Path, other: Path) -> Path:
    path.write_text(f"ffconcat version 1.0\nfile {other.name}\n")
    return path


def _audio(path: Path) -> Path:
    import av

    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def _wave(path: Path) -> Path:
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(1000))
    return path


BAD: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "missing": ("no such file; check the manifest's root", lambda d: d / "none.mp4"),
    "nul_in_name": ("cannot be opened", lambda d: d / "a\0b.mp4"),
    "empty": ("cannot be read as video", lambda d: _bytes(d / "v.mp4", b"")),
    "text": ("cannot be read as video", lambda d: _bytes(d / "v.mp4", b"not a video\n" * 50)),
    "playlist": ("cannot be read as video", lambda d: _playlist(d / "v.mp4", encode(d / "o.ts", 3))),
    "concat_script": ("cannot be read as video", lambda d: _script(d / "v.mp4", encode(d / "o.mp4", 3))),
    "sound": ("cannot be read as video", lambda d: _wave(d / "v.wav")),
    "sound_only": ("it has no video stream", lambda d: _audio(d / "v.m4a")),
    "folder": ("a folder, not a video file; use reader: auto", lambda d: d),
}


def _bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("reader", VIDEO_READERS)
@pytest.mark.parametrize("name", BAD)
def test_what_is_no_video_is_refused_by_name(name: str, reader: str, tmp_path: Path) -> None:
    need(reader)
    text, make = BAD[name]
    path = make(tmp_path)
    with pytest.raises(ClipError, match=text) as caught:
        open_clip(clip_of(path, clip_id="put cup 3"), reader)
    assert str(caught.value).startswith(f"clip 'put cup 3': {path}: ")


@pytest.mark.parametrize("reader", READERS)
def test_a_pipe_is_refused_before_it_is_opened(reader: str, tmp_path: Path) -> None:
    need(reader)
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it would wait for a writer for ever
    with pytest.raises(ClipError, match="neither a regular file nor a folder"):
        open_clip(clip_of(tmp_path / "pipe.mp4"), reader)


def test_an_unknown_reader_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=rf"reader 'decrd' is not one of {', '.join(READERS)}; did you mean 'decord'"):
        check_reader("decrd")


@pytest.mark.parametrize("reader", sorted(SEEKING))
def test_a_reader_that_is_not_installed(reader: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, reader, None)  # as if it were not there
    monkeypatch.delitem(sys.modules, f"hoi_train.data.readers.{reader}_reader", raising=False)
    with pytest.raises(UserError, match=rf"reader '{reader}' cannot be used: .*{reader}.* use reader: auto"):
        check_reader(reader)
    with open_clip(clip_of(encode(tmp_path / "v.mp4", 2))) as opened:
        assert number_of(opened.read([1])[0]) == 1


def test_torchcodec_without_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    decoders = SimpleNamespace(VideoDecoder=None)
    found = SimpleNamespace(ffmpeg_major_version=None, decoders=decoders)
    monkeypatch.setitem(sys.modules, "torchcodec", found)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)  # type: ignore[arg-type]
    monkeypatch.delitem(sys.modules, "hoi_train.data.readers.torchcodec_reader", raising=False)
    with pytest.raises(UserError, match=r"'torchcodec' cannot be used: it finds no FFmpeg libraries .*apt-get install"):
        check_reader("torchcodec")


def test_frames_out_of_range_are_refused(tmp_path: Path) -> None:
    with open_clip(clip_of(encode(tmp_path / "v.mp4", 5))) as reader:
        for index in (-1, 5):
            with pytest.raises(ClipError, match=f"frame {index} was requested, it has frames 0 to 4"):
                reader.read([0, index])


class _Times(Reader):
    """A reader of which only the times matter."""

    def __init__(self, clip: Clip, timestamps: np.ndarray) -> None:
        super().__init__(clip)
        self.timestamps = timestamps

    def _decode(self, wanted: np.ndarray) -> object:
        raise AssertionError("no pixels here")

    def close(self) -> None: ...


@given(st.integers(1, 90), st.integers(0, 100), st.integers(1, 100), st.sampled_from([24, 25, 30, 29.97]))
def test_the_window_is_start_inclusive_end_exclusive(count: int, first: int, length: int, fps: float) -> None:
    clip = Clip("c", Path("v.mp4"), "train", {}, start=first / fps, end=(first + length) / fps)
    reader = _Times(clip, np.arange(count) / fps)
    if first >= count:
        with pytest.raises(ClipError, match=r"no frame from .* until .* s; it has \d+ frames, the last at"):
            reader.window()
    else:
        assert reader.window() == range(first, min(first + length, count))


def test_a_clip_without_times_is_its_whole_file() -> None:
    assert _Times(Clip("c", Path("v"), "train", {}), np.arange(7) / 30).window() == range(7)


def _folder(folder: Path, numbers: list[int], name: str = "img_{:05d}.jpg", **size: int) -> Path:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        write_image(folder / name.format(number), numbered(number, **size))
    return folder


@pytest.mark.parametrize("name", ["img_{:05d}.jpg", "{}.png", "frame-{}.JPEG"])
def test_a_folder_is_read_in_the_order_of_its_numbers(name: str, tmp_path: Path) -> None:
    folder = _folder(tmp_path / "clip", list(range(7, 13)), name)
    (folder / "notes.txt").write_text("not a frame")
    with open_clip(clip_of(folder, fps=10.0, start=0.1, end=0.4)) as reader:
        assert np.allclose(reader.timestamps, np.arange(6) / 10)
        assert reader.window() == range(1, 4)
        assert [number_of(image) for image in reader.read([0, 0, 5, 2])] == [7, 7, 12, 9]
        assert reader.read([0]).shape == (1, 80, 96, 3)


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    gap, twins, named, sizes, cropped = (tmp_path / name for name in ("gap", "twins", "named", "sizes", "cropped"))
    _folder(gap, [1, 2, 4, 5])
    _folder(twins, [1])
    _folder(twins, [1], "{}.jpg")
    _folder(named, [1], "{:b}-cover.jpg")
    _folder(sizes, [1])
    _folder(sizes, [2], width=64)
    _folder(cropped, [1])
    (cropped / "img_00001.jpg").write_bytes((cropped / "img_00001.jpg").read_bytes()[:200])
    for folder, text in (
        (tmp_path / "empty", "no frame images in the folder; their names end in .jpg, .jpeg, .png"),
        (gap, "frame 3 is missing after img_00002.jpg"),
        (twins, "1.jpg and img_00001.jpg have the same frame number"),
        (named, "the name of 1-cover.jpg does not end in a frame number"),
    ):
        with pytest.raises(ClipError, match=text):
            open_clip(clip_of(folder))
    with pytest.raises(ClipError, match=r"its frames differ in size \(height, width\): \[\(80, 64\), \(80, 96\)\]"):
        _read(clip_of(sizes), "frames", [0, 1])
    with pytest.raises(ClipError, match=r"img_00001.jpg is not a whole JPEG or PNG image: "):
        _read(clip_of(cropped), "frames", [0])
    with pytest.raises(ClipError, match="fill the column fps"):
        open_clip(clip_of(sizes, start=1.0))
    with pytest.raises(ClipError, match="needs a folder of images"):
        open_clip(clip_of(encode(tmp_path / "v.mp4", 2)), "frames")


def test_what_precedes_the_damage_of_a_real_file_is_read(test_data: Path) -> None:
    damaged = clip_of(test_data / "decode_samples" / "decord_corrupted.mp4")
    assert _read(damaged, "pyav", [0]).shape == (1, 720, 1280, 3)
    with pytest.raises(ClipError, match="clip 'decord_corrupted'"):
        _read(damaged, "pyav", [40])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts the open files of Linux")
def test_readers_leave_no_file_open(tmp_path: Path) -> None:
    good, damaged = encode(tmp_path / "v.mp4", 5), _damaged(tmp_path)
    _read(clip_of(good), "auto", [0])
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(10):
        _read(clip_of(good), "pyav", [1])
        _read(clip_of(good), "auto", [1])
        with pytest.raises(ClipError):
            _read(clip_of(damaged), "pyav", [59])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
