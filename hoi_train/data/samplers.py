"""Divide the clips of an epoch into batches per rank, as a function of (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, overload

import torch
from torch import Tensor

from hoi_train.core.randomness import generator


class Item(NamedTuple):
    """One sample to read; with the seed it determines frames and augmentation.

    Args:
        clip: position of the clip in its split.
        epoch: from 0; ``None`` is evaluation, where nothing is random.
        repeat: how often the clip was drawn before in this epoch; each time it looks different.
        view: number of the view, in evaluation.
    """

    clip: int
    epoch: int | None = None
    repeat: int = 0
    view: int = 0


class Batches(Sequence[list[Item]]):
    """The items of many batches, created on access: a million ``Item`` objects take 150 MB.

    Args:
        clips: int64 ``[K]``, positions in the split.
        batch_size: clips per batch; the last may have fewer.
        epoch: of all items.
        repeats: int64 ``[K]``; none are repeated if not given.
        views: int64 ``[K]``; the first if not given.

    >>> [len(batch) for batch in Batches(torch.arange(5), 2)]
    [2, 2, 1]
    """

    def __init__(
        self,
        clips: Tensor,
        batch_size: int,
        epoch: int | None = None,
        repeats: Tensor | None = None,
        views: Tensor | None = None,
    ) -> None:
        self.clips, self.batch_size, self.epoch = clips, batch_size, epoch
        self.repeats = torch.zeros_like(clips) if repeats is None else repeats
        self.views = torch.zeros_like(clips) if views is None else views

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.clips) // self.batch_size)

    @overload
    def __getitem__(self, place: int) -> list[Item]: ...
    @overload
    def __getitem__(self, place: slice) -> Batches: ...
    def __getitem__(self, place: int | slice) -> list[Item] | Batches:
        """Return a batch, or neighbouring batches."""
        if isinstance(place, slice):
            chosen = range(len(self))[place]
            rows = slice(chosen.start * self.batch_size, chosen.stop * self.batch_size)
            return Batches(self.clips[rows], self.batch_size, self.epoch, self.repeats[rows], self.views[rows])
        first = range(len(self))[place] * self.batch_size
        rows = slice(first, first + self.batch_size)
        columns = (of[rows].tolist() for of in (self.clips, self.repeats, self.views))
        return [Item(clip, self.epoch, repeat, view) for clip, repeat, view in zip(*columns, strict=True)]


class EpochSampler:
    """Divide each training epoch into batches per rank.

    A global batch is ``world_size`` times ``batch_size`` clips in the order of the epoch; rank r takes its r-th part.
    So two ranks see what one process with the doubled batch sees, and all ranks have equally many batches. What is
    left at the end of the order, less than a global batch, is dropped (each epoch leaves out other clips); if that is
    all there is, the order is repeated to fill one batch.

    Args:
        num_clips: clips in the split, at least 1.
        batch_size: clips per batch and rank.
        seed: seed of the run.
        rank, world_size: which part of each global batch to give.
    """

    def __init__(self, num_clips: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if num_clips < 1:
            raise ValueError("there are no clips to draw from")
        self.num_clips, self.batch_size, self.seed = num_clips, batch_size, seed
        self.rank, self.world_size = rank, world_size

    def order(self, epoch: int, drawn: Tensor | None = None) -> Tensor:
        """Return the clips of an epoch in the order of all ranks: whole global batches, int64.

        Args:
            epoch: from 0.
            drawn: int64 indices, in this order, in place of each clip once in a random order; empty for no batches.
        """
        if drawn is None:
            drawn = torch.randperm(self.num_clips, generator=generator(self.seed, "order", epoch))
        if not len(drawn):
            return drawn
        size = self.batch_size * self.world_size
        kept = max(size, len(drawn) // size * size)
        return drawn[torch.arange(kept) % len(drawn)]

    def num_batches(self, epoch: int, drawn: Tensor | None = None) -> int:
        """Return the batches of an epoch on each rank, at least 1 unless ``drawn`` is empty."""
        return len(self.order(epoch, drawn)) // (self.batch_size * self.world_size)

    def batches(self, epoch: int, start_batch: int = 0, drawn: Tensor | None = None) -> Batches:
        """Return this rank's batches from ``start_batch`` on: those left of an epoch that was interrupted there."""
        indices = self.order(epoch, drawn)
        clips, repeats = (
            of.view(-1, self.world_size, self.batch_size)[start_batch:, self.rank].flatten()
            for of in (indices, _repeats(indices))
        )
        return Batches(clips, self.batch_size, epoch, repeats)


def evaluation_batches(
    num_clips: int, batch_size: int, rank: int = 0, world_size: int = 1, num_views: int = 1
) -> Batches:
    """Return a rank's batches of an evaluation: over all ranks every view of every clip once, in the split's order.

    Shards differ by at most one view, and the views of a clip may lie on two ranks; the last batch may be smaller, and
    a rank may have none.
    """
    start, stop = (num_clips * num_views * part // world_size for part in (rank, rank + 1))
    rows = torch.arange(start, stop)
    return Batches(rows // num_views, batch_size, views=rows % num_views)


def _repeats(indices: Tensor) -> Tensor:
    """Return how often each index occurs before its place."""
    sorted_indices, places = torch.sort(indices, stable=True)
    firsts = torch.searchsorted(sorted_indices, sorted_indices)
    return torch.empty_like(indices).scatter_(0, places, torch.arange(len(indices)) - firsts)
