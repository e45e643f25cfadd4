"""Segment sampling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hoi_train.core.randomness import generator
from hoi_train.data.sampling import Segments, segment_frames

sizes = st.tuples(st.integers(1, 5000), st.integers(1, 64))


@given(sizes, st.one_of(st.none(), st.integers(0, 2**62)))
def test_one_frame_of_each_segment_in_order(size: tuple[int, int], seed: int | None) -> None:
    available, count = size
    draw = None if seed is None else generator(seed)
    frames = segment_frames(available, count, draw)
    k = np.arange(count)
    assert frames.dtype == np.int64
    assert frames.shape == (count,)
    assert (np.diff(frames) >= 0).all()
    assert (frames >= k * available // count).all()
    assert (frames <= -(-(k + 1) * available // count) - 1).all()
    if available >= 2 * count and available % count == 0:
        assert (np.diff(frames) > 0).all()


@given(sizes, st.integers(0, 2**62))
def test_the_same_generator_gives_the_same_frames(size: tuple[int, int], seed: int) -> None:
    assert np.array_equal(segment_frames(*size, generator(seed)), segment_frames(*size, generator(seed)))


@given(sizes)
def test_evaluation_takes_equal_intervals(size: tuple[int, int]) -> None:
    available, count = size
    frames = segment_frames(available, count)
    assert np.array_equal(frames, segment_frames(available, count))
    assert abs(frames - (np.arange(count) + 0.5) * available / count).max() < 1
    steps = np.diff(frames)
    assert len(steps) == 0 or steps.max() - steps.min() <= 1
    assert frames[0] + frames[-1] in (available - 1, available - 0)  # as far from the start as from the end


def test_training_draws_every_frame_equally_often() -> None:
    counts = np.zeros(25, int)
    for seed in range(2000):
        counts += np.bincount(segment_frames(25, 10, generator("uniform", seed)), minlength=25)
    expected = 2000 * 10 / 25
    assert abs(counts - expected).max() < 5 * expected**0.5


@pytest.mark.parametrize(("available", "count"), [(1, 10), (3, 10), (9, 10), (10, 10)])
def test_short_clips_repeat_frames(available: int, count: int) -> None:
    assert set(segment_frames(available, count).tolist()) == set(range(available))
    assert segment_frames(available, count, generator(0)).max() < available


def test_a_moment_rounded_up_to_the_end_is_still_in_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    last = torch.full((10,), 1 - 2.0**-53, dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *size, **options: last)  # a draw of probability 2**-53
    assert segment_frames(7, 10, generator(0))[-1] == 6


@pytest.mark.parametrize(("available", "count"), [(0, 10), (5, 0), (-1, 1)])
def test_nothing_to_take_is_an_error(available: int, count: int) -> None:
    with pytest.raises(ValueError, match=f"{available} frames in the clip and {count} to take"):
        segment_frames(available, count)


@pytest.mark.parametrize(("key", "frames"), [(8, [2, 8, 12, 17]), (0, [0, 7, 12, 17]), (19, [2, 7, 12, 19])])
def test_a_key_frame_takes_the_place_of_the_nearest(key: int, frames: list[int]) -> None:
    assert Segments()(20, 4).tolist() == [2, 7, 12, 17]
    assert Segments()(20, 4, key).tolist() == frames
