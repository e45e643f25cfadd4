"""Decoupled training: features with instance-balanced sampling, then the classifier with class-balanced sampling.

Source: Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020, and
``facebookresearch/classifier-balancing``. Its methods that set the classifier without training are in ``adjusted.py``.
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
    """Two stages, the second with its own trainable parameters and sampling rule.

    Args:
        context: the run.
        epochs: length of the second stage, at the end of the run.
        sampling: sampling rule of the second stage.
        task: task whose classes are balanced; by default that of ``data.sampling``, or else the run's first.
        frozen_statistics: whether the backbone's batch norms use their running statistics, unchanged, in the second
            stage.

    Raises:
        ValueError: no epoch remains for the first stage, or the task is unknown.
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
        """Return the first epoch of each stage."""
        return (0, self.second)

    def schedule(self, epoch: int, model: Recognizer) -> None:
        """Make only the parameters of the epoch's stage trainable."""
        stage = int(epoch >= self.second)
        trained = {id(parameter) for parameter in self.trained(stage, model)}
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) in trained)
        if stage == 1 and self.frozen_statistics:
            model.backbone.eval()

    def sampler(self, epoch: int) -> Tensor | None:
        """Draw by the run's rule in the first stage, by the second stage's own rule in the second."""
        if epoch < self.second:
            return self.draw(self.context.sampling, epoch, 0, self.second)
        return self.draw(self.sampling, epoch, self.second, self.context.epochs)

    @abstractmethod
    def trained(self, stage: int, model: Recognizer) -> Iterable[nn.Parameter]:
        """Return the trainable parameters of a stage."""


class CRT(TwoStages):
    """Classifier re-training (cRT): new random heads on the backbone of the first stage.

    Source: Kang et al., ICLR 2020, section 4: class-balanced sampling, 10 epochs. The learning rate restarts, with a
    schedule over the stage's length. In the released code the weights of the backbone are frozen, but its batch norms
    still normalise by the batch and update their statistics; this is the default here.

    Args:
        context: the run.
        epochs: length of the second stage, at the end of the run.
        sampling: sampling rule of the second stage.
        task: task whose classes are balanced; by default that of ``data.sampling``, or else the run's first.
        frozen_statistics: freeze the backbone's batch norms too.
    """

    def begin_stage(self, stage: int, model: Recognizer, features: Callable[[Split], Features]) -> None:
        """Initialise the heads anew."""
        width = model.num_features
        if stage == 1:
            for task, head in model.heads.items():
                head.load_state_dict(self.context.make_head(task, width).state_dict())

    def trained(self, stage: int, model: Recognizer) -> Iterable[nn.Parameter]:
        """Return all parameters, in the second stage those of the heads."""
        return model.heads.parameters() if stage == 1 else model.parameters()


class ScaledHead(nn.Module):
    """Scale the logits of a head per class: ``s_c (w_c . x + b_c)``, with initial ``s_c`` 1.

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
    """Learnable weight scaling (LWS): train one factor per class of a trained classifier, bias included.

    ``z_c = s_c (w_c . x + b_c)``; in the second stage only ``s`` trains. Source: Kang et al., ICLR 2020, section 4
    and the released ``models/TauNormClassifier.py``, whose configurations train 5 epochs; the default here is cRT's
    10. Weight decay acts on ``s``, there as here; ``optimizer.decay_all: false`` excludes it. Batch norms as in
    ``CRT``.

    Args:
        context: the run.
        epochs: length of the second stage, at the end of the run.
        sampling: sampling rule of the second stage.
        task: task whose classes are balanced; by default that of ``data.sampling``, or else the run's first.
        frozen_statistics: freeze the backbone's batch norms too.
    """

    keeps_logits = False

    def adapt(self, model: Recognizer) -> None:
        """Add scales to every head."""
        for name, task in self.context.data.tasks.items():
            model.heads[name] = ScaledHead(model.heads[name], task.num_classes)

    def trained(self, stage: int, model: Recognizer) -> Iterable[nn.Parameter]:
        """Return all parameters but the scales, in the second stage the scales only."""
        scales = {id(head.scale) for head in model.heads.values()}
        return [parameter for parameter in model.parameters() if (id(parameter) in scales) == (stage == 1)]
