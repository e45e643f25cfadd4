"""Distribution-balanced loss: for co-occurring long-tailed labels and the dominance of negatives."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor

from hoi_train.core.records import ClassCounts
from hoi_train.losses.base import Loss
from hoi_train.losses.float32_pairs import as_float32_pair, from_float32_pair
from hoi_train.losses.focal import focal_term
from hoi_train.losses.logit_adjustment import logit_shift
from hoi_train.losses.weights import ClassWeighting


class DistributionBalanced(Loss):
    r"""Re-balance labels by co-occurrence and regularise negatives (DB-focal).

    ``loss_i = scale mean_c v_ic (t_ic F(u_ic) + (1 - t_ic) F(-lambda u_ic) / lambda)`` with ``lambda = neg_scale``,
    ``F(u) = -(1 - sigmoid(u))^gamma log sigmoid(u)`` and

    - ``v_ic = alpha + sigmoid(beta (r_ic - mu))``, ``r_ic = (1 / n_c) / sum_{j: t_ij = 1} (1 / n_j)``: the ratio of a
      row's sampling frequency by class c alone to that by all of its labels, under class-balanced sampling;
    - ``u_ic = z_ic + (kappa / lambda) log(n_c / (N - n_c))``: rare classes may have lower logits. With ``lambda > 1``
      the gradient of a negative below its threshold vanishes sooner.

    Source: Wu et al., ECCV 2020, and the authors' ``mllt/models/losses/resample_loss.py``, whose form this is, with
    the values of their COCO configuration. The paper's text neither divides kappa by lambda nor has a factor: with
    those values ``kappa: 0.1, scale: 1``. In a row without labels ``r`` is infinite and every ``v = 1 + alpha``, there
    and here. The authors' code changes the caller's logits in place and needs at least one sample per class; here a
    class without positives (or negatives) counts as having one.

    Variants: ``gamma: 0, scale: 1`` is DB without focal; ``kappa: 0, neg_scale: 1`` only re-balances;
    ``beta: 0, alpha: 0.5`` only regularises negatives. Its weighting by effective numbers is not an option here but
    focal loss with ``weights: {scheme: effective, beta: 0.9, place: row, normalise: none}``.

    Args:
        class_counts: of the training split, multi-label.
        alpha: >= 0, lowest weight.
        beta: >= 0, steepness of the weight.
        mu: midpoint of the weight; COCO 0.2, VOC 0.3.
        neg_scale: lambda > 0; COCO 2, VOC 5.
        kappa: >= 0, strength of the shift.
        gamma: >= 0, focusing exponent.
        scale: > 0, factor of the loss; 2 in the code with focal terms.
        weights: weights per class, on top of ``v``, for example deferred ones; 1 by default.

    >>> import torch
    >>> loss = DistributionBalanced(ClassCounts.multi([60, 20], num_samples=100))
    >>> loss.rebalance(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))
    tensor([[1.0997, 1.1000],
            [0.7225, 1.0959],
            [1.1000, 1.1000]])
    """

    labels = frozenset({"multi"})
    inverse_counts: Tensor
    shift: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        alpha: Annotated[float, Ge(0)] = 0.1,
        beta: Annotated[float, Ge(0)] = 10.0,
        mu: float = 0.2,
        neg_scale: Annotated[float, Gt(0)] = 2.0,
        kappa: Annotated[float, Ge(0)] = 0.05,
        gamma: Annotated[float, Ge(0)] = 2.0,
        scale: Annotated[float, Gt(0)] = 2.0,
        weights: ClassWeighting | None = None,
    ) -> None:
        super().__init__(class_counts, weights)
        self.alpha, self.beta, self.mu = alpha, beta, mu
        self.neg_scale, self.gamma, self.scale = neg_scale, gamma, scale
        self.register_buffer("inverse_counts", as_float32_pair(1 / class_counts.tensor().clamp(min=1)))
        self.register_buffer("shift", as_float32_pair(logit_shift(class_counts, kappa / neg_scale)))

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the mean over classes of the re-balanced terms, ``[N]``."""
        shifted = logits + from_float32_pair(self.shift, logits.dtype)
        positive = focal_term(shifted, self.gamma)
        negative = focal_term(-self.neg_scale * shifted, self.gamma) / self.neg_scale
        terms = target * positive + (1 - target) * negative
        return self.scale * self.weigh(self.rebalance(target) * terms, target).mean(1)

    def rebalance(self, target: Tensor) -> Tensor:
        """Return the weights ``v``, ``[N, C]``, of a floating target ``[N, C]``."""
        inverse = from_float32_pair(self.inverse_counts, target.dtype)
        drawn = (target * inverse).sum(1, keepdim=True)
        ratio = (inverse / drawn).clamp(max=1e12)  # infinite in a row without labels
        return self.alpha + (self.beta * (ratio - self.mu)).sigmoid()
