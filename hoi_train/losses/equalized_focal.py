"""Equalized focal loss: a focusing parameter per class that grows with its gradient imbalance."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le
from torch import Tensor
from torch.nn.functional import logsigmoid

from hoi_train.core.records import ClassCounts
from hoi_train.losses.base import Loss
from hoi_train.losses.equalization_v2 import GradientBalance
from hoi_train.losses.focal import focal_term
from hoi_train.losses.sigmoid import multi_hot, over_classes
from hoi_train.losses.weights import ClassWeighting


class EqualizedFocal(Loss):
    r"""Focal loss with a focusing parameter per class, set by the balance of the class's gradients.

    ``loss_i = -sum_c a_ic (gamma_c / gamma) (1 - p_ic)^gamma_c log p_ic`` with ``p = sigmoid(z)`` and ``a = alpha``
    where the label holds, ``1 - sigmoid(z)`` and ``1 - alpha`` where not. ``gamma_c = gamma + scale (1 - g_c)``, and
    ``g_c``, clamped to 0..1, is the ratio of the gradients of the class's positives to those of its negatives, summed
    over all ranks and all previous steps, as in ``EQLv2``. A balanced class has the focal loss with ``gamma``, as every
    class before the first step.
    Source: Li et al., CVPR 2022, and the authors' ``up/tasks/det/plugins/efl/models/losses/efl.py``
    in ModelTC/United-Perception.

    The official code takes the gradients from a hook on the detector's last layer; here they are the derivative of the
    formula, before class weights and the division by the batch size, so that the ratio does not depend on these. The
    official code divides by the number of positives, which in single-label tasks is the number of samples, as here;
    multi-label tasks use the mean over classes, as all losses here. Evaluation does not accumulate.

    Args:
        class_counts: of the training split; only C is used.
        gamma: > 0, focusing parameter of a balanced class, gamma_b in the paper.
        scale: >= 0, largest increase of the focusing parameter, s in the paper.
        alpha: share of the positives in 0..1.
        weights: weights per class, by default of rows by their true class (single-label) or of columns
            (multi-label); 1 by default.

    >>> import torch
    >>> loss = EqualizedFocal(ClassCounts.single([6, 3]), alpha=0.5)
    >>> loss(torch.zeros(1, 2), torch.tensor([0]))  # 2 classes x alpha x (1 - 0.5)^2 x log 2
    tensor([0.1733])
    """

    labels = frozenset({"single", "multi"})

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        gamma: Annotated[float, Gt(0)] = 2.0,
        scale: Annotated[float, Ge(0)] = 8.0,
        alpha: Annotated[float, Ge(0), Le(1)] = 0.25,
        weights: ClassWeighting | None = None,
    ) -> None:
        super().__init__(class_counts, weights)
        self.gamma, self.scale, self.alpha = gamma, scale, alpha
        self.balance = GradientBalance(self.num_classes)

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum (single-label) or the mean (multi-label) over classes of the terms, ``[N]``."""
        labels = multi_hot(target, logits)
        growth = self.scale * (1 - self.balance.ratio().clamp(max=1)).to(logits.dtype)
        shares = self.alpha * labels, (1 - self.alpha) * (1 - labels)
        factor = 1 + growth / self.gamma
        positive, negative = (_equalized(margin, self.gamma, growth) for margin in (logits, -logits))
        if self.training:
            rise, fall = (_slope(margin.detach(), self.gamma + growth) for margin in (logits, -logits))
            self.balance.add((factor * (shares[0] * rise - shares[1] * fall)).abs(), labels)
        terms = factor * (shares[0] * positive + shares[1] * negative)
        return over_classes(self.weigh(terms, target), target)


def _equalized(margin: Tensor, gamma: float, growth: Tensor) -> Tensor:
    """Return ``-(1 - p)^(gamma + growth) log p`` for ``p = sigmoid(margin)``; finite as ``focal_term`` is."""
    return (growth * logsigmoid(-margin)).exp() * focal_term(margin, gamma)


def _slope(margin: Tensor, gamma: Tensor) -> Tensor:
    """Return minus the derivative of ``-(1 - p)^gamma log p`` with respect to the margin, >= 0."""
    steepness = (-margin).sigmoid() - gamma * margin.sigmoid() * logsigmoid(margin)
    return (gamma * logsigmoid(-margin)).exp() * steepness
