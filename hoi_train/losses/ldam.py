"""Label-distribution-aware margin loss: larger margins for rarer classes."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from hoi_train.core.records import ClassCounts
from hoi_train.losses.cross_entropy import CrossEntropy, Reduction
from hoi_train.losses.float32_pairs import as_float32_pair, from_float32_pair
from hoi_train.losses.weights import ClassWeighting


class LDAM(CrossEntropy):
    r"""Subtract a margin from the true cosine: ``loss_i = -w_y log softmax(z_i - s m_y onehot(y))[y]``, y = y_i.

    ``m_c = max_margin (n_min / n_c)^(1/4)`` with the smallest count ``n_min`` above 0. **Needs cosines**: the logits
    ``z = s cos`` of the ``cosine`` head with the same scale s. With logits of a linear head the margin has no meaning.
    The authors' head has no scale and their loss multiplies by s; here the head's scores are softmax scores.

    LDAM-DRW is ``weights: {scheme: effective, beta: 0.9999, from_epoch: 160}`` (of 200 epochs).
    Source: Cao et al., NeurIPS 2019, and the authors' ``losses.py`` and ``cifar_train.py``. For DRW the paper's text
    has weights ``1 / n_c``, the code the effective number; there a class without samples gets margin nan and makes all
    others' 0, here it has the margin of the rarest class. The loss of the validation split includes the margin, as in
    the authors' code.

    Args:
        class_counts: of the training split, single-label.
        max_margin: > 0, of the rarest class; the paper's CIFAR has 0.5, iNaturalist 0.3.
        scale: s > 0, factor of the cosines; must equal the head's.
        count_floor: lower bound of the counts; classes without samples then define ``n_min``.
        weights: weights per class, for DRW; 1 by default.
        reduction: as in ``CrossEntropy``; ``weighted_mean`` is the code's. Without weights both are the same.

    >>> loss = LDAM(ClassCounts.single([160, 10]))
    >>> loss(30 * torch.tensor([[0.75, 0.5], [0.5, 1.0]]), torch.tensor([0, 1]))
    tensor([0.6931, 0.6931])
    """

    margins: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        max_margin: Annotated[float, Gt(0)] = 0.5,
        scale: Annotated[float, Gt(0)] = 30.0,
        count_floor: Annotated[int, Ge(1)] | None = None,
        weights: ClassWeighting | None = None,
        reduction: Reduction = "weighted_mean",
    ) -> None:
        super().__init__(class_counts, weights=weights, reduction=reduction)
        self.scale = scale
        self.head = {"name": "cosine", "scale": scale}
        self.register_buffer("margins", as_float32_pair(class_margins(class_counts, max_margin, count_floor)))

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the weighted cross-entropy of the logits minus the true class's scaled margin, ``[N]``."""
        margins = from_float32_pair(self.margins, logits.dtype)
        true = torch.zeros_like(logits).scatter(1, target[:, None], 1.0)
        return super().per_sample(logits - self.scale * true * margins, target)


def class_margins(class_counts: ClassCounts, max_margin: float, count_floor: int | None = None) -> Tensor:
    """Return ``max_margin (n_min / n_c)^(1/4)``, float64 ``[C]``; without a floor, 0 counts as the smallest positive n.

    >>> class_margins(ClassCounts.single([160, 10]), max_margin=0.5).tolist()
    [0.25, 0.5]
    """
    floor = count_floor or min((count for count in class_counts.positives if count), default=1)
    counts = class_counts.tensor().clamp(min=floor)
    return max_margin * (counts.min() / counts) ** 0.25
