"""What the losses share that compare each class's own sigmoid score with its label, whatever the kind of labels."""

from __future__ import annotations

import torch
from torch import Tensor


def multi_hot(target: Tensor, logits: Tensor) -> Tensor:
    """Return labels ``[N, C]``: those of a multi-label target as they are, those of class ids one-hot.

    >>> multi_hot(torch.tensor([2]), torch.zeros(1, 3))
    tensor([[0., 0., 1.]])
    """
    return target if target.ndim == 2 else torch.zeros_like(logits).scatter(1, target[:, None], 1.0)


def over_classes(terms: Tensor, target: Tensor) -> Tensor:
    """Return ``[N]``: the sum of a row's terms (single-label), or their mean (multi-label).

    The sum is that of the published losses, of which each class is a problem of its own. The mean is that of BCE
    and of VidHOI's code, so that in multi-label tasks all losses take the same learning rate.
    """
    return terms.sum(1) if target.ndim == 1 else terms.mean(1)
