"""What losses that learn from batches need of the other ranks."""

from __future__ import annotations

import torch.distributed as dist
from torch import Tensor


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of every rank's values, or the values themselves without a process group.

    With one, every rank must call it equally often.

    >>> import torch
    >>> sum_over_ranks(torch.tensor([3, 1]))
    tensor([3, 1])
    """
    if not (dist.is_available() and dist.is_initialized()):
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total
