"""Gather the evaluated rows of all ranks, each once and in one order."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from hoi_train.core.ranks import distributed


def gather(keys: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
    """Return the rows of all ranks sorted by key, without repetitions: the same tensors on every rank.

    Metrics of the result are bit-identical for any number of ranks and any division of the rows. Rows that a sampler
    repeats to fill a batch are counted once; they must be equal. With a process group every rank must call this, also
    one without rows, which passes ``torch.empty(0)`` for whatever it never computed.

    Args:
        keys: int64 ``[n, 2]``, the position in the split and the view of each row; n may differ between ranks.
        columns: tensors ``[n, …]`` in the order of ``keys``: logits, targets, losses …

    Returns:
        ``(keys, *columns)`` on the CPU, N rows.

    Raises:
        ValueError: on every rank, if a column has another number of rows than the keys, or two rows of one key differ.

    >>> gather(torch.tensor([[2, 0], [0, 0], [2, 0]]), torch.tensor([0.2, 0.0, 0.2]))
    (tensor([[0, 0],
            [2, 0]]), tensor([0.0000, 0.2000]))
    """
    shards = _all_ranks(tuple(tensor.detach().cpu() for tensor in (keys, *columns)))
    for rank, shard in enumerate(shards):
        lengths = [len(tensor) for tensor in shard]
        if len(set(lengths)) > 1:
            raise ValueError(f"rank {rank} gave {lengths[0]} keys and columns of {lengths[1:]} rows")
    # A rank without rows knows neither the shapes nor the dtypes of what it never computed.
    filled = [shard for shard in shards if len(shard[0])] or shards[:1]
    rows = [torch.cat(parts) for parts in zip(*filled, strict=True)]
    if not len(rows[0]):
        return tuple(rows)
    positions, views = rows[0].unbind(1)
    order = (positions * (int(views.max()) + 1) + views).argsort(stable=True)
    rows = [tensor[order] for tensor in rows]
    repeated = (rows[0][1:] == rows[0][:-1]).all(1).nonzero().flatten() + 1
    if len(repeated):
        _check_equal(rows, repeated)
    kept = torch.ones(len(order), dtype=torch.bool)
    kept[repeated] = False
    return tuple(tensor[kept] for tensor in rows)


def _check_equal(rows: list[Tensor], repeated: Tensor) -> None:
    """Raise if a repeated row, given by its place among the sorted rows, differs from the one before it."""
    for number, column in enumerate(rows[1:], start=1):
        one, other = column[repeated - 1], column[repeated]
        same = (one == other) | ((one != one) & (other != other))
        differing = repeated[~same.reshape(len(repeated), -1).all(1)]
        if len(differing):
            (position, view), at = rows[0][differing[0]].tolist(), int(differing[0])
            raise ValueError(
                f"{len(differing)} rows were evaluated twice with different results, the first at position {position}, "
                f"view {view}: column {number} is {column[at - 1].tolist()} and {column[at].tolist()}; evaluate each "
                "view of each clip once"
            )


def _all_ranks(shard: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    if not distributed():
        return [shard]
    shards: list[tuple[Tensor, ...]] = [()] * dist.get_world_size()
    # Objects carry their own shapes, so uneven shards need no padding, and NCCL takes them from the CPU.
    dist.all_gather_object(shards, shard)
    return shards
