"""Class-wise difficulty-balanced loss: the worse a class is recognised, the more it counts."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from hoi_train.losses.cross_entropy import CrossEntropy, Reduction
from hoi_train.losses.weights import difficulty_weights
from hoi_train.records import ClassCounts, TaskStats

TauFormula = Literal["paper", "released_cifar", "released_imagenet"]


class CDBCrossEntropy(CrossEntropy):
    r"""Weigh softmax cross-entropy by class difficulty, measured anew by each validation.

    With ``A_c`` the recall of class c on the validation split: ``d_c = 1 - A_c``, ``w_c = d_c^tau``, scaled to sum to
    C, and ``loss_i = -w_{y_i} log softmax(z_i)[y_i]``. Before the first validation all weights are 1.
    Source: Sinha et al., ACCV 2020, section 3.

    With ``tau: dynamic`` each validation also sets tau, from the classes it has measured (``dynamic_tau``).

    Differences. The paper's text has no normalisation; all released codes have it. The CIFAR and EGTEA codes divide
    by N, the ImageNet-LT code by the sum of weights (``reduction: weighted_mean``). The released codes make the loss
    anew in every epoch and save only the network, so their resumed runs restart with equal weights; here recall,
    tau and weights are buffers. Cases the released codes answer with nan:

    - a class absent from the validation split keeps its last difficulty, 1 at first, and has no say in tau;
    - a validation split without any class changes nothing;
    - all classes perfect: all weights 1. A single perfect class has weight 0 until it fails again, as published.

    Not in the paper: ``momentum``. With few validation clips a class, recall jumps from epoch to epoch; a class at
    recall 1 gets weight 0, is forgotten within an epoch and comes back at full weight. With ``momentum`` m the recall
    used is ``m`` times the one used before (0 at first) plus ``1 - m`` times the one just measured.

    Args:
        class_counts: of the training split, single-label; only their number C is used.
        tau: exponent >= 0, or ``dynamic``. The paper tries 0.5, 1, 1.5, 2, 5 and 7; 0 is cross-entropy.
        tau_formula: how a dynamic tau is found; see ``dynamic_tau``.
        momentum: 0 <= m < 1; 0 is the paper, 0.8 averages over about five validations.
        reduction: as in ``CrossEntropy``.

    >>> CDBCrossEntropy(ClassCounts.single([6, 3]), tau=1.0).class_weights()
    tensor([1., 1.], dtype=torch.float64)
    """

    difficulty: Tensor
    tau: Tensor

    def __init__(
        self,
        class_counts: ClassCounts,
        *,
        tau: Annotated[float, Ge(0)] | Literal["dynamic"] = "dynamic",
        tau_formula: TauFormula = "paper",
        momentum: Annotated[float, Ge(0), Lt(1)] = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_counts, reduction=reduction)
        self.momentum = momentum
        self.fixed_tau = None if tau == "dynamic" else float(tau)
        self.tau_formula: TauFormula = tau_formula
        self.register_buffer("difficulty", torch.ones(self.num_classes))
        self.register_buffer("tau", torch.tensor(self._tau(torch.zeros(self.num_classes))))
        self.weights = torch.ones(self.num_classes)

    def after_validation(self, stats: TaskStats) -> None:
        """Learn difficulty, tau and weights from the recall of each class; the same on every rank and device."""
        recall = stats.vectors["recall"].cpu().double()
        measured = ~recall.isnan()
        if not measured.any():
            return
        before = self.difficulty.cpu().double()
        recall = recall + self.momentum * (1 - before - recall)
        difficulty = torch.where(measured, 1 - recall, before)
        tau = self._tau(recall[measured])
        self.difficulty.copy_(difficulty)
        self.tau.fill_(tau)
        assert self.weights is not None
        self.weights.copy_(difficulty_weights(difficulty, tau))

    def _tau(self, recall: Tensor) -> float:
        return dynamic_tau(recall, self.tau_formula) if self.fixed_tau is None else self.fixed_tau


def dynamic_tau(recall: Tensor, formula: TauFormula) -> float:
    """Return the exponent that fits the spread of recall over classes: even recall, small exponent.

    With ``sigmoid(x) = 1 / (1 + exp(-x))``, the largest recall ``A_max`` and the smallest ``A_min``:

    - ``paper``: ``2 sigmoid(A_max / (A_min + 0.0001) - 1)``, from about 1 (even) to 2.
    - ``released_cifar``: ``sigmoid(A_max / (A_min + 0.01))``, at most 1: what the CIFAR-LT and EGTEA codes run.
    - ``released_imagenet``: the paper's with 0.01, as in the ImageNet-LT code.

    Which of them made the published tables cannot be told from the released code.

    Args:
        recall: ``[K]`` in 0..1, without nan, K >= 1.
        formula: which of the three.

    >>> recall = torch.tensor([0.9, 0.5, 0.1])
    >>> [round(dynamic_tau(recall, formula), 3) for formula in ("paper", "released_cifar", "released_imagenet")]
    [1.999, 1.0, 1.998]
    """
    epsilon = 1e-4 if formula == "paper" else 1e-2
    spread = recall.max().item() / (recall.min().item() + epsilon)
    return 1 / (1 + math.exp(-spread)) if formula == "released_cifar" else 2 / (1 + math.exp(1 - spread))
