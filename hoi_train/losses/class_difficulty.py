"""Class-wise difficulty-balanced losses: weights grow with a class's error on validation."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from hoi_train.core.records import ClassCounts, TaskStats
from hoi_train.losses.base import Loss
from hoi_train.losses.cross_entropy import CrossEntropy, Reduction
from hoi_train.losses.focal import Focal
from hoi_train.losses.weights import Epoch, Normalisation, difficulty_weights

Tau = Annotated[float, Ge(0)] | Literal["dynamic"]
TauFormula = Literal["paper", "released_cifar", "released_imagenet"]
Momentum = Annotated[float, Ge(0), Lt(1)]
NotNegative = Annotated[float, Ge(0)]


class DifficultyBalanced(Loss):
    r"""Set the class weights of a loss from each validation; the loss itself is the next base class.

    With ``A_c`` the score of class c on the validation split: ``d_c = 1 - A_c``, ``w_c = d_c^tau``, scaled to sum to
    C depending on ``normalise``. Before the first validation all weights are 1. With ``tau: dynamic`` each validation
    also sets tau from the measured classes (``dynamic_tau``). Score, tau and weights are buffers. Cases in which the
    released codes give nan:

    - a class absent from the validation split gets the mean difficulty of the others and does not affect tau;
    - a validation split without any class changes nothing;
    - if all classes are perfect, all weights are 1, or 0 if not scaled. A single perfect class has weight 0 until it
      fails again, as published.

    Two remedies for noisy scores, neither in the papers, both off at 0. ``smoothing`` s shrinks the score of a class
    with n validation clips towards the mean over the measured classes: ``(n A_c + s mean(A)) / (n + s)``.
    ``momentum`` m uses ``m`` times the previous score (0 at first) plus ``1 - m`` times the measured one.

    Args:
        class_counts: of the training split; only C is used.
        tau: exponent >= 0, or ``dynamic``.
        tau_formula: formula of a dynamic tau.
        momentum: 0 <= m < 1, of the scores over validations.
        smoothing: s >= 0, number of clips with the mean score added to each class.
        from_epoch: first epoch, from 0, with weights other than 1; earlier validations are used, too.
        normalise: ``sum_to_classes`` or ``none``.
        score: name of the score in the validation's per-class vectors.
    """

    difficulty: Tensor
    tau: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        tau: Tau,
        tau_formula: TauFormula,
        momentum: Momentum,
        smoothing: NotNegative,
        from_epoch: Epoch,
        normalise: Normalisation,
        score: Literal["recall", "ap"] = "recall",
    ) -> None:
        super().__init__(class_counts)
        self.score = score
        self.momentum = momentum
        self.smoothing = smoothing
        self.fixed_tau = None if tau == "dynamic" else float(tau)
        self.tau_formula: TauFormula = tau_formula
        self.from_epoch = from_epoch
        self.normalise: Normalisation = normalise
        self.deferred = from_epoch > 0
        self.register_buffer("difficulty", torch.ones(self.num_classes))
        self.register_buffer("tau", torch.tensor(self._tau(torch.zeros(self.num_classes))))
        self.weights = torch.ones(self.num_classes)

    def after_validation(self, stats: TaskStats) -> None:
        """Update difficulty, tau and weights from the per-class scores, identically on every rank and device."""
        score = stats.vectors[self.score].cpu().double().clamp(max=1)  # average precision may exceed 1 by rounding
        measured = ~score.isnan()
        if not measured.any():
            return
        support = stats.support.cpu().double()
        score = (support * score + self.smoothing * score[measured].mean()) / (support + self.smoothing)
        before = self.difficulty.cpu().double()
        score = score + self.momentum * (1 - before - score)
        difficulty = torch.where(measured, 1 - score, 1 - score[measured].mean())
        tau = self._tau(score[measured])
        self.difficulty.copy_(difficulty)
        self.tau.fill_(tau)
        assert self.weights is not None
        self.weights.copy_(difficulty_weights(difficulty, tau, self.normalise))

    def _tau(self, score: Tensor) -> float:
        return dynamic_tau(score, self.tau_formula) if self.fixed_tau is None else self.fixed_tau


class CDBCrossEntropy(DifficultyBalanced, CrossEntropy):
    r"""Weight softmax cross-entropy by class difficulty, measured by each validation.

    With ``A_c`` the recall of class c on the validation split: ``d_c = 1 - A_c``, ``w_c = d_c^tau``, scaled to sum to
    C, and ``loss_i = -w_{y_i} log softmax(z_i)[y_i]``. For corner cases see ``DifficultyBalanced``.
    Source: Sinha et al., ACCV 2020, section 3.

    Differences. The paper's text does not scale the weights (``normalise: none``); all released codes do, as does the
    default here: otherwise the effective learning rate depends on recall. The CIFAR and EGTEA codes divide by N, the
    ImageNet-LT code by the sum of weights (``reduction: weighted_mean``). The released codes create a new loss in every
    epoch and save only the network, so their resumed runs restart with equal weights; here recall, tau and weights are
    buffers. Not in the paper: ``momentum``, ``smoothing`` and ``from_epoch``. With few validation clips per class,
    recall fluctuates between epochs: a class at recall 1 gets weight 0, is forgotten within an epoch and returns at
    full weight.

    Args:
        class_counts: of the training split, single-label; only C is used.
        tau: exponent >= 0, or ``dynamic``. The paper tries 0.5, 1, 1.5, 2, 5 and 7; 0 is cross-entropy.
        tau_formula: formula of a dynamic tau, see ``dynamic_tau``; not used with a fixed tau.
        momentum: 0 <= m < 1; 0 is the paper, 0.8 averages over about five validations.
        smoothing: s >= 0, number of clips with mean recall added to each class; 0 is the paper. With it a perfect class
            keeps some weight as long as another is not perfect.
        from_epoch: first epoch, from 0, with weights other than 1.
        normalise: ``sum_to_classes`` as in all released codes, or ``none`` as in the paper's text: the loss then
            decreases with recall, to 0 if all classes are perfect.
        reduction: as in ``CrossEntropy``.

    >>> CDBCrossEntropy(ClassCounts.single([6, 3]), tau=1.0).class_weights()
    tensor([1., 1.], dtype=torch.float64)
    """

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        tau: Tau = "dynamic",
        tau_formula: TauFormula = "paper",
        momentum: Momentum = 0.0,
        smoothing: NotNegative = 0.0,
        from_epoch: Epoch = 0,
        normalise: Normalisation = "sum_to_classes",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(
            class_counts,
            tau=tau,
            tau_formula=tau_formula,
            momentum=momentum,
            smoothing=smoothing,
            from_epoch=from_epoch,
            normalise=normalise,
        )
        self.reduction = reduction


class CDBBCE(DifficultyBalanced, Focal):
    r"""Weight binary cross-entropy by class difficulty: CDB for multi-label tasks.

    ``loss_i = mean_c w_c BCE(z_ic, t_ic)`` with ``w_c = (1 - A_c)^tau``, scaled to sum to C, on positives and negatives
    of a class's column, as in multi-label class-balanced losses. ``A_c`` is the class's recall at the decision
    threshold, or its average precision. For corner cases see ``DifficultyBalanced``.
    Source: Sinha et al., ACCV 2020, section 3, for single labels; there is no official multi-label form.

    With ``gamma`` the terms are those of the focal loss, a counterpart of VidHOI's class-balanced focal loss that
    differs only in the weights (``gamma: 0.5``, as ``CBFocal``).

    Args:
        class_counts: of the training split, multi-label; only C is used.
        difficulty: ``recall``, the paper's, which can be 0 for a rare class that is ranked well, and is 1 for a class
            that is always predicted; or ``ap``, which needs no threshold.
        tau: exponent >= 0, or ``dynamic``; 0 is binary cross-entropy.
        tau_formula: formula of a dynamic tau, see ``dynamic_tau``; not used with a fixed tau.
        momentum: 0 <= m < 1; see ``CDBCrossEntropy``.
        smoothing: s >= 0, number of clips with the mean score added to each class.
        from_epoch: first epoch, from 0, with weights other than 1.
        normalise: ``sum_to_classes`` or ``none``; see ``CDBCrossEntropy``.
        gamma: >= 0, focusing exponent.

    >>> CDBBCE(ClassCounts.multi([6, 3], num_samples=9))(torch.zeros(1, 2), torch.zeros(1, 2))
    tensor([0.6931])
    """

    labels = frozenset({"multi"})

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        difficulty: Literal["recall", "ap"] = "recall",
        tau: Tau = "dynamic",
        tau_formula: TauFormula = "paper",
        momentum: Momentum = 0.0,
        smoothing: NotNegative = 0.0,
        from_epoch: Epoch = 0,
        normalise: Normalisation = "sum_to_classes",
        gamma: NotNegative = 0.0,
    ) -> None:
        super().__init__(
            class_counts,
            tau=tau,
            tau_formula=tau_formula,
            momentum=momentum,
            smoothing=smoothing,
            from_epoch=from_epoch,
            normalise=normalise,
            score=difficulty,
        )
        self.gamma = gamma


def dynamic_tau(score: Tensor, formula: TauFormula) -> float:
    """Return the exponent for the spread of scores over classes: the more even, the smaller.

    With ``sigmoid(x) = 1 / (1 + exp(-x))``, the largest score ``A_max`` and the smallest ``A_min``:

    - ``paper``: ``2 sigmoid(A_max / (A_min + 0.0001) - 1)``, from about 1 (even) to 2; 0.54 where all are 0.
    - ``released_cifar``: ``sigmoid(A_max / (A_min + 0.01))``, at most 1: what the CIFAR-LT and EGTEA codes run.
    - ``released_imagenet``: the paper's with 0.01, as in the ImageNet-LT code.

    The released code does not show which of them produced the published tables.

    Args:
        score: ``[K]`` in 0..1, without nan, K >= 1; recall in the paper.
        formula: one of the three.

    >>> recall = torch.tensor([0.9, 0.5, 0.1])
    >>> [round(dynamic_tau(recall, formula), 3) for formula in ("paper", "released_cifar", "released_imagenet")]
    [1.999, 1.0, 1.998]
    """
    epsilon = 1e-4 if formula == "paper" else 1e-2
    spread = score.max().item() / (score.min().item() + epsilon)
    return 1 / (1 + math.exp(-spread)) if formula == "released_cifar" else 2 / (1 + math.exp(1 - spread))
