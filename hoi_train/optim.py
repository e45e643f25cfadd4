"""Optimizers, and learning-rate schedules that are pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol

from annotated_types import Ge, Gt, Le, Lt
from torch import nn, optim

HeadFactor = Annotated[float, Gt(0)]
LayerDecay = Annotated[float, Gt(0), Le(1)]

Layers = Sequence[Sequence[nn.Parameter]]
"""Parameters from stem to top: one sequence per group of layers, the last that of pooling and heads."""


def parameter_groups(
    layers: Layers, weight_decay: float, *, decay_all: bool, head_factor: float = 1.0, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Split the trainable parameters by whether weight decay applies to them, and by learning rate.

    Biases and the scales of normalisation layers (every parameter with fewer than two dimensions) are exempt from
    weight decay unless ``decay_all``, as in the published recipes of the 3D-ResNet papers. The learning rate of the
    last group of layers is multiplied by ``head_factor``, that of the k-th group before it by ``layer_decay ** k``
    (Clark et al., "ELECTRA", ICLR 2020, appendix A; Bao et al., "BEiT", ICLR 2022). A factor other than 1 is the
    entry ``lr_scale``, as in timm.

    >>> import torch
    >>> layers = [[nn.Parameter(torch.zeros(2, 2))] for _ in range(3)]
    >>> [group.get("lr_scale") for group in parameter_groups(layers, 0.1, decay_all=True, layer_decay=0.5)]
    [0.25, 0.5, None]
    """
    scales = [layer_decay**k for k in range(len(layers) - 1, 0, -1)] + [head_factor]
    found: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for scale, parameters in zip(scales, layers, strict=True):
        for parameter in parameters:
            if parameter.requires_grad:
                found.setdefault((not decay_all and parameter.ndim < 2, scale), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": 0.0 if exempt else weight_decay}
        | ({} if scale == 1 else {"lr_scale": scale})
        for (exempt, scale), parameters in sorted(found.items(), key=lambda item: item[0][0])
    ]


def sgd(
    layers: Layers,
    *,
    lr: Annotated[float, Gt(0)],
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9,
    nesterov: bool = False,
    weight_decay: Annotated[float, Ge(0)] = 5e-4,
    decay_all: bool = True,
    head_factor: HeadFactor = 1.0,
    layer_decay: LayerDecay = 1.0,
) -> optim.Optimizer:
    """Make stochastic gradient descent with momentum.

    Args:
        layers: the parameters.
        lr: learning rate, to which the schedule's factor and those below apply.
        momentum: factor of the running sum of gradients.
        nesterov: use Nesterov's momentum.
        weight_decay: factor of the decay.
        decay_all: decay biases and the scales of normalisation layers, too.
        head_factor: factor on the learning rate of pooling and heads.
        layer_decay: factor on the learning rate from each group of the backbone's layers to the one below it, beginning
            at the heads; 1 for one rate.
    """
    groups = parameter_groups(
        layers, weight_decay, decay_all=decay_all, head_factor=head_factor, layer_decay=layer_decay
    )
    return optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, fused=True)  # half the time on a CPU


def adamw(
    layers: Layers,
    *,
    lr: Annotated[float, Gt(0)],
    beta1: Annotated[float, Ge(0), Lt(1)] = 0.9,
    beta2: Annotated[float, Ge(0), Lt(1)] = 0.999,
    weight_decay: Annotated[float, Ge(0)] = 1e-2,
    decay_all: bool = False,
    head_factor: HeadFactor = 1.0,
    layer_decay: LayerDecay = 1.0,
) -> optim.Optimizer:
    """Make AdamW (Loshchilov and Hutter, 2019).

    Args:
        layers: the parameters.
        lr: learning rate, to which the schedule's factor and those below apply.
        beta1: decay of the running mean of gradients.
        beta2: decay of the running mean of their squares.
        weight_decay: factor of the decay.
        decay_all: decay biases and the scales of normalisation layers, too.
        head_factor: factor on the learning rate of pooling and heads.
        layer_decay: factor on the learning rate from each group of the backbone's layers to the one below it, beginning
            at the heads; 1 for one rate.
    """
    groups = parameter_groups(
        layers, weight_decay, decay_all=decay_all, head_factor=head_factor, layer_decay=layer_decay
    )
    return optim.AdamW(groups, lr=lr, betas=(beta1, beta2))


OPTIMIZERS: dict[str, Callable[..., optim.Optimizer]] = {"sgd": sgd, "adamw": adamw}


class Schedule(Protocol):
    """A learning-rate schedule."""

    def factor(self, epoch: float, epochs: int) -> float:
        """Return the factor on the learning rate at ``epoch``, fractional, from 0, of a stage of ``epochs`` epochs."""
        ...


def _warm_up(epoch: float, warmup_epochs: float) -> float:
    """Rise linearly from near 0; 1 once the warm-up is over."""
    return min(1.0, (epoch + 1e-3) / warmup_epochs) if epoch < warmup_epochs else 1.0


class MultiStep:
    """Multiply the learning rate by ``gamma`` at each milestone, after a linear warm-up.

    Args:
        milestones: epochs, counted from 0, that begin with a lower rate; ``(60,)``: 60 epochs at the full rate.
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
    """Set each group's learning rate to ``base * factor`` times its ``lr_scale``; return ``base * factor``."""
    for group in optimizer.param_groups:
        group["lr"] = base * factor * group.get("lr_scale", 1.0)
    return base * factor
