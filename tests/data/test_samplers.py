"""Who gets which clips, when."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hoi_train.data.samplers import EpochSampler, Item, evaluation_batches

counts = st.integers(1, 200)
sizes = st.integers(1, 20)
worlds = st.integers(1, 5)


def _clips(batches: list[list[Item]]) -> list[int]:
    return [item.clip for batch in batches for item in batch]


@given(counts, sizes, st.integers(0, 100), st.integers(0, 5))
def test_an_epoch_shows_each_clip_once_but_for_the_last_part(count: int, size: int, seed: int, epoch: int) -> None:
    sampler = EpochSampler(count, size, seed)
    batches = sampler.batches(epoch)
    assert all(len(batch) == size for batch in batches)
    assert len(batches) == sampler.num_batches(epoch) == max(1, count // size)
    if count >= size:
        assert len(set(_clips(batches))) == len(_clips(batches)) == count // size * size
        assert all(item == Item(item.clip, epoch) for batch in batches for item in batch)
    else:
        assert set(_clips(batches)) == set(range(count))


@given(counts, sizes, worlds, st.integers(0, 100))
def test_ranks_together_see_what_one_process_sees(count: int, size: int, world: int, seed: int) -> None:
    ranks = [list(EpochSampler(count, size, seed, rank, world).batches(2)) for rank in range(world)]
    alone = list(EpochSampler(count, size * world, seed).batches(2))
    assert [[item for part in parts for item in part] for parts in zip(*ranks, strict=True)] == alone


def test_order_is_a_function_of_seed_and_epoch() -> None:
    orders = {
        (seed, epoch): tuple(_clips(EpochSampler(50, 10, seed).batches(epoch))) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    assert _clips(EpochSampler(50, 10, 1).batches(1)) == list(orders[1, 1])
    dropped = {frozenset(range(50)) - set(_clips(EpochSampler(50, 40, 0).batches(epoch))) for epoch in range(4)}
    assert len(dropped) == 4


@given(counts, sizes, worlds, st.data())
def test_an_interrupted_epoch_goes_on_where_it_was(count: int, size: int, world: int, data: st.DataObject) -> None:
    sampler = EpochSampler(count, size, 0, data.draw(st.integers(0, world - 1)), world)
    done = data.draw(st.integers(0, sampler.num_batches(3)))
    assert list(sampler.batches(3, done)) == list(sampler.batches(3))[done:] == list(sampler.batches(3)[done:])


def test_a_clip_drawn_again_is_another_item() -> None:
    drawn = torch.tensor([4, 4, 1, 4, 1, 0])
    items = [
        [Item(4, 7, 0), Item(4, 7, 1), Item(1, 7, 0)],
        [Item(4, 7, 2), Item(1, 7, 1), Item(0, 7, 0)],
    ]
    assert list(EpochSampler(5, 3, 0).batches(7, drawn=drawn)) == items
    assert list(EpochSampler(5, 3, 0).batches(7, 1, drawn)) == items[1:]
    assert [list(EpochSampler(5, 3, 0, rank, 2).batches(7, drawn=drawn)) for rank in (0, 1)] == [items[:1], items[1:]]
    assert list(EpochSampler(2, 5, 0).batches(0, drawn=torch.tensor([1, 0]))) == [
        [Item(1, 0, 0), Item(0, 0, 0), Item(1, 0, 1), Item(0, 0, 1), Item(1, 0, 2)]
    ]


@given(st.integers(0, 200), sizes, worlds)
def test_an_evaluation_shows_each_clip_once_over_all_ranks(count: int, size: int, world: int) -> None:
    shards = [evaluation_batches(count, size, rank, world) for rank in range(world)]
    assert [clip for shard in shards for clip in _clips(shard)] == list(range(count))
    assert all(0 < len(batch) <= size for shard in shards for batch in shard)
    lengths = [len(_clips(shard)) for shard in shards]
    assert max(lengths) - min(lengths) <= 1
    assert all(item.epoch is None for shard in shards for batch in shard for item in batch)


def test_nothing_to_draw_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="no clips to draw from"):
        EpochSampler(0, 4, 0)
