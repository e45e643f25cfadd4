"""The plain method, and what every method is told: fit the loss. Every other one overrides the hooks it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from hoi_train.core.batches import ClipBatch
from hoi_train.core.records import EpochStats, Split
from hoi_train.data.class_sampling import ClassBalanced
from hoi_train.data.run_data import RunData
from hoi_train.models.recognizer import Recognizer


class ObjectiveFunction(Protocol):
    """Give the scalar to minimise from a batch and its logits by task.

    With ``weights``, floating ``[N]``, it is the sum of the samples' losses times their weights, in place of the
    reductions of the losses.
    """

    def __call__(self, batch: ClipBatch, logits: Mapping[str, Tensor], weights: Tensor | None = None) -> Tensor:
        """Return the scalar."""
        ...


@dataclass(frozen=True)
class Context:
    """The run that a method works in.

    Args:
        data: tasks, class counts, labels and loaders.
        epochs: of the whole run.
        batch_size: clips a batch and rank.
        seed: of the run.
        world_size: number of ranks.
        sampling: the configured rule.
        make_head: from a task's name and a number of features, a new head as configured; its starting values are drawn
            from torch's global generator.
    """

    data: RunData
    epochs: int
    batch_size: int
    seed: int
    world_size: int
    sampling: ClassBalanced
    make_head: Callable[[str, int], nn.Module]


@dataclass(frozen=True)
class Features:
    """What the network makes of every clip of a split, seen as in evaluation, gathered from all ranks.

    Args:
        features: floating ``[N, F]``, pooled, in the order of the split.
        targets: for each task int64 ``[N]`` or floating ``[N, C]``.
    """

    features: Tensor
    targets: Mapping[str, Tensor]


@dataclass(frozen=True)
class Step:
    """One batch's place in the run, and what a method may need beyond the model.

    Args:
        objective: the scalar to minimise; a batch whose loss is not finite is found by it.
        losses: from a batch and its logits by task each sample's loss before any reduction, ``[N]``, summed over tasks;
            as evaluation sees it, no loss learns from it.
        network: the model without what ranks and compilation wrap around it.
        lr: learning rate of this step.
        place: puts a batch where the network is.
        autocast: the precision in which the loop's model, unlike ``network``, computes of itself.
        note: takes down which samples of a batch are sound, bool ``[N]``, to name the others if the step is refused.
    """

    objective: ObjectiveFunction
    losses: Callable[[ClipBatch, Mapping[str, Tensor]], Tensor]
    network: Recognizer
    lr: float
    place: Callable[[ClipBatch], ClipBatch]
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    note: Callable[[ClipBatch, Tensor], None] = lambda _batch, _sound: None


class Fit:
    """Minimise the objective over all parameters, in one stage, with the clips that the sampling rule draws.

    The hooks are called in this order::

        adapt(model)                                   once, when the model is built and before weights are loaded
        begin_stage(stage, model, features)            once a stage; recorded in the checkpoint's cursor
        describe()                                     then; recorded as the event ``stage``
        schedule(epoch, model)                         each epoch, after model.train(); idempotent (freezing)
        sampler(epoch)                                 each epoch; the clips to draw
        begin_epoch(epoch, batch, num_batches)         each epoch, and when a run is resumed within one
        training_loss(model, batch, step)              each batch
        after_validation(stats)                        each epoch

    A stage begins with a new optimizer over what ``schedule`` left trainable, a learning-rate schedule over its own
    epochs and a search for the best checkpoint of its own. All state that changes the next step must be in
    ``state_dict``.
    """

    keeps_logits: ClassVar[bool] = True  # whether the losses see, in all of training, what the configured heads give

    def __init__(self, context: Context) -> None:
        self.context = context

    def adapt(self, model: Recognizer) -> None:
        """Change the structure of the model, for example give its heads what a later stage needs."""

    def stages(self) -> tuple[int, ...]:
        """Return the epoch that each stage begins with; the first is 0."""
        return (0,)

    def begin_stage(self, stage: int, model: Recognizer, features: Callable[[Split], Features]) -> None:
        """Prepare the model for a stage, for example initialise a head anew from features. Called once a stage."""

    def describe(self) -> dict[str, Any]:
        """Return what the method has chosen for the stage just begun, as plain values for the run's record."""
        return {}

    def schedule(self, epoch: int, model: Recognizer) -> None:
        """Set what depends on the epoch, for example which parameters train. May be called again."""

    def sampler(self, epoch: int) -> Tensor | None:
        """Return int64 positions to draw, a function of the epoch alone.

        ``None`` draws each clip once; an empty tensor makes an epoch without training, only validated.
        """
        return self.draw(self.context.sampling, epoch, 0, self.context.epochs)

    def begin_epoch(self, epoch: int, batch: int, num_batches: int) -> None:
        """Prepare for the batches of an epoch from ``batch`` on."""

    def training_loss(self, model: nn.Module, batch: ClipBatch, step: Step) -> Tensor:
        """Return the scalar to minimise for a batch."""
        return step.objective(batch, model(**batch.inputs))

    def after_validation(self, stats: EpochStats) -> None:
        """Learn from the validation just made."""

    def state_dict(self) -> dict[str, Any]:
        """Return all state that changes the next step."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore ``state_dict``."""

    def draw(self, sampling: ClassBalanced, epoch: int, first: int, last: int) -> Tensor | None:
        """Return what a rule that is in force from epoch ``first`` until before ``last`` draws."""
        task = sampling.task or next(iter(self.context.data.tasks))
        return sampling.draw(self.context.data.labels["train"][task], epoch - first, last - first, self.context.seed)
