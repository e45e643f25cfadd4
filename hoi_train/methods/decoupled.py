"""Decoupled training: features first, with clips as they come; then the classifier alone, with classes balanced.

Source: Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020, and
``facebookresearch/classifier-balancing``. The ways that set the classifier without training are in ``adjusted.py``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from hoi_train.core.records import Split, unknown_task
from hoi_train.data.class_sampling import SAMPLING, Instance
from hoi_train.methods.fit import Context, Features, Fit
from hoi_train.models.recognizer import Recognizer

Rule = Literal["class_balanced", "square_root", "instance"]


class TwoStages(Fit, ABC):
    """Train in two stages, the second with other parameters and with clips drawn by a rule of its own.

    Args:
        context: the run.
        epochs: length of the second stage, at the end of the run.
        sampling: how the second stage draws its clips.
        task: whose classes it balances; that of ``data.sampling`` or else the run's first if not given.
        frozen_statistics: whether the backbone's batch norms use, and leave, their running statistics in the second
            stage.

    Raises:
        ValueError: no epoch is left for the first stage, or there is no such task.
    """

    def __init__(
        self,
        context: Context,
        *,
        epochs: Annotated[int, Ge(1)] = 10,
        sampling: Rule = "class_balanced",
        task: str | None = None,
        frozen_statistics: bool = False,
    ) -> None:
        super().__init__(context)
        if epochs >= context.epochs:
            raise ValueError(
                f"epochs = {epochs} for the second stage leave none of training.epochs = {context.epochs} for the first"
            )
        if task is not None and task not in context.data.tasks:
            raise ValueError(unknown_task(task, context.data.tasks))
        self.second = context.epochs - epochs
        self.sampling = Instance() if sampling == "instance" else SAMPLING[sampling](task=task or context.sampling.task)
        self.frozen_statistics = frozen_statistics

    def stages(self) -> tuple[int, ...]:
        """Return the epochs that the two stages begin with."""
        return (0, self.second)

    def schedule(self, epoch: int, model: Recognizer) -> None:
        """Let the parameters of the epoch's stage train and no others."""
        stage = int(epoch >= self.second)
        trained = {id(parameter) for parameter in self.trained(stage, model)}
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in trained)
        if stage == 1 and self.frozen_statistics:
            model.backbone.eval()

    def sampler(self, epoch: int) -> Tensor | None:
        """Return what the run's rule draws in the first stage and the second stage's own rule in the second."""
        if epoch < self.second:
            return self.draw(self.context.sampling, epoch, 0, self.second)
        return self.draw(self.sampling, epoch, self.second, self.context.epochs)

    @abstractmethod
    def trained(self, stage: int, model: Recognizer) -> Iterable[nn.Parameter]:
        """Return the parameters that train in a stage."""


class CRT(TwoStages):
    """Re-train the classifier (cRT): heads anew from random values, the backbone as the first stage left it.

    Source: Kang et al., ICLR 2020, section 4: class-balanced sampling, 10 epochs. The learning rate begins again,
    with the schedule over the stage's own length. In the released code the weights of the backbone are frozen but
    its batch norms go on normalising by the batch and averaging their statistics; that is the default here.

    Args:
        context: the run.
        epochs: length of the second stage, at the end of the run.
        sampling: how the second stage draws its clips.
        task: whose classes it balances; that of ``data.sampling`` or else the run's first if not given.
        frozen_statistics: freeze the backbone's batch norms too.
    """

    def begin_stage(self, stage: int, model: Recognizer, features: Callable[[Split], Features]) -> None:
        """Give the heads new starting values."""
        width = model.num_features
        if stage == 1:
            for task, head in model.heads.items():
                head.load_state_dict(self.context.make_head(task, width).state_dict())

    def trained(self, stage: int, model: Recognizer) -> Iterable[nn.Parameter]:
        """Return all parameters, then those of the heads."""
        return model.heads.parameters() if stage == 1 else model.parameters()


class ScaledHead(nn.Module):
    """Scale the logits of a head by one number a class: ``s_c (w_c . x + b_c)``, ``s_c`` starting at 1.

    Args:
        head: maps ``[N, F]`` to ``[N, C]``.
        num_classes: classes C of the task.

    >>> torch.equal(ScaledHead(nn.Identity(), 3)(torch.eye(3)), torch.eye(3))
    True
    """

    def __init__(self, head: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.head = head
        self.scale = nn.Parameter(torch.ones(num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[N, C]`` of the features ``[N, F]``."""
        logits: Tensor = self.head(features) * self.scale
        return logits


class LWS(TwoStages):
    """Learn the weights' scale (LWS): of a trained classifier only one factor a class, bias included.

    ``z_c = s_c (w_c . x + b_c)``; in the second stage only ``s`` trains. Source: Kang et al., ICLR 2020, section 4
    and the released ``models/TauNormClassifier.py``, whose configurations train 5 epochs; the default here is cRT's
    10. Weight decay pulls ``s`` to 0, there as here: ``optimizer.decay_all: false`` spares it. Batch norms as in
    ``CRT``.

    Args:
        context: the run.
        epochs: length of the second stage, at the end of the run.
        sampling: how the second stage draws its clips.
        task: whose classes it balances; that of ``data.sampling`` or else the run's first if not given.
        frozen_statistics: freeze the backbone's batch norms too.
    """

    keeps_logits = False

    def adapt(self, model: Recognizer) -> None:
        """Give every head its scales."""
        for name, task in self.context.data.tasks.items():
            model.heads[name] = ScaledHead(model.heads[name], task.num_classes)

    def trained(self, stage: int, model: Recognizer) -> Iterable[nn.Parameter]:
        """Return all parameters but the scales, then the scales alone."""
        scales = {id(head.scale) for head in model.heads.values()}
        return [parameter for parameter in model.parameters() if (id(parameter) in scales) == (stage == 1)]
