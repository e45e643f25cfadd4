"""Bring the evaluated rows of all ranks together, each row once and in one order."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from hoi_train.core.ranks import distributed


def gather(indices: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
    """Return the rows of all ranks, without duplicates, sorted by index: the same tensors on every rank.

    Metrics made from the result are bit-identical for any number of ranks and any division of the rows, also when a
    sampler padded the last batch by repeating clips. Without a process group the rows of this process are cleaned in
    the same way. With one, every rank must call it, also a rank without rows, which gives ``torch.empty(0)`` for
    whatever it never computed.

    Args:
        indices: int64 ``[n]``, the position of each row in the split; n may differ between ranks and may be 0.
        columns: tensors ``[n, …]`` in the order of ``indices``: logits, target, losses …

    Returns:
        ``(indices, *columns)`` on the CPU, N rows; of rows with the same index the first of the lowest rank is kept.

    Raises:
        ValueError: a column has another number of rows than the indices; raised on every rank.

    >>> gather(torch.tensor([2, 0, 2]), torch.tensor([0.2, 0.0, 0.9]))
    (tensor([0, 2]), tensor([0.0000, 0.2000]))
    """
    shards = _all_ranks(tuple(tensor.detach().cpu() for tensor in (indices, *columns)))
    for rank, shard in enumerate(shards):
        lengths = [len(tensor) for tensor in shard]
        if len(set(lengths)) > 1:
            raise ValueError(f"rank {rank} gave {lengths[0]} indices and columns of {lengths[1:]} rows")
    # A rank without rows knows neither the shapes nor the dtypes of what it never computed.
    filled = [shard for shard in shards if len(shard[0])] or shards[:1]
    rows = [torch.cat(parts) for parts in zip(*filled, strict=True)]
    order = rows[0].argsort(stable=True)
    ordered = rows[0][order]
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return tuple(tensor[order[first]] for tensor in rows)


def _all_ranks(shard: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    if not distributed():
        return [shard]
    shards: list[tuple[Tensor, ...]] = [()] * dist.get_world_size()
    # Objects carry their own shapes, so uneven shards need no padding, and NCCL takes them from the CPU.
    dist.all_gather_object(shards, shard)
    return shards
