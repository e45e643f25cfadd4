"""Views of evaluation: their frames, their crops and the average of their scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hoi_train.core.randomness import generator
from hoi_train.data.dataset import collate
from hoi_train.data.inputs import ClipInput
from hoi_train.data.manifest import Manifest
from hoi_train.data.samplers import Item, evaluation_batches
from hoi_train.data.sampling import AroundKey, segment_frames
from hoi_train.data.transforms import Augment, CenterCrop, Transform
from hoi_train.data.views import View, Views, average_views
from tests.data.test_dataset import make_dataset


@given(st.integers(1, 5000), st.integers(1, 32), st.integers(1, 10))
def test_the_temporal_views_together_are_the_segments_of_all_their_frames(available: int, count: int, of: int) -> None:
    views = [segment_frames(available, count, view=View(offset, of)) for offset in range(of)]
    assert np.stack(views, axis=1).ravel().tolist() == segment_frames(available, count * of).tolist()


def test_views_around_no_key_frame_are_spread_over_the_clip() -> None:
    frames = [AroundKey(stride=2)(90, 3, view=View(offset, 3)).tolist() for offset in range(3)]
    assert frames == [[13, 15, 17], [43, 45, 47], [73, 75, 77]]
    assert [AroundKey()(90, 1, 7, view=View(offset, 3)).tolist() for offset in range(3)] == [[7]] * 3


@pytest.mark.parametrize(("height", "width"), [(40, 101), (101, 40)])
def test_crops_lie_evenly_along_the_long_side(height: int, width: int) -> None:
    frames = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, generator=generator(0))
    options = ClipInput((Augment(), CenterCrop(size=40, scale=1.0)), views=Views(crops=3))
    for view, start in enumerate((0, 31, 61)):
        video = options.transform(frames, "clip", Item(0, view=view)).video
        part = frames[:, :, start : start + 40] if width > height else frames[:, start : start + 40]
        assert torch.equal(video, part.permute(3, 0, 1, 2))


def test_one_view_is_the_middle() -> None:
    assert [Views()[0], len(Views())] == [View(0, 1, 0.5), 1]
    views = Views(frames=2, crops=3, splits=("test",))
    assert [views[number] for number in (0, 2, 3, 4)] == [View(0, 2, 0), View(0, 2, 1), View(1, 2, 0), View(1, 2, 0.5)]
    assert (views.of("test"), views.of("val")) == (views, Views())
    with pytest.raises(IndexError, match="view 6 of 6"):
        views[6]


@pytest.mark.parametrize("evaluation", [Augment(), CenterCrop(padded=True)])
def test_crops_need_a_long_side(evaluation: Transform) -> None:
    with pytest.raises(ValueError, match="need a center_crop that is not padded"):
        ClipInput((Augment(), evaluation), views=Views(crops=3))


def test_the_average_is_of_probabilities() -> None:
    logits = torch.randn(5, 3, 4, generator=generator(0), dtype=torch.float64)
    single, multi = average_views(logits, "single"), average_views(logits, "multi")
    torch.testing.assert_close(single.softmax(1), logits.softmax(2).mean(1))
    torch.testing.assert_close(multi.sigmoid(), logits.sigmoid().mean(1))
    assert average_views(logits[:, :1], "single").data_ptr() == logits.data_ptr()
    far = torch.tensor([[[1000.0, -1000.0], [900.0, -900.0]]])
    assert average_views(far, "multi")[0].tolist() == pytest.approx([900.693, -900.693])
    assert average_views(far, "single").isfinite().all()


@given(st.integers(0, 50), st.integers(1, 9), st.integers(1, 5), st.integers(1, 6))
def test_every_view_of_every_clip_is_evaluated_once_over_all_ranks(count: int, size: int, world: int, of: int) -> None:
    shards = [evaluation_batches(count, size, rank, world, of) for rank in range(world)]
    items = [item for shard in shards for batch in shard for item in batch]
    assert items == [Item(clip, view=view) for clip in range(count) for view in range(of)]


def test_a_batch_says_which_view_each_row_is(manifest: Manifest) -> None:
    dataset = make_dataset(manifest, views=Views(frames=2))
    batch = collate([dataset[item] for item in (Item(3, view=1), Item(3), Item(5, view=1))])
    assert dataset.num_views == 2
    assert batch.keys.tolist() == [[3, 1], [3, 0], [5, 1]]
    assert batch.map(lambda tensor: tensor.clone()).keys.tolist() == batch.keys.tolist()
    assert not torch.equal(batch.video[0], batch.video[1])
