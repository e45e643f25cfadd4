"""Focal loss: down-weights samples that are classified well."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn.functional import logsigmoid

from hoi_train.core.records import ClassCounts
from hoi_train.losses.base import Loss
from hoi_train.losses.weights import ClassWeighting

UnitInterval = Annotated[float, Ge(0), Le(1)]


class Focal(Loss):
    r"""Down-weight cross-entropy where the true label has a high score: ``-(1 - p)^gamma log p``.

    - Single-label: ``p`` is the softmax score of the true class, ``loss_i = -w_{y_i} (1 - p_i)^gamma log p_i``.
    - Multi-label: ``p`` is the sigmoid score of the label that holds, ``p = sigmoid(z)`` for positives and
      ``1 - sigmoid(z)`` for negatives, and ``loss_i = -mean_c w_c a_ic (1 - p_ic)^gamma log p_ic`` with
      ``a = alpha_c`` for positives, ``1 - alpha_c`` for negatives. Labels between 0 and 1 mix the two.

    Source: Lin et al., ICCV 2017, equations 4 and 5. ``gamma = 0`` is (binary) cross-entropy. The paper sums over
    anchors and divides by the number of positives; here a sample's loss is the mean over classes, as in the VidHOI code
    (Ni et al., gaze transformer, mean over N x C).

    Differences of released codes: the CDB code detaches the modulator (``detach_modulator``), so that its gradient is
    ``(1 - p)^gamma`` times that of cross-entropy; LDAM's code puts the class weight into ``p``, a fault not offered
    here; VidHOI's and CB's compute the modulator with ``exp(-z)``, which overflows and makes the loss of hard
    positives 0 and their gradient nan (z < -88.7 in float32); powers of ``1 - p`` have a nan gradient at p = 1 for
    gamma < 1. See ``focal_term`` for the form used here.

    Args:
        class_counts: of the training split.
        gamma: >= 0, focusing exponent.
        alpha: share of the positives in 0..1, one number or one per class; multi-label only.
        weights: weights per class, by default of rows by their true class (single-label) or of columns
            (multi-label); 1 by default.
        detach_modulator: treat ``(1 - p)^gamma`` as a constant in the gradient.

    >>> loss = Focal(ClassCounts.single([6, 3]), gamma=2.0)
    >>> loss(torch.tensor([[0.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 0]))
    tensor([1.7329e-01, 1.8790e-12])
    """

    labels = frozenset({"single", "multi"})
    alpha: Tensor | None

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        gamma: Annotated[float, Ge(0)] = 2.0,
        alpha: UnitInterval | tuple[UnitInterval, ...] | None = None,
        weights: ClassWeighting | None = None,
        detach_modulator: bool = False,
    ) -> None:
        super().__init__(class_counts, weights)
        self.gamma = gamma
        self.detach_modulator = detach_modulator
        self.register_buffer("alpha", None if alpha is None else self._shares(alpha))

    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the focal loss of each row, ``[N]``."""
        if self.kind == "single":
            terms = focal_term(true_class_margin(logits, target), self.gamma, self.detach_modulator)
            return self.weigh(terms, target)
        shares = None if self.alpha is None else self.alpha.to(logits.dtype)
        terms = sigmoid_focal(logits, target, self.gamma, self.detach_modulator, shares)
        return self.weigh(terms, target).mean(1)

    def _shares(self, alpha: float | tuple[float, ...]) -> Tensor:
        """Return the factors of each class's positives and negatives, ``[2, C]``."""
        if self.kind == "single":
            raise ValueError("alpha weights positives against negatives, for multi-label tasks; use weights instead")
        share = torch.tensor(alpha, dtype=torch.float64)
        if share.ndim == 1 and len(share) != self.num_classes:
            raise ValueError(f"alpha: {len(share)} numbers for {self.num_classes} classes; give one, or one per class")
        share = share.expand(self.num_classes)
        return torch.stack([share, 1 - share]).float()


def focal_term(margin: Tensor, gamma: float, detach_modulator: bool = False) -> Tensor:
    """Return ``-(1 - p)^gamma log p`` for ``p = sigmoid(margin)``, of any shape.

    Both factors use log-sigmoids, so value and gradient are finite for every finite margin and gamma >= 0, and exact
    in both tails.
    """
    modulator = (gamma * logsigmoid(-margin)).exp()
    return -(modulator.detach() if detach_modulator else modulator) * logsigmoid(margin)


def sigmoid_focal(
    logits: Tensor, labels: Tensor, gamma: float, detach_modulator: bool = False, shares: Tensor | None = None
) -> Tensor:
    """Return the focal term per class, ``[N, C]``; labels between 0 and 1 mix the two terms.

    ``shares``, ``[2, C]``, are factors of positives and negatives.
    """
    positive = focal_term(logits, gamma, detach_modulator)
    negative = focal_term(-logits, gamma, detach_modulator)
    if shares is not None:
        positive, negative = positive * shares[0], negative * shares[1]
    return labels * positive + (1 - labels) * negative


def true_class_margin(logits: Tensor, target: Tensor) -> Tensor:
    """Return ``z_y - log sum_{c != y} exp(z_c)``, ``[N]``, whose sigmoid is the softmax score of the true class.

    1 - p computed from the softmax score itself would round to 0 for p near 1.

    >>> true_class_margin(torch.tensor([[2.0, 0.0]]), torch.tensor([0]))
    tensor([2.])
    """
    true = target[:, None]
    # The lowest finite number instead of -inf, so that the loss of a task with one class is 0, not nan.
    others = logits.scatter(1, true, torch.finfo(logits.dtype).min).logsumexp(1)
    return logits.gather(1, true)[:, 0] - others
