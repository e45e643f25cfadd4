"""Parts shared by losses of sigmoid scores per class, for single- and multi-label tasks."""

from __future__ import annotations

import torch
from torch import Tensor


def multi_hot(target: Tensor, logits: Tensor) -> Tensor:
    """Return labels ``[N, C]``: a multi-label target unchanged, class ids one-hot.

    >>> multi_hot(torch.tensor([2]), torch.zeros(1, 3))
    tensor([[0., 0., 1.]])
    """
    return target if target.ndim == 2 else torch.zeros_like(logits).scatter(1, target[:, None], 1.0)


def over_classes(terms: Tensor, target: Tensor) -> Tensor:
    """Return the sum (single-label) or the mean (multi-label) of each row's terms, ``[N]``.

    The published losses, with one binary problem per class, use the sum. BCE and VidHOI's code use the mean, so that
    all losses of multi-label tasks need similar learning rates.
    """
    return terms.sum(1) if target.ndim == 1 else terms.mean(1)
