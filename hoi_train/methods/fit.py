"""The plain method: fit the loss. Every other method overrides the hooks it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from hoi_train.records import ClipBatch, EpochStats

ObjectiveFunction = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]


class Fit:
    """Minimise the objective over all parameters, in one stage, with every clip once an epoch.

    The loop calls the hooks in this order::

        stage(epoch) -> begin_stage(stage, model)      once a stage; recorded in the checkpoint's cursor
        schedule(epoch, model)                         each epoch; idempotent (freezing)
        sampler(epoch)                                 each epoch; the clips to draw
        training_loss(model, batch, objective)         each batch
        after_validation(stats)                        each epoch

    All state that changes the next step must be in ``state_dict``.
    """

    def stage(self, epoch: int) -> int:
        """Return the stage that an epoch (from 0) belongs to."""
        return 0

    def begin_stage(self, stage: int, model: nn.Module) -> None:
        """Prepare the model for a stage, for example re-initialise a head. Called once a stage."""

    def schedule(self, epoch: int, model: nn.Module) -> None:
        """Set what depends on the epoch, for example which parameters train. May be called again."""

    def sampler(self, epoch: int) -> Tensor | None:
        """Return int64 indices to draw, a function of the epoch alone; ``None`` draws each clip once."""
        return None

    def training_loss(self, model: nn.Module, batch: ClipBatch, objective: ObjectiveFunction) -> Tensor:
        """Return the scalar to minimise for a batch."""
        return objective(model(**batch.inputs), batch.targets)

    def after_validation(self, stats: EpochStats) -> None:
        """Learn from the validation just made."""

    def state_dict(self) -> dict[str, Any]:
        """Return all state that changes the next step."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore ``state_dict``."""
