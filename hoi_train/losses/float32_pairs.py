"""float64 constants in float32 buffers."""

from __future__ import annotations

import torch
from torch import Tensor


def as_float32_pair(values: Tensor) -> Tensor:
    """Split float64 ``[C]`` into float32 ``[2, C]`` whose sum keeps 48 bits.

    Buffers cannot be float64 on Apple's MPS, and a shift of 8 rounded to float32 is 5e-7 off, which as an exponent
    changes the seventh digit of every score.
    """
    high = values.float()
    return torch.stack([high, (values - high.double()).float()])


def from_float32_pair(pair: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the values ``[C]`` of a pair in ``dtype``, at least float32."""
    return pair.to(dtype).sum(0)
