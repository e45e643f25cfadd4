"""The same frames from every reader, or a refusal that says what to do: never other frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hoi_train.core.records import ClipError, UserError
from hoi_train.data.readers import check_reader, open_clip
from hoi_train.data.readers import pyav_reader as pyav
from hoi_train.data.readers.base import Reader
from tests.data.reader_cases import CASES, SEEKING, Case, made
from tests.videos import clip_of, number_of, sequential

COLOUR_ROUNDING = 2


def need(reader: str) -> None:
    """Skip a test whose reader cannot be used here."""
    try:
        check_reader(reader)
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=list(CASES))
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Case, np.ndarray]:
    """Return a file, its case and its frames, decoded by nothing but PyAV's own loop, as they are coded."""
    case = CASES[request.param]
    path = made(case, tmp_path_factory.mktemp(request.param))
    frames = np.stack(sequential(path)[-case.count :])  # it also shows what it patches up of a cut group
    assert [number_of(frame) for frame in frames] == list(range(case.first, case.first + case.count))
    return path, case, frames


def _upright(frames: np.ndarray, case: Case) -> np.ndarray:
    return np.stack([case.upright(frame) for frame in frames])


def _same(read: np.ndarray, expected: np.ndarray, within: int) -> bool:
    return read.shape == expected.shape and int(np.abs(read.astype(np.int16) - expected).max()) <= within


def _orders(count: int) -> Iterator[np.ndarray]:
    """Yield what a reader is asked for in turn: frames in order, backwards, here and there, and the last one."""
    rng = np.random.default_rng(count)
    yield np.arange(count)
    yield np.arange(count)[::-1]
    yield from rng.integers(0, count, (4, 5))
    yield np.array([count - 1])


def _check(reader: Reader, expected: np.ndarray, within: int) -> None:
    assert len(reader.timestamps) == len(expected)
    for order in _orders(len(expected)):
        assert _same(reader.read(order), expected[order], within)


def test_pyav_gives_the_frames_of_a_sequential_decode(
    video: tuple[Path, Case, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, case, frames = video
    expected = _upright(frames, case)
    with open_clip(clip_of(path)) as opened:
        assert type(opened) is pyav.PyAVReader
        assert opened.index.seekable == case.seekable
        assert opened.timestamps[0] == 0
        assert (np.diff(opened.timestamps) > 0).all()
        _check(opened, expected, 0)
        assert all(np.array_equal(a, b) for a, b in zip(opened.frames(), expected, strict=True))
    monkeypatch.setattr(pyav, "KEPT_BYTES", 0)  # a file too large for its packets to be kept
    with open_clip(clip_of(path)) as opened:
        _check(opened, expected, 0)


@pytest.mark.parametrize("reader", sorted(SEEKING))
def test_seeking_readers_give_the_same_frames_or_refuse(reader: str, video: tuple[Path, Case, np.ndarray]) -> None:
    need(reader)
    path, case, frames = video
    clip = clip_of(path)
    if not case.seekable or reader in case.refused:
        with pytest.raises(ClipError, match="use reader: auto"):
            open_clip(clip, reader)
        return
    with open_clip(clip, reader) as fast, open_clip(clip, "pyav") as exact:
        assert np.array_equal(fast.timestamps, exact.timestamps)
        _check(fast, _upright(frames, case), COLOUR_ROUNDING)


@pytest.mark.parametrize("reader", ["pyav", *sorted(SEEKING)])
def test_two_passes_over_one_reader_do_not_disturb_each_other(reader: str, tmp_path: Path) -> None:
    need(reader)
    path = CASES["short_gops"].make(tmp_path)
    with open_clip(clip_of(path), reader) as opened:
        first, second = opened.frames(), opened.frames()
        for number in range(30):
            assert number_of(next(first)) == number
            assert number_of(opened.read([29 - number])[0]) == 29 - number
            assert number_of(next(second)) == number


@pytest.mark.parametrize("reader", ["pyav", *sorted(SEEKING)])
def test_a_file_replaced_by_another_is_refused_or_read_as_it_is(reader: str, tmp_path: Path) -> None:
    """The manifest's word that a file has so many frames counts for nothing against the file."""
    need(reader)
    for name in ("open_gop", "intra_refresh", "edit_list_cut", "two_video_streams", "b_frames_edit_list"):
        (tmp_path / name).mkdir()
        case = CASES[name]
        clip = clip_of(case.make(tmp_path / name), num_frames=20)
        try:
            with open_clip(clip, reader) as opened:
                numbers = [number_of(frame) for frame in opened.read(np.arange(case.count))]
        except ClipError as error:
            assert "use reader: auto" in str(error)  # noqa: PT017
        else:
            assert numbers == list(range(case.first, case.first + case.count))


@pytest.mark.parametrize("reader", ["pyav", *sorted(SEEKING)])
def test_real_clips_read_alike(reader: str, test_data: Path) -> None:
    need(reader)
    for path in sorted((test_data / "arid6/clips_128").glob("*/**/*.mp4"))[::60]:
        expected = np.stack(sequential(path))
        some = np.array([0, 5, 5, 17, len(expected) - 1])
        with open_clip(clip_of(path), reader) as opened:
            assert _same(opened.read(some), expected[some], 0)


REAL = {
    "mmaction2_test.avi": (164, (240, 320, 3), False),
    "mmaction2_arm_wrestling_demo.mp4": (280, (256, 340, 3), True),
    "torchcodec_av1.mkv": (125, (360, 640, 3), True),
    "decord_rotated_90.mov": (3, (568, 320, 3), True),
}


@pytest.mark.parametrize("reader", ["auto", *sorted(SEEKING)])
@pytest.mark.parametrize("name", REAL)
def test_awkward_real_files(name: str, reader: str, test_data: Path) -> None:
    need(reader)
    count, shape, seekable = REAL[name]
    clip = clip_of(test_data / "decode_samples" / name)
    try:
        with open_clip(clip, reader) as opened, open_clip(clip, "pyav") as exact:
            assert len(opened.timestamps) == count
            read = opened.read([count - 1, 0])
            assert read.shape == (2, *shape)
            assert _same(read, exact.read([count - 1, 0]), COLOUR_ROUNDING)
    except ClipError as error:
        assert "use reader: auto" in str(error)  # noqa: PT017
        assert reader != "auto"
        assert not (seekable and reader == "torchcodec")
