"""Binary cross-entropy per class."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from hoi_train.core.records import ClassCounts
from hoi_train.losses.base import Loss
from hoi_train.losses.weights import ClassWeighting


class BCE(Loss):
    """Binary cross-entropy averaged over classes: ``loss_i = mean_c w_c BCE(z_ic, t_ic)``.

    ``BCE(z, t) = -t log sigmoid(z) - (1 - t) log(1 - sigmoid(z))``. With the mean over samples this is the mean over
    N x C of the ST-HOI baseline of VidHOI (Chiou et al., ICDAR workshop 2021), whose code takes probabilities and
    clamps the logarithm at -100, beyond which a wrong score has no gradient; this one takes logits.

    Args:
        class_counts: of the training split, multi-label.
        weights: weights per class, by default of whole columns (``place``); 1 by default.

    >>> import torch
    >>> loss = BCE(ClassCounts.multi([6, 1], num_samples=9))
    >>> loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))
    tensor([0.6931])
    """

    labels = frozenset({"multi"})

    def __init__(self, class_counts: ClassCounts, *, weights: ClassWeighting | None = None) -> None:
        super().__init__(class_counts, weights)

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean over classes of the weighted terms, ``[N]``."""
        terms = binary_cross_entropy_with_logits(logits, target, reduction="none")
        return self.weigh(terms, target).mean(1)
