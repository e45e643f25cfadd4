"""Class-wise difficulty-balanced losses: the worse a class is recognised, the more it counts."""

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
    r"""Learn the class weights of a loss from each validation; the loss itself is the next base class.

    With ``A_c`` the score of class c on the validation split: ``d_c = 1 - A_c``, ``w_c = d_c^tau``, scaled to sum to
    C if ``normalise`` says so. Before the first validation all weights are 1. With ``tau: dynamic`` each validation
    also sets tau, from the classes it has measured (``dynamic_tau``). Score, tau and weights are buffers. Cases the
    released codes answer with nan:

    - a class absent from the validation split has the mean difficulty of the others, and no say in tau;
    - a validation split without any class changes nothing;
    - all classes perfect: all weights 1, or 0 where they are not scaled. A single perfect class has weight 0 until it
      fails again, as published.

    Two remedies for scores of few clips, neither in the papers, both off at 0. ``smoothing`` s draws the score of a
    class with n validation clips to the mean over the measured classes: ``(n A_c + s mean(A)) / (n + s)``.
    ``momentum`` m takes ``m`` times the score used before (0 at first) plus ``1 - m`` times the one just measured.

    Args:
        class_counts: of the training split; only their number C is used.
        tau: exponent >= 0, or ``dynamic``.
        tau_formula: how a dynamic tau is found.
        momentum: 0 <= m < 1, of the scores over validations.
        smoothing: s >= 0, clips of mean score added to each class.
        from_epoch: before this epoch, from 0, all weights are 1, though every validation is learned from.
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
        """Learn difficulty, tau and weights from the score of each class; the same on every rank and device."""
        score = stats.vectors[self.score].cpu().double().clamp(max=1)  # an average precision is a sum, which rounds
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
    r"""Weigh softmax cross-entropy by class difficulty, measured anew by each validation.

    With ``A_c`` the recall of class c on the validation split: ``d_c = 1 - A_c``, ``w_c = d_c^tau``, scaled to sum to
    C, and ``loss_i = -w_{y_i} log softmax(z_i)[y_i]``. ``DifficultyBalanced`` says what happens in corner cases.
    Source: Sinha et al., ACCV 2020, section 3.

    Differences. The paper's text does not scale the weights (``normalise: none``); all released codes do, as is the
    default here: without it the learning rate would depend on recall. The CIFAR and EGTEA codes divide
    by N, the ImageNet-LT code by the sum of weights (``reduction: weighted_mean``). The released codes make the loss
    anew in every epoch and save only the network, so their resumed runs restart with equal weights; here recall,
    tau and weights are buffers. Not in the paper: ``momentum``, ``smoothing`` and ``from_epoch``. With few validation
    clips a class, recall jumps from epoch to epoch; a class at recall 1 gets weight 0, is forgotten within an epoch
    and comes back at full weight.

    Args:
        class_counts: of the training split, single-label; only their number C is used.
        tau: exponent >= 0, or ``dynamic``. The paper tries 0.5, 1, 1.5, 2, 5 and 7; 0 is cross-entropy.
        tau_formula: how a dynamic tau is found, see ``dynamic_tau``; a tau that is a number has no use for it.
        momentum: 0 <= m < 1; 0 is the paper, 0.8 averages over about five validations.
        smoothing: s >= 0 clips of mean recall added to each class; 0 is the paper. With it a perfect class keeps some
            weight as long as another is not.
        from_epoch: before this epoch, from 0, all weights are 1.
        normalise: ``sum_to_classes``, as all released codes do, or ``none``, as the paper's text has it: the loss
            then shrinks as recall rises, to nothing where all classes are perfect.
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
    r"""Weigh binary cross-entropy by class difficulty: CDB for tasks of several labels a sample.

    ``loss_i = mean_c w_c BCE(z_ic, t_ic)`` with ``w_c = (1 - A_c)^tau``, scaled to sum to C, on the positives and
    negatives of a class's column, as class-balanced losses do there. ``A_c`` is the class's recall at the decision
    threshold, or its average precision. ``DifficultyBalanced`` says what happens in corner cases.
    Source: Sinha et al., ACCV 2020, section 3, for one label a sample; there is no official form for several.

    With ``gamma`` the terms are those of the focal loss, so that VidHOI's class-balanced focal loss has a counterpart
    that differs in its weights alone (``gamma: 0.5``, as ``CBFocal``).

    Args:
        class_counts: of the training split, multi-label; only their number C is used.
        difficulty: ``recall``, the paper's, which is 0 for a rare class long before it is ranked badly and 1 for a
            class that is always predicted; or ``ap``, which needs no threshold.
        tau: exponent >= 0, or ``dynamic``; 0 is binary cross-entropy.
        tau_formula: how a dynamic tau is found, see ``dynamic_tau``; a tau that is a number has no use for it.
        momentum: 0 <= m < 1; see ``CDBCrossEntropy``.
        smoothing: s >= 0 clips of mean score added to each class.
        from_epoch: before this epoch, from 0, all weights are 1.
        normalise: ``sum_to_classes`` or ``none``; see ``CDBCrossEntropy``.
        gamma: >= 0; how fast easy samples fade.

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
    """Return the exponent that fits the spread of scores over classes: even scores, small exponent.

    With ``sigmoid(x) = 1 / (1 + exp(-x))``, the largest score ``A_max`` and the smallest ``A_min``:

    - ``paper``: ``2 sigmoid(A_max / (A_min + 0.0001) - 1)``, from about 1 (even) to 2; 0.54 where all are 0.
    - ``released_cifar``: ``sigmoid(A_max / (A_min + 0.01))``, at most 1: what the CIFAR-LT and EGTEA codes run.
    - ``released_imagenet``: the paper's with 0.01, as in the ImageNet-LT code.

    Which of them made the published tables cannot be told from the released code.

    Args:
        score: ``[K]`` in 0..1, without nan, K >= 1; recall in the paper.
        formula: which of the three.

    >>> recall = torch.tensor([0.9, 0.5, 0.1])
    >>> [round(dynamic_tau(recall, formula), 3) for formula in ("paper", "released_cifar", "released_imagenet")]
    [1.999, 1.0, 1.998]
    """
    epsilon = 1e-4 if formula == "paper" else 1e-2
    spread = score.max().item() / (score.min().item() + epsilon)
    return 1 / (1 + math.exp(-spread)) if formula == "released_cifar" else 2 / (1 + math.exp(1 - spread))
