"""Asymmetric loss: a focal loss that down-weights easy negatives more than easy positives."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from annotated_types import Ge, Lt
from torch import Tensor
from torch.nn.functional import logsigmoid

from hoi_train.core.ranks import num_ranks
from hoi_train.core.records import ClassCounts
from hoi_train.losses.base import Loss
from hoi_train.losses.weights import ClassWeighting


class ASL(Loss):
    r"""Asymmetric focal loss with separate exponents of positives and negatives and a margin of negatives.

    With ``p = sigmoid(z)`` and ``p_m = max(p - clip, 0)``:
    ``loss_i = sum_c w_c (t_ic (1 - p_ic)^gamma_pos (-log p_ic) + (1 - t_ic) p_m^gamma_neg (-log(1 - p_m)))``.
    Source: Ridnik et al., ICCV 2021, and the authors' ``src/loss_functions/losses.py``.

    **The reduction is a SUM over the batch, not a mean.** The authors' code sums over samples and classes and trains
    with Adam, which is invariant to a factor. Compared with a mean over N x C the gradient is N x C times larger: with
    SGD or gradient clipping, tune the learning rate again or use ``reduction: mean``. Several processes sum over their
    joint batch; with ``training.accumulate`` a step uses the mean of its batches' sums.

    Differences of the released code:

    - It takes logarithms of ``max(p, 1e-8)``: a positive with z < -18.4 has the constant loss 18.4 **and no
      gradient** (with ``clip: 0`` also a negative with z > 18.4). ``eps: 1e-8`` restores that; the default 0 is the
      paper's formula, with a gradient for every wrong positive.
    - Its ``AsymmetricLoss`` treats the focusing factors as constants in the gradient (``detach_modulator``), its
      ``AsymmetricLossOptimized`` does not, as in the formula; the values are the same.

    As the paper intends, a negative with ``p <= clip`` has loss 0 and no gradient. One with p near 1 has a loss of at
    most ``-log(clip)`` and almost no gradient, because such labels are probably wrong.

    Args:
        class_counts: of the training split, multi-label; only C is used.
        gamma_neg: >= 0, focusing exponent of negatives.
        gamma_pos: >= 0, focusing exponent of positives; 0 in the authors' training script, 1 in their class's defaults.
        clip: 0 <= clip < 1, probability up to which a negative is ignored.
        eps: 0 <= eps < 1, lower bound of the probabilities in logarithms; see above.
        detach_modulator: treat the focusing factors as constants in the gradient.
        weights: weights per class, by default of whole columns (``place``); 1 by default.
        reduction: ``sum`` over the batch or ``mean`` over samples, each of the sum over classes.

    >>> import torch
    >>> loss = ASL(ClassCounts.multi([6, 1], num_samples=9))
    >>> loss(torch.tensor([[0.0, -3.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    tensor([0.6931, 0.7177])
    """

    labels = frozenset({"multi"})

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        gamma_neg: Annotated[float, Ge(0)] = 4.0,
        gamma_pos: Annotated[float, Ge(0)] = 0.0,
        clip: Annotated[float, Ge(0), Lt(1)] = 0.05,
        eps: Annotated[float, Ge(0), Lt(1)] = 0.0,
        detach_modulator: bool = False,
        weights: ClassWeighting | None = None,
        reduction: Literal["sum", "mean"] = "sum",
    ) -> None:
        super().__init__(class_counts, weights)
        self.gamma_neg = gamma_neg
        self.gamma_pos = gamma_pos
        self.clip = clip
        self.lowest_log = math.log(eps) if eps > 0 else -math.inf
        self.detach_modulator = detach_modulator
        self.reduction = reduction

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum over classes of the weighted terms, ``[N]``."""
        positive = self._term(logsigmoid(logits), logsigmoid(-logits), self.gamma_pos)
        terms = target * positive + (1 - target) * self._negative(logits)
        return self.weigh(terms, target).sum(1)

    def reduce(self, losses: Tensor, target: Tensor) -> Tensor:
        """Return the sum over samples (the authors'), or their mean."""
        if self.reduction == "mean":
            return super().reduce(losses, target)
        return losses.sum() * (num_ranks() if self.training else 1)  # the ranks' mean is then the sum over all

    def _negative(self, logits: Tensor) -> Tensor:
        if self.clip == 0:
            return self._term(logsigmoid(-logits), logsigmoid(logits), self.gamma_neg)
        p = logits.sigmoid()
        ignored = p <= self.clip  # False for nan, which is kept
        # Ignored negatives get a dummy value: log(0) would make the gradient nan, also after masking.
        right = (logits.neg().sigmoid() + self.clip).clamp(max=1).masked_fill(ignored, 0.5)
        wrong = (p - self.clip).masked_fill(ignored, 0.5)
        return self._term(right.log(), wrong.log(), self.gamma_neg).masked_fill(ignored, 0.0)

    def _term(self, log_right: Tensor, log_wrong: Tensor, gamma: float) -> Tensor:
        """Return ``-(1 - q)^gamma log q`` from ``log q`` and ``log(1 - q)``."""
        modulator = (gamma * log_wrong).exp()
        return -(modulator.detach() if self.detach_modulator else modulator) * log_right.clamp(min=self.lowest_log)
