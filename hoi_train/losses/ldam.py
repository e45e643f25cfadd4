"""Label-distribution-aware margin loss: rare classes must win by more."""

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
    r"""Take a margin off the true class's cosine: ``loss_i = -w_y log softmax(z_i - s m_y onehot(y))[y]``, y = y_i.

    ``m_c = max_margin (n_min / n_c)^(1/4)`` with the smallest count ``n_min`` above 0. **Needs cosines**: the logits
    ``z = s cos`` of the ``cosine`` head, whose scale is s, too. With a linear head's logits the margin means nothing.
    The authors' head has no scale and their loss multiplies by s; here scores are softmax scores without the loss.

    LDAM-DRW is ``weights: {scheme: effective, beta: 0.9999, from_epoch: 160}`` (of 200 epochs).
    Source: Cao et al., NeurIPS 2019, and the authors' ``losses.py`` and ``cifar_train.py``. For DRW the paper's
    text has weights ``1 / n_c``, the code the effective number; a class without samples has margin nan there and takes
    all others' to 0, here it has the margin of the rarest. The loss shown for the validation split has the margin too,
    as in that code.

    Args:
        class_counts: of the training split, single-label.
        max_margin: > 0, of the rarest class; the paper's CIFAR has 0.5, iNaturalist 0.3.
        scale: s > 0, which undoes that cosines are at most 1; the head's must be the same.
        count_floor: smallest count used; classes without samples then set ``n_min``.
        weights: weight of each class, DRW's; all 1 if not given.
        reduction: as in ``CrossEntropy``. ``weighted_mean`` is the code's; without weights the two are the same.

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
        """Return the weighted cross-entropy of the logits less the true class's scaled margin, ``[N]``."""
        margins = from_float32_pair(self.margins, logits.dtype)
        true = torch.zeros_like(logits).scatter(1, target[:, None], 1.0)
        return super().per_sample(logits - self.scale * true * margins, target)


def class_margins(class_counts: ClassCounts, max_margin: float, count_floor: int | None = None) -> Tensor:
    """Return ``max_margin (n_min / n_c)^(1/4)``, float64 ``[C]``; without a floor 0 counts as the smallest other.

    >>> class_margins(ClassCounts.single([160, 10]), max_margin=0.5).tolist()
    [0.25, 0.5]
    """
    floor = count_floor or min((count for count in class_counts.positives if count), default=1)
    counts = class_counts.tensor().clamp(min=floor)
    return max_margin * (counts.min() / counts) ** 0.25
