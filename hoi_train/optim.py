"""Optimizers, and learning-rate schedules that are pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol

from annotated_types import Ge, Gt, Le, Lt
from torch import nn, optim


def parameter_groups(model: nn.Module, weight_decay: float, *, decay_all: bool) -> list[dict[str, Any]]:
    """Split the trainable parameters by whether weight decay applies to them.

    Biases and the scales of normalisation layers (every parameter with fewer than two dimensions) are left out
    of the decay unless ``decay_all``, which is what the published recipes of the 3D-ResNet papers do.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [p for p in trainable if decay_all or p.ndim >= 2]
    exempt = [p for p in trainable if not decay_all and p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": exempt, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def sgd(
    model: nn.Module,
    *,
    lr: Annotated[float, Gt(0)],
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9,
    nesterov: bool = False,
    weight_decay: Annotated[float, Ge(0)] = 5e-4,
    decay_all: bool = True,
) -> optim.Optimizer:
    """Make stochastic gradient descent with momentum."""
    groups = parameter_groups(model, weight_decay, decay_all=decay_all)
    return optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)  # half the time on a CPU


def adamw(
    model: nn.Module,
    *,
    lr: Annotated[float, Gt(0)],
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9,
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999,
    weight_decay: Annotated[float, Ge(0)] = 1e-2,
    decay_all: bool = False,
) -> optim.Optimizer:
    """Make AdamW (Loshchilov and Hutter, 2019)."""
    return optim.AdamW(parameter_groups(model, weight_decay, decay_all=decay_all), lr=lr, betas=(beta1, beta2))


OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {"sgd": sgd, "adamw": adamw}


class Schedule(Protocol):
    """Give the factor of the base learning rate at a moment, in epochs (fractional) from the start."""

    def factor(self, epoch: float, epochs: int) -> float:
        """Return the factor at ``epoch`` of a run of ``epochs`` epochs."""
        ...


def _warm_up(epoch: float, warmup_epochs: float) -> float:
    """Rise linearly from near 0; 1 once the warm-up is over."""
    return min(1.0, (epoch + 1e-3) / warmup_epochs) if epoch < warmup_epochs else 1.0


class MultiStep:
    """Multiply the learning rate by ``gamma`` at each milestone, after a linear warm-up.

    Args:
        milestones: epochs (from 0) from which the lower rate holds; ``(60,)`` means 60 epochs at the full rate.
        gamma: factor at each milestone.
        warmup_epochs: length of the linear warm-up, in epochs.
    """

    def __init__(
        self,
        *,
        milestones: tuple[Annotated[float, Gt(0)], ...] = (),
        gamma: Annotated[float, Gt(0), Le(1)] = 0.1,
        warmup_epochs: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        self.milestones: Sequence[float] = milestones
        self.gamma = gamma
        self.warmup_epochs = warmup_epochs

    def factor(self, epoch: float, epochs: int) -> float:
        """Return ``gamma ** (milestones passed)`` times the warm-up."""
        passed = sum(epoch >= milestone for milestone in self.milestones)
        return float(self.gamma**passed) * _warm_up(epoch, self.warmup_epochs)


class Cosine:
    """Fall from 1 to ``final`` along half a cosine over the whole run (Loshchilov and Hutter, 2017), after a warm-up.

    Args:
        final: factor at the end of the run.
        warmup_epochs: length of the linear warm-up, in epochs.
    """

    def __init__(
        self,
        *,
        final: Annotated[float, Ge(0), Le(1)] = 0.0,
        warmup_epochs: Annotated[float, Ge(0)] = 0.0,
    ) -> None:
        self.final = final
        self.warmup_epochs = warmup_epochs

    def factor(self, epoch: float, epochs: int) -> float:
        """Return ``final + (1 - final) (1 + cos(pi * progress)) / 2`` times the warm-up."""
        progress = max(epoch - self.warmup_epochs, 0.0) / max(epochs - self.warmup_epochs, 1e-9)
        cosine = (1 + math.cos(math.pi * min(progress, 1.0))) / 2
        return (self.final + (1 - self.final) * cosine) * _warm_up(epoch, self.warmup_epochs)


SCHEDULES: dict[str, Callable[..., Schedule]] = {"multi_step": MultiStep, "cosine": Cosine}


def set_learning_rate(optimizer: optim.Optimizer, base: float, factor: float) -> float:
    """Set every group's learning rate to ``base * factor`` and return it."""
    for group in optimizer.param_groups:
        group["lr"] = base * factor
    return base * factor
