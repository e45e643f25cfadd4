"""Equalization loss v2: balances the accumulated gradients of each class's positives and negatives."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from hoi_train.core.ranks import sum_over_ranks
from hoi_train.core.records import ClassCounts
from hoi_train.losses.base import Loss
from hoi_train.losses.sigmoid import multi_hot, over_classes
from hoi_train.losses.weights import ClassWeighting


class GradientBalance(nn.Module):
    """Accumulate the gradients of each class's positives and negatives over training and ranks.

    Args:
        num_classes: C.

    >>> balance = GradientBalance(2)
    >>> balance.add(torch.tensor([[0.2, 0.5]]), torch.tensor([[1.0, 0.0]]))
    >>> balance.add(torch.tensor([[0.4, 0.5]]), torch.tensor([[0.0, 1.0]]))
    >>> balance.ratio()
    tensor([0.5000, 1.0000])
    """

    positive: Tensor
    negative: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("positive", torch.zeros(num_classes))
        self.register_buffer("negative", torch.zeros(num_classes))

    def ratio(self) -> Tensor:
        """Return the ratio of positive to negative sums, ``[C]``; infinity before the first gradient."""
        ratio = self.positive / (self.negative + 1e-10)
        return torch.where(self.positive + self.negative > 0, ratio, torch.inf)

    def add(self, gradients: Tensor, labels: Tensor) -> None:
        """Add a batch without values that are not finite, which would remain forever.

        Args:
            gradients: absolute values, ``[N, C]``.
            labels: ``[N, C]`` in 0..1.
        """
        gradients = torch.where(gradients.isfinite(), gradients.detach(), 0.0)
        sums = torch.stack([(gradients * labels).sum(0), (gradients * (1 - labels)).sum(0)])
        positive, negative = sum_over_ranks(sums.to(self.positive.dtype))
        self.positive.add_(positive)
        self.negative.add_(negative)


class EQLv2(Loss):
    r"""Up-weight positives and down-weight negatives of each class until their gradients are balanced.

    ``loss_i = sum_c (q_c t_ic + r_c (1 - t_ic)) BCE(z_ic, t_ic)`` with ``r_c = sigmoid(gamma (g_c - mu))`` and
    ``q_c = 1 + alpha (1 - r_c)``. ``g_c`` is the ratio of the weighted gradients ``|sigmoid(z) - t|`` of the class's
    positives to those of its negatives, summed over all ranks and all previous steps.
    Source: Tan et al., CVPR 2021, and the authors' ``mmdet/models/losses/eqlv2.py``.

    Before the first step all factors are 1, as there; here also those of any class without a gradient so far. The
    official detector has an additional column, objectness, with factor 1; here every column is a class. The sum over
    classes is the paper's; multi-label tasks use the mean, as all losses here. Evaluation does not accumulate.

    Args:
        class_counts: of the training split; only C is used.
        gamma: > 0, steepness of the negatives' weight.
        mu: >= 0, ratio at which negatives have weight 1/2.
        alpha: >= 0; positives have a weight of at most ``1 + alpha``.
        weights: weights per class, by default of rows by their true class (single-label) or of columns
            (multi-label); 1 by default.

    >>> loss = EQLv2(ClassCounts.single([6, 3]))
    >>> [round(loss(torch.zeros(1, 2), torch.tensor([0])).item(), 3) for _ in range(2)]
    [1.386, 0.693]
    """

    labels = frozenset({"single", "multi"})

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        gamma: Annotated[float, Gt(0)] = 12.0,
        mu: Annotated[float, Ge(0)] = 0.8,
        alpha: Annotated[float, Ge(0)] = 4.0,
        weights: ClassWeighting | None = None,
    ) -> None:
        super().__init__(class_counts, weights)
        self.gamma, self.mu, self.alpha = gamma, mu, alpha
        self.balance = GradientBalance(self.num_classes)

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum (single-label) or the mean (multi-label) over classes of the weighted terms, ``[N]``."""
        labels = multi_hot(target, logits)
        positive, negative = self.factors().to(logits.dtype)
        factors = labels * positive + (1 - labels) * negative
        terms = factors * binary_cross_entropy_with_logits(logits, labels, reduction="none")
        if self.training:
            self.balance.add(factors * (logits.sigmoid() - labels).abs(), labels)
        return over_classes(self.weigh(terms, target), target)

    def factors(self) -> Tensor:
        """Return ``[2, C]``: the factor of each class's positives and of its negatives."""
        negative = torch.sigmoid(self.gamma * (self.balance.ratio() - self.mu))
        return torch.stack([1 + self.alpha * (1 - negative), negative])
