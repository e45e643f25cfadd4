"""Gradient harmonizing mechanism: weights by the inverse density of gradient norms."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from hoi_train.core.ranks import sum_over_ranks
from hoi_train.core.records import ClassCounts
from hoi_train.losses.base import Loss
from hoi_train.losses.sigmoid import multi_hot
from hoi_train.losses.weights import ClassWeighting

Formula = Literal["paper", "released"]
Bins = Annotated[int, Ge(1)]
Momentum = Annotated[float, Ge(0), Lt(1)]


class GradientDensity(nn.Module):
    r"""Count gradient norms in ``bins`` equal regions of 0..1 and weight each by the inverse density of its region.

    With R_j of all N norms of a batch, over all ranks, in region j of M, and the moving average
    ``S_j = momentum S_j + (1 - momentum) R_j``: ``weight = N / (S_j M)``. Uniform norms all have weight 1.
    Source: Li et al., AAAI 2019, unit region approximation and exponential moving average.

    The paper does not define the start; here ``S_j`` is divided by ``1 - momentum^t`` in step t, so that it is a mean
    of counts from the first step on. The official code (``mmdet/models/losses/ghm_loss.py``), ``formula: released``,
    does not: its first weights are ``1 / (1 - momentum)`` times too large. It also divides by the number of non-empty
    regions instead of M, and keeps the last S_j of a region that has become empty.

    Evaluation does not count: weights are those of the training so far (1 before it), with the mean number of norms
    per batch for N, and a region without samples has the weight of its first sample.

    Args:
        bins: M >= 1.
        momentum: 0 <= momentum < 1; 0 uses only the current batch.
        formula: ``paper`` or ``released``.

    >>> GradientDensity(bins=2, momentum=0.0)(torch.tensor([0.1, 0.2, 0.3, 0.9]))
    tensor([0.6667, 0.6667, 0.6667, 2.0000])
    """

    mean_counts: Tensor
    mass: Tensor

    def __init__(self, *, bins: Bins = 30, momentum: Momentum = 0.75, formula: Formula = "paper") -> None:
        super().__init__()
        self.bins = bins
        self.momentum = momentum
        self.formula = formula
        self.register_buffer("mean_counts", torch.zeros(bins))
        self.register_buffer("mass", torch.zeros(()))

    def forward(self, norms: Tensor) -> Tensor:
        """Return the weight of each norm, of the same shape, detached; nan norms are not counted."""
        norms = norms.detach().contiguous()
        # The official edges are rounded to float32; the last bin has no upper edge.
        edges = torch.arange(1, self.bins, device=norms.device).float() / self.bins
        index = torch.bucketize(norms, edges.to(norms.dtype), right=True)
        if not self.training:
            return self._weights(self._density()).to(norms.dtype)[index]
        counted = torch.where(norms.isnan(), self.bins, index).flatten()
        counts = torch.bincount(counted, minlength=self.bins + 1)[: self.bins]
        counts = sum_over_ranks(counts).to(self.mean_counts.dtype)
        self._learn(counts)
        return self._weights(counts).to(norms.dtype)[index]

    def _learn(self, counts: Tensor) -> None:
        moved = self.momentum * self.mean_counts + (1 - self.momentum) * counts
        keep = (counts == 0) & (self.formula == "released")
        self.mean_counts.copy_(torch.where(keep, self.mean_counts, moved))
        self.mass.copy_(self.momentum * self.mass + (1 - self.momentum))

    def _density(self) -> Tensor:
        """Return S_j, ``[bins]``."""
        if self.formula == "released":
            return self.mean_counts
        return self.mean_counts / self.mass.clamp(min=1 - self.momentum)  # the mass is 0 before the first step

    def _weights(self, counts: Tensor) -> Tensor:
        """Return the weight of each region, ``[bins]``, from R_j, in evaluation from its mean."""
        total = counts.sum()
        regions = (counts > 0).sum() if self.formula == "released" else self.bins
        # One sample makes S_j at least 1 - momentum; only empty regions are below.
        weights = total / (self._density().clamp(min=1 - self.momentum) * regions)
        return torch.where(total > 0, weights, 1.0)


class GHM(Loss):
    r"""Weight binary cross-entropy by gradient density, GHM-C: ``loss_i = mean_c beta_ic BCE(z_ic, t_ic)``.

    The gradient norm is ``g_ic = |sigmoid(z_ic) - t_ic|``, and ``beta_ic`` the inverse density of all N x C norms of
    the batch around it (``GradientDensity``), which down-weights the many easy negatives as well as outliers.
    Source: Li et al., AAAI 2019, GHM-C loss.

    Multi-label natively. Single-label tasks are trained as the paper's detection is, with sigmoid scores and one-hot
    labels; there is no softmax form. The mean is over classes in both, as in the official code. The official class has
    the defaults 10 bins and momentum 0; its configurations have the paper's 30 and 0.75. GHM-R, the paper's loss of
    box regression, is not included.

    Args:
        class_counts: of the training split; only C is used.
        bins: >= 1, number of regions of the gradient norm.
        momentum: 0 <= momentum < 1, of the moving average of the counts.
        formula: ``paper`` or ``released``, the official code's; see ``GradientDensity`` for the differences.
        weights: weights per class, by default of rows by their true class (single-label) or of columns
            (multi-label); 1 by default.

    >>> loss = GHM(ClassCounts.multi([6, 1], num_samples=9), bins=2, momentum=0.0)
    >>> loss(torch.tensor([[4.0, -4.0]]), torch.tensor([[1.0, 0.0]]))  # all norms in one of two regions: half of BCE
    tensor([0.0091])
    """

    labels = frozenset({"single", "multi"})

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        bins: Bins = 30,
        momentum: Momentum = 0.75,
        formula: Formula = "paper",
        weights: ClassWeighting | None = None,
    ) -> None:
        super().__init__(class_counts, weights)
        self.density = GradientDensity(bins=bins, momentum=momentum, formula=formula)

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean over classes of the weighted terms, ``[N]``; in training, count their gradients first."""
        labels = multi_hot(target, logits)
        norms = (logits.sigmoid() - labels).abs()
        terms = self.density(norms) * binary_cross_entropy_with_logits(logits, labels, reduction="none")
        return self.weigh(terms, target).mean(1)
