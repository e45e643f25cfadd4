"""Seesaw loss: reduces a frequent class's gradients on rarer classes, except on false positives."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from hoi_train.core.ranks import sum_over_ranks
from hoi_train.core.records import ClassCounts
from hoi_train.losses.cross_entropy import CrossEntropy
from hoi_train.losses.weights import ClassWeighting


class Seesaw(CrossEntropy):
    r"""Scale each wrong class in the softmax: ``loss_i = -log(exp(z_iy) / sum_c S_ic exp(z_ic))``.

    ``S_ic = M_ic K_ic``, 1 for the true class y. Mitigation: ``M_ic = min(1, n_c / n_y)^p`` with the number of samples
    of each class in the training so far, this batch included, over all ranks. Compensation:
    ``K_ic = max(1, s_ic / max(s_iy, eps))^q`` with the softmax scores s. Both are constants in the gradient.
    Source: Wang et al., CVPR 2021, and ``mmdet/models/losses/seesaw_loss.py``.

    Counts below 1 are 1, as there. Not included: the objectness branch and the paper's normalised linear layer.
    ``p = q = 0`` is cross-entropy. Evaluation does not count.

    Args:
        class_counts: of the training split, single-label; only C is used.
        p: >= 0, strength of the mitigation.
        q: >= 0, strength of the compensation.
        eps: 0 < eps <= 1, lower bound of the true class's score as a divisor.
        weights: weights of rows by their true class; 1 by default.

    >>> loss = Seesaw(ClassCounts.single([6, 3]), p=1.0)
    >>> loss(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1])).exp()  # 1 + 1/3 for the frequent class, 1 + 1 for the rare
    tensor([1.3333, 1.3333, 1.3333, 2.0000])
    """

    counts: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        p: Annotated[float, Ge(0)] = 0.8,
        q: Annotated[float, Ge(0)] = 2.0,
        eps: Annotated[float, Gt(0), Le(1)] = 0.01,
        weights: ClassWeighting | None = None,
    ) -> None:
        super().__init__(class_counts, weights=weights)
        self.p, self.q, self.eps = p, q, eps
        # Integers: float32 stops counting at 2^24.
        self.register_buffer("counts", torch.zeros(self.num_classes, dtype=torch.int64))

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each row, ``[N]``; in training, count the rows first."""
        if self.training:
            found = torch.zeros_like(self.counts).scatter_add(0, target, torch.ones_like(target))
            self.counts.add_(sum_over_ranks(found))
        return super().per_sample(logits + self._log_factors(logits.detach(), target), target)

    def _log_factors(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return ``log S``, ``[N, C]``; logarithms of scores do not underflow."""
        log_counts = self.counts.clamp(min=1).to(logits.dtype).log()
        mitigation = (log_counts - log_counts[target][:, None]).clamp(max=0)
        log_scores = logits.log_softmax(1)
        true = log_scores.gather(1, target[:, None]).clamp(min=math.log(self.eps))
        return self.p * mitigation + self.q * (log_scores - true).clamp(min=0)
