"""Logit adjustment: what the class frequencies alone would predict is added to the logits in training."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

from hoi_train.core.records import ClassCounts
from hoi_train.losses.base import Loss
from hoi_train.losses.float32_pairs import as_float32_pair, from_float32_pair
from hoi_train.losses.focal import true_class_margin
from hoi_train.losses.weights import ClassWeighting


class LogitAdjustment(Loss):
    r"""Compare ``z + a`` with the label, where ``a = logit_shift(class_counts, tau)`` is larger for frequent classes.

    - Single-label: ``loss_i = -w_{y_i} log softmax(z_i + a)[y_i]`` with ``a_c = log(pi_c^tau + 1e-12)``.
    - Multi-label: ``loss_i = mean_c w_c BCE(z_ic + a_c, t_ic)`` with ``a_c = tau log(pi_c / (1 - pi_c))``, so that
      ``z = 0`` stands for a class's own frequency. Not in the paper: its softmax form class by class.

    ``pi_c`` is the share of training samples with class c. The network learns what the frequencies do not tell; at
    test time its logits are used without ``a``.
    Source: Menon et al., ICLR 2021, equation 10 and ``logit_adjustment/utils.py`` of google-research, which adds
    1e-12 to ``pi^tau``, here too: beyond ``tau |log pi| = 27`` it stops the shift.

    A class without training samples is taken to have one (``log 0`` would take it out of the softmax for good).
    The same shift subtracted from the logits of a network that was trained without it is the post-hoc form.

    ``pi_c`` must be what training draws: with clips drawn by class (``data.sampling``, or the second stage of ``crt``,
    ``lws`` and ``oltr``, which have ``sampling: instance`` too) the frequencies would be taken off twice, and rare
    classes be predicted almost always. Likewise for ``balanced_softmax`` and ``vs``.

    Args:
        class_counts: of the training split.
        tau: >= 0; 1 is consistent for the error averaged over classes, 0 is (binary) cross-entropy.
        weights: weight of each class on top; all 1 if not given.

    >>> import torch
    >>> loss = LogitAdjustment(ClassCounts.single([90, 10]))
    >>> loss(torch.zeros(2, 2), torch.tensor([0, 1])).exp()
    tensor([ 1.1111, 10.0000])
    """

    labels = frozenset({"single", "multi"})
    shift: Tensor

    def __init__(
        self, class_counts: ClassCounts, *, tau: Annotated[float, Ge(0)] = 1.0, weights: ClassWeighting | None = None
    ) -> None:
        super().__init__(class_counts, weights)
        self.register_buffer("shift", as_float32_pair(logit_shift(class_counts, tau)))

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the (binary) cross-entropy of the shifted logits, ``[N]``."""
        shifted = logits + from_float32_pair(self.shift, logits.dtype)
        if self.kind == "single":
            return self.weigh(-logsigmoid(true_class_margin(shifted, target)), target)
        terms = binary_cross_entropy_with_logits(shifted, target, reduction="none")
        return self.weigh(terms, target).mean(1)


class BalancedSoftmax(LogitAdjustment):
    r"""Weigh each class's exponential by its count: ``loss_i = -log(n_y e^{z_y} / sum_c n_c e^{z_c})``.

    The softmax of the training distribution for a network whose own scores are meant for a balanced one; the same as
    ``LogitAdjustment`` with ``tau = 1``, found independently.
    Source: Ren et al., NeurIPS 2020, and the authors' ``BalancedSoftmaxLoss.py``, where a class without
    samples drops out of the softmax and costs infinitely much as a target; here it counts as one sample.

    Args:
        class_counts: of the training split, single-label.
        weights: weight of each class on top; all 1 if not given.

    >>> import torch
    >>> loss = BalancedSoftmax(ClassCounts.single([90, 10]))
    >>> loss(torch.zeros(1, 2), torch.tensor([1])).exp()
    tensor([10.])
    """

    labels = frozenset({"single"})

    def __init__(self, class_counts: ClassCounts, *, weights: ClassWeighting | None = None) -> None:
        super().__init__(class_counts, tau=1.0, weights=weights)


def logit_shift(class_counts: ClassCounts, tau: float) -> Tensor:
    """Return what class frequencies add to the logits, float64 ``[C]``; subtracted after training it is post-hoc.

    Single-label ``log(pi_c^tau + 1e-12)``, multi-label ``tau log(pi_c / (1 - pi_c))``; a class with no sample, or with
    all of them, is taken to have one (not).

    Args:
        class_counts: of the training split.
        tau: >= 0, the strength.

    >>> logit_shift(ClassCounts.single([90, 10]), tau=1.0).exp().round(decimals=6).tolist()
    [0.9, 0.1]
    >>> logit_shift(ClassCounts.multi([90, 10], num_samples=100), tau=1.0).exp().round(decimals=4).tolist()
    [9.0, 0.1111]
    """
    positives = class_counts.tensor().clamp(min=1)
    if class_counts.labels == "single":
        return ((positives / max(class_counts.num_samples, 1)) ** tau + 1e-12).log()
    negatives = (class_counts.num_samples - class_counts.tensor()).clamp(min=1)
    return tau * (positives / negatives).log()
