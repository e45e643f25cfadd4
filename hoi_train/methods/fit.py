"""The plain method, base class of all others, and the context and steps that methods receive."""

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
    """Compute the scalar to minimise from a batch and its logits by task.

    With ``weights``, floating ``[N]``, it is the weighted sum of the samples' losses instead of the losses' reductions.
    """

    def __call__(self, batch: ClipBatch, logits: Mapping[str, Tensor], weights: Tensor | None = None) -> Tensor:
        """Return the scalar."""
        ...


@dataclass(frozen=True)
class Context:
    """The run of a method.

    Args:
        data: tasks, class counts, labels and loaders.
        epochs: of the whole run.
        batch_size: clips per batch and rank.
        seed: of the run.
        world_size: number of ranks.
        sampling: the configured sampling rule.
        make_head: builds a configured head from a task's name and a number of features, initialised from torch's
            global generator.
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
    """Features of all clips of a split, computed as in evaluation and gathered from all ranks.

    Args:
        features: floating ``[N, F]``, pooled, in the order of the split.
        targets: by task int64 ``[N]`` or floating ``[N, C]``.
    """

    features: Tensor
    targets: Mapping[str, Tensor]


@dataclass(frozen=True)
class Step:
    """The parts of a training step that a method may use beyond the model.

    Args:
        objective: computes the scalar to minimise; detects losses that are not finite.
        losses: computes each sample's loss before any reduction, ``[N]``, summed over tasks, from a batch and its
            logits by task; in evaluation mode, without changing the state of losses.
        network: the model without the wrappers of ranks and compilation.
        lr: learning rate of this step.
        place: moves a batch to the network's device.
        autocast: context of the run's precision, which the loop's model applies itself, unlike ``network``.
        note: records which samples of a batch are finite, bool ``[N]``, so that an error can name the others.
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
        describe()                                     after that; recorded as the event ``stage``
        schedule(epoch, model)                         each epoch, after model.train(); idempotent (freezing)
        sampler(epoch)                                 each epoch; the clips to draw
        begin_epoch(epoch, batch, num_batches)         each epoch, and when a run is resumed within one
        training_loss(model, batch, step)              each batch
        after_validation(stats)                        each epoch

    A stage has a new optimizer of the parameters that ``schedule`` left trainable, a learning-rate schedule over its
    own epochs and its own best checkpoint. All state that changes the next step must be in ``state_dict``.
    """

    keeps_logits: ClassVar[bool] = True  # whether the losses always receive the logits of the configured heads

    def __init__(self, context: Context) -> None:
        self.context = context

    def adapt(self, model: Recognizer) -> None:
        """Change the structure of the model, for example for a later stage."""

    def stages(self) -> tuple[int, ...]:
        """Return the first epoch of each stage; the first is 0."""
        return (0,)

    def begin_stage(self, stage: int, model: Recognizer, features: Callable[[Split], Features]) -> None:
        """Prepare the model for a stage, for example initialise a head from features; called once per stage."""

    def describe(self) -> dict[str, Any]:
        """Return the method's choices for the stage that has begun, as plain values for the run's log."""
        return {}

    def schedule(self, epoch: int, model: Recognizer) -> None:
        """Set what depends on the epoch, for example trainable parameters; may be called repeatedly."""

    def sampler(self, epoch: int) -> Tensor | None:
        """Return the int64 positions to draw, a function of the epoch only.

        ``None`` draws each clip once; an empty tensor skips training in the epoch.
        """
        return self.draw(self.context.sampling, epoch, 0, self.context.epochs)

    def begin_epoch(self, epoch: int, batch: int, num_batches: int) -> None:
        """Prepare for the batches of an epoch from ``batch`` on."""

    def training_loss(self, model: nn.Module, batch: ClipBatch, step: Step) -> Tensor:
        """Return the scalar to minimise for a batch."""
        return step.objective(batch, model(**batch.inputs))

    def after_validation(self, stats: EpochStats) -> None:
        """Update the method from validation results."""

    def state_dict(self) -> dict[str, Any]:
        """Return all state that changes the next step."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore ``state_dict``."""

    def draw(self, sampling: ClassBalanced, epoch: int, first: int, last: int) -> Tensor | None:
        """Draw by a rule that applies from epoch ``first`` until before ``last``."""
        task = sampling.task or next(iter(self.context.data.tasks))
        return sampling.draw(self.context.data.labels["train"][task], epoch - first, last - first, self.context.seed)
