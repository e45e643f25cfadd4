"""Collective operations for code that needs the global batch.

Without a process group they use this process only; with one, every rank must make the same calls.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def distributed() -> bool:
    """Return whether there is a process group, also of one rank."""
    return dist.is_available() and dist.is_initialized()


def leave_ranks() -> None:
    """Leave the process group before the program exits.

    gloo's threads may still hold work at interpreter shutdown, which can abort the process after training has ended;
    torchrun reports that as a failed rank (pytorch/pytorch#179291).
    """
    if distributed():
        dist.destroy_process_group()


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of the ranks' values.

    >>> sum_over_ranks(torch.tensor([3, 1]))
    tensor([3, 1])
    """
    if not distributed():
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def num_ranks() -> int:
    """Return the number of ranks, 1 without a process group."""
    return dist.get_world_size() if distributed() else 1


def mean_over_ranks(values: Tensor) -> Tensor:
    """Return the mean of the ranks' values."""
    return sum_over_ranks(values) / num_ranks()


def of_all_ranks(values: Tensor) -> Tensor:
    """Return the values of all ranks, concatenated; their number must be equal on all ranks."""
    if not distributed():
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def stacked_over_ranks(values: Tensor) -> Tensor:
    """Stack the ranks' values ``[...]`` to ``[R, ...]``; gradients flow only to this rank's own."""
    if not distributed():
        return values[None]
    parts = list(of_all_ranks(values.detach()[None]))
    parts[dist.get_rank()] = values
    return torch.stack(parts)


def of_first_rank(values: Tensor) -> Tensor:
    """Return the values of rank 0; shapes must be equal on all ranks."""
    if not distributed():
        return values
    given = values.clone()
    dist.broadcast(given, 0)
    return given


def rand_over_ranks(like: Tensor) -> Tensor:
    """Return this rank's part, in the shape ``[N, C]`` of ``like``, of uniform numbers in 0..1 drawn by rank 0 for all.

    A single process with the rows of all ranks, in order, draws the same numbers. Ranks may have different N.
    """
    if not distributed():
        return torch.rand(*like.shape, dtype=like.dtype, device=like.device)
    rows = of_all_ranks(torch.tensor([len(like)], device=like.device)).tolist()
    drawn = of_first_rank(torch.rand(sum(rows), *like.shape[1:], dtype=like.dtype, device=like.device))
    before = sum(rows[: dist.get_rank()])
    return drawn[before : before + len(like)]


def of_this_rank(values: Tensor) -> Tensor:
    """Return this rank's part of values concatenated by `of_all_ranks`."""
    if not distributed():
        return values
    return values.chunk(dist.get_world_size())[dist.get_rank()]
