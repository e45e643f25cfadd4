"""Vector-scaling loss: scales and shifts the logits by class counts."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor
from torch.nn.functional import logsigmoid

from hoi_train.core.records import ClassCounts
from hoi_train.losses.base import Loss
from hoi_train.losses.float32_pairs import as_float32_pair, from_float32_pair
from hoi_train.losses.focal import true_class_margin
from hoi_train.losses.logit_adjustment import logit_shift
from hoi_train.losses.weights import ClassWeighting


class VS(Loss):
    r"""Cross-entropy of scaled and shifted logits: ``loss_i = -w_y log softmax(z / d + a)[y]``.

    ``d_c = (n_max / n_c)^gamma`` with the largest count ``n_max``, ``a = logit_shift(class_counts, tau)``. Additive
    shifts act early in training; once the network separates its training set, only the factors change its margins.
    ``gamma = 0`` is logit adjustment, with ``tau = 0`` cross-entropy; ``tau = 0`` alone is CDT (Ye et al., 2020).
    Source: Kini et al., NeurIPS 2021, whose factor is ``1 / d``, and ``VSLoss`` of the authors'
    ``class_imbalance/losses.py``, where a class without samples is an error; here it counts as one sample. Its shift
    is ``tau log pi`` without the 1e-12 of ``logit_shift``, which changes less than 1e-6 for ``pi^tau > 1e-6``.

    Args:
        class_counts: of the training split, single-label.
        gamma: >= 0, exponent of the factors.
        tau: >= 0, strength of the shifts; for sampling by class see ``LogitAdjustment``.
        weights: additional weights per class; 1 by default.

    >>> import torch
    >>> loss = VS(ClassCounts.single([80, 10]), gamma=1 / 3, tau=0.0)
    >>> loss(torch.tensor([[3.0, 6.0]]), torch.tensor([1]))
    tensor([0.6931])
    """

    labels = frozenset({"single"})
    divisor: Tensor
    shift: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        gamma: Annotated[float, Ge(0)] = 0.3,
        tau: Annotated[float, Ge(0)] = 1.0,
        weights: ClassWeighting | None = None,
    ) -> None:
        super().__init__(class_counts, weights)
        counts = class_counts.tensor().clamp(min=1)
        self.register_buffer("divisor", as_float32_pair((counts.max() / counts) ** gamma))
        self.register_buffer("shift", as_float32_pair(logit_shift(class_counts, tau)))

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of the scaled and shifted logits, ``[N]``."""
        divisor, shift = (from_float32_pair(pair, logits.dtype) for pair in (self.divisor, self.shift))
        return self.weigh(-logsigmoid(true_class_margin(logits / divisor + shift, target)), target)
