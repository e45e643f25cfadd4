"""Open a trained run at one of its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightning_fabric import Fabric

from hoi_train.config import RunConfig
from hoi_train.engine.checkpoint import Checkpoint
from hoi_train.engine.run import chosen_checkpoint, read_run
from hoi_train.engine.train import launch


@dataclass(frozen=True)
class LoadedRun:
    """A run directory and the checkpoint to use.

    Args:
        folder: the run directory.
        config: of the run.
        chosen: the checkpoint.
        fabric: places inputs and carries the precision.
    """

    folder: Path
    config: RunConfig
    chosen: Checkpoint
    fabric: Fabric

    @classmethod
    def open(cls, folder: Path, which: str) -> LoadedRun:
        """Find the ``best`` or ``last`` checkpoint of a run and start Fabric.

        Raises:
            ConfigError: no run directory, or one whose configuration is damaged.
            CheckpointError: it has no valid checkpoint.
        """
        config = read_run(folder).model_copy(update={"runs": folder.parent})
        return cls(folder, config, chosen_checkpoint(folder, config, which), launch(config.training))
