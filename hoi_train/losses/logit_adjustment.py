"""Logit adjustment: adds the log-frequencies of the classes to the logits in training."""

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
    r"""Cross-entropy of ``z + a``, where ``a = logit_shift(class_counts, tau)`` is larger for frequent classes.

    - Single-label: ``loss_i = -w_{y_i} log softmax(z_i + a)[y_i]`` with ``a_c = log(pi_c^tau + 1e-12)``.
    - Multi-label: ``loss_i = mean_c w_c BCE(z_ic + a_c, t_ic)`` with ``a_c = tau log(pi_c / (1 - pi_c))``, so that
      ``z = 0`` corresponds to a class's frequency. Not in the paper: its softmax form applied per class.

    ``pi_c`` is the share of training samples with class c. The network learns what the frequencies do not explain; at
    test time its logits are used without ``a``.
    Source: Menon et al., ICLR 2021, equation 10 and ``logit_adjustment/utils.py`` of google-research, which adds
    1e-12 to ``pi^tau``, as here; this limits the shift at ``tau |log pi| = 27``.

    A class without training samples counts as having one (``log 0`` would remove it from the softmax for good).
    The same shift subtracted from the logits of a network trained without it is the post-hoc form.

    ``pi_c`` must be the frequencies that training draws: with class-balanced draws (``data.sampling``, or the second
    stage of ``crt``, ``lws`` and ``oltr``, which also offer ``sampling: instance``) the frequencies would be corrected
    twice, and rare classes predicted almost always. The same holds for ``balanced_softmax`` and ``vs``.

    Args:
        class_counts: of the training split.
        tau: >= 0; 1 is consistent for the balanced error, 0 is (binary) cross-entropy.
        weights: additional weights per class; 1 by default.

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
    r"""Weight each class's exponential by its count: ``loss_i = -log(n_y e^{z_y} / sum_c n_c e^{z_c})``.

    The training distribution's softmax of a network whose scores are for a balanced distribution; equals
    ``LogitAdjustment`` with ``tau = 1``, found independently.
    Source: Ren et al., NeurIPS 2020, and the authors' ``BalancedSoftmaxLoss.py``, where a class without samples is
    missing in the softmax and has an infinite loss as a target; here it counts as one sample.

    Args:
        class_counts: of the training split, single-label.
        weights: additional weights per class; 1 by default.

    >>> import torch
    >>> loss = BalancedSoftmax(ClassCounts.single([90, 10]))
    >>> loss(torch.zeros(1, 2), torch.tensor([1])).exp()
    tensor([10.])
    """

    labels = frozenset({"single"})

    def __init__(self, class_counts: ClassCounts, *, weights: ClassWeighting | None = None) -> None:
        super().__init__(class_counts, tau=1.0, weights=weights)


def logit_shift(class_counts: ClassCounts, tau: float) -> Tensor:
    """Return the shift of the logits by class frequencies, float64 ``[C]``.

    Single-label ``log(pi_c^tau + 1e-12)``, multi-label ``tau log(pi_c / (1 - pi_c))``; a class without positives (or
    negatives) counts as having one.

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
