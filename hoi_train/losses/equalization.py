"""Equalization losses: rare classes ignore the negative gradients of other classes' samples."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from hoi_train.core.ranks import of_first_rank, rand_over_ranks
from hoi_train.core.records import ClassCounts
from hoi_train.losses.base import Loss
from hoi_train.losses.cross_entropy import CrossEntropy
from hoi_train.losses.focal import UnitInterval
from hoi_train.losses.sigmoid import multi_hot, over_classes
from hoi_train.losses.weights import ClassWeighting

Draw = Literal["none", "batch", "element"]


class EQL(Loss):
    r"""Drop the negative terms of rare classes: ``loss_i = sum_c w_ic BCE(z_ic, t_ic)``.

    ``w_ic = 1 - E_i T_c (1 - t_ic)`` with ``T_c = 1`` for classes whose share of the training samples is below the
    threshold, else 0, and E_i as ``draw`` says. Positives and the negatives of frequent classes keep weight 1.
    Source: Tan et al., CVPR 2020, equalization loss.

    - ``draw: none``: E_i is 1 for rows with a class and 0 for rows without, the paper's background, which then are
      the only negatives of rare classes (``projects/EQL/eql/fast_rcnn.py``). The default of multi-label tasks.
    - ``draw: batch``: E_i is also 0 for a whole batch with probability ``1 - gamma``, as in the CDB code
      (``EGTEA/losses/eql_loss.py``). The default of single-label tasks: without background rows and without draws,
      rare classes would have no negatives, and their scores would only increase.
    - ``draw: element``: drawn independently per row and class, as in ``EQLSoftmax``.

    Evaluation uses the mean, gamma, instead of draws. The batch is that of all processes.
    The sum over classes is the paper's; multi-label tasks use the mean, as all losses here.

    Args:
        class_counts: of the training split.
        threshold: lambda in 0..1; a class with a smaller share of the training samples is rare. The CDB code has 0.03
            for 19 classes, the paper 0.00177 for 1230; it must be chosen per data set.
        gamma: probability in 0..1 that the negatives of rare classes are dropped; 0.95 in the CDB code. Not used
            with ``draw: none``.
        draw: ``none``, ``batch`` or ``element``; by default depends on the kind of labels.
        weights: weights per class, by default of rows by their true class (single-label) or of columns
            (multi-label); 1 by default.

    >>> loss = EQL(ClassCounts.multi([90, 1], num_samples=100))
    >>> loss(torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.0, 0.0]])) / torch.log(torch.tensor(2.0))
    tensor([0.5000, 1.0000])
    """

    labels = frozenset({"single", "multi"})
    rare: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        threshold: UnitInterval = 0.03,
        gamma: UnitInterval = 0.95,
        draw: Draw | None = None,
        weights: ClassWeighting | None = None,
    ) -> None:
        super().__init__(class_counts, weights)
        self.gamma = gamma
        self.draw: Draw = draw or ("none" if self.kind == "multi" else "batch")
        self.register_buffer("rare", _rare(class_counts, threshold))

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum (single-label) or the mean (multi-label) over classes of the terms kept, ``[N]``."""
        labels = multi_hot(target, logits)
        kept = 1 - self._excluded(labels) * self.rare * (1 - labels)
        terms = kept * binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return over_classes(self.weigh(terms, target), target)

    def _excluded(self, labels: Tensor) -> Tensor:
        """Return E, ``[N, 1]`` or ``[N, C]``."""
        foreground = (labels > 0).any(1, keepdim=True).to(labels.dtype)
        if self.draw == "none":
            return foreground
        if not self.training:
            return self.gamma * foreground
        if self.draw == "element":
            return foreground * (rand_over_ranks(labels) < self.gamma)
        return foreground * (of_first_rank(torch.rand(1, 1, dtype=labels.dtype, device=labels.device)) < self.gamma)


class EQLSoftmax(CrossEntropy):
    r"""Remove rare classes from the softmax of other classes' samples: ``loss_i = -log p_i``.

    ``p_i = exp(z_iy) / sum_c w_ic exp(z_ic)`` and ``w_ic = 1 - beta_ic T_c`` for ``c != y_i``, 1 for the true class,
    with ``T_c = 1`` for rare classes, else 0, and ``beta_ic`` 1 with probability gamma, else 0, drawn per row and
    class. Source: Tan et al., CVPR 2020, softmax equalization loss, and the authors' text in issue 9 of
    ``tztztztztz/eql.detectron2``, where rare means up to a number of samples instead of below a share.

    A removed class has the logit -inf in the softmax; the naive product inside the logarithm gives nan. Evaluation
    uses the mean ``w = 1 - gamma T`` instead of draws.

    Args:
        class_counts: of the training split, single-label.
        threshold: lambda in 0..1; a class with a smaller share of the training samples is rare. The paper has 0.005
            for CIFAR-100-LT; it must be chosen per data set.
        gamma: probability in 0..1 that a rare class is removed; the paper has 0.9.
        weights: weights of rows by their true class; 1 by default.

    >>> loss = EQLSoftmax(ClassCounts.single([600, 399, 1]), gamma=1.0)
    >>> loss(torch.zeros(2, 3), torch.tensor([0, 2])).exp()  # the rare class does not compete with the frequent ones
    tensor([2., 3.])
    """

    rare: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        threshold: UnitInterval = 0.005,
        gamma: UnitInterval = 0.9,
        weights: ClassWeighting | None = None,
    ) -> None:
        super().__init__(class_counts, weights=weights)
        self.gamma = gamma
        self.register_buffer("rare", _rare(class_counts, threshold))

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the cross-entropy of each row over the classes kept, ``[N]``."""
        rivals = self.rare * (1 - multi_hot(target, logits))
        left_out = rand_over_ranks(logits) < self.gamma if self.training else self.gamma
        return super().per_sample(logits + (1 - left_out * rivals).log(), target)


def _rare(class_counts: ClassCounts, threshold: float) -> Tensor:
    return class_counts.tensor() / max(class_counts.num_samples, 1) < threshold
