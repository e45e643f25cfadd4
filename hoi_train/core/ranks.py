"""Tensors of all ranks, for the parts of a run that learn from whole global batches.

Without a process group each function answers for this process alone; with one, every rank must call it equally often.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def distributed() -> bool:
    """Return whether this process is one of several ranks, or of a group of one."""
    return dist.is_available() and dist.is_initialized()


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of every rank's values.

    >>> sum_over_ranks(torch.tensor([3, 1]))
    tensor([3, 1])
    """
    if not distributed():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def num_ranks() -> int:
    """Return how many ranks there are, 1 without a process group."""
    return dist.get_world_size() if distributed() else 1


def mean_over_ranks(values: Tensor) -> Tensor:
    """Return the mean of the ranks' values."""
    return sum_over_ranks(values) / num_ranks()


def of_all_ranks(values: Tensor) -> Tensor:
    """Return the values of all ranks, equally many on each, in their order."""
    if not distributed():
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def stacked_over_ranks(values: Tensor) -> Tensor:
    """Return every rank's values, ``[R, ...]`` of values ``[...]``; gradients flow to this rank's own only."""
    if not distributed():
        return values[None]
    parts = list(of_all_ranks(values.detach()[None]))
    parts[dist.get_rank()] = values
    return torch.stack(parts)


def of_first_rank(values: Tensor) -> Tensor:
    """Return the values of rank 0, of the shape that all ranks' have."""
    if not distributed():
        return values
    given = values.clone()
    dist.broadcast(given, 0)
    return given


def rand_over_ranks(like: Tensor) -> Tensor:
    """Return uniform numbers in 0..1 of the shape ``[N, C]`` of ``like``: this rank's part of those drawn for all.

    Rank 0 draws. One process with the rows of all ranks, in their order, draws the same; ranks may have unequally many.
    """
    if not distributed():
        return torch.rand(*like.shape, dtype=like.dtype, device=like.device)
    rows = of_all_ranks(torch.tensor([len(like)], device=like.device)).tolist()
    drawn = of_first_rank(torch.rand(sum(rows), *like.shape[1:], dtype=like.dtype, device=like.device))
    before = sum(rows[: dist.get_rank()])
    return drawn[before : before + len(like)]


def of_this_rank(values: Tensor) -> Tensor:
    """Return this rank's part of what ``of_all_ranks`` has joined."""
    if not distributed():
        return values
    return values.chunk(dist.get_world_size())[dist.get_rank()]
