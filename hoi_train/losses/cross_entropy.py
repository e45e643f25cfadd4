"""Softmax cross-entropy, plain or with fixed class weights."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from hoi_train.core.records import ClassCounts
from hoi_train.losses.base import Loss
from hoi_train.losses.weights import ClassWeighting

Reduction = Literal["mean", "weighted_mean"]


class CrossEntropy(Loss):
    """Softmax cross-entropy: ``loss_i = -w_{y_i} log softmax(z_i)[y_i]``.

    ``weights: {scheme: inverse}`` is IFW-CE, ``{scheme: sqrt_inverse}`` its square root.

    Args:
        class_counts: of the training split, single-label.
        weights: weights per class; 1 by default.
        reduction: ``mean`` is ``sum_i loss_i / N``, as in CB (Cui et al., CVPR 2019) and the CIFAR and EGTEA codes of
            CDB (Sinha et al., ACCV 2020). ``weighted_mean`` is ``sum_i loss_i / sum_i w_{y_i}``, as in torch, LDAM-DRW
            and the ImageNet-LT code of CDB: the step does not grow with rare classes in the batch.

    >>> import torch
    >>> loss = CrossEntropy(ClassCounts.single([6, 3, 1]), weights=ClassWeighting("inverse"))
    >>> loss(torch.zeros(2, 3), torch.tensor([0, 2])) / torch.log(torch.tensor(3.0))
    tensor([0.3333, 2.0000])
    """

    labels = frozenset({"single"})

    def __init__(
        self, class_counts: ClassCounts, *, weights: ClassWeighting | None = None, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(class_counts, weights)
        self.reduction = reduction

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the weighted cross-entropy of each row, ``[N]``."""
        # Not torch's cross_entropy, which ignores the class id -100 and returns 0.
        losses = -logits.log_softmax(1).gather(1, target[:, None])[:, 0]
        return self.weigh(losses, target)

    def reduce(self, losses: Tensor, target: Tensor) -> Tensor:
        """Return the mean over samples, or over their weights."""
        if self.reduction == "mean" or self.weights is None or self.deferred:
            return super().reduce(losses, target)
        total = self.weights.to(losses.dtype)[target].sum()  # 0 is possible with CDB's weights
        return losses.sum() / self.shared_divisor(total)
