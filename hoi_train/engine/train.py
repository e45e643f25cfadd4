"""Train a run from its configuration."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import nn

from hoi_train.config import RunConfig, Training
from hoi_train.data.dataset import ClipDataset
from hoi_train.engine import checkpoint
from hoi_train.engine.epoch_table import epoch_table
from hoi_train.engine.evaluation import evaluate
from hoi_train.engine.experiment import Experiment, assemble
from hoi_train.engine.loop import Loop, Stopped
from hoi_train.engine.memory import keep_freed_memory
from hoi_train.engine.run import (
    CHECKPOINTS,
    Run,
    RunMaker,
    check_same_data,
    chosen_checkpoint,
    finished,
    has_recorded,
    open_run,
    versions,
)
from hoi_train.models.weights import LoadReport, load_weights


def launch(config: Training) -> Fabric:
    """Start Fabric on one device, or as a rank of ``torchrun``."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    local, world = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    strategy = "ddp" if world > 1 else "auto"
    fabric = Fabric(devices=local, num_nodes=world // local, strategy=strategy, precision=config.precision)
    fabric.launch()
    if config.keep_memory and fabric.device.type == "cpu":
        keep_freed_memory()
    return fabric


def train(
    config: RunConfig,
    *,
    assemble: Callable[..., Experiment] = assemble,
    make_run: RunMaker = Run,
    quiet: bool = False,
) -> int:
    """Train a run from the state in its directory, test its best checkpoint and return the exit code.

    Args:
        config: the run's configuration.
        assemble: returns the parts of the run, given configuration, ``rank`` and ``world_size``.
        make_run: class of the open run directory.
        quiet: print nothing.

    Returns:
        0 when the run is at its end; 143 or 130 when SIGTERM or SIGINT stopped it with its state saved.
    """
    fabric = launch(config.training)
    console = Console(quiet=quiet or fabric.global_rank > 0)
    if finished(config):
        console.print(f"{config.run_dir} is finished; see: hoi-train compare {config.run_dir}", soft_wrap=True)
        return 0
    # Before the run directory: a configuration that is refused leaves nothing behind.
    experiment = assemble(config, rank=fabric.global_rank, world_size=fabric.world_size)
    check_same_data(config.run_dir, config, experiment.data.facts())
    report = None
    if experiment.weights is not None and checkpoint.latest(config.run_dir / CHECKPOINTS) is None:
        report = load_weights(experiment.model, experiment.weights)
    with open_run(config, writer=fabric.global_rank == 0, make=make_run) as run:
        loop = Loop(experiment, fabric, run, console)
        _begin(loop, run, experiment, console, report)
        try:
            loop.fit()
        except Stopped:
            console.print(f"stopped at step {loop.cursor.step}, state saved; the same command goes on")
            return run.signals.exit_code
        _finish(loop, run, experiment, fabric, console)
    return 0


def _begin(loop: Loop, run: Run, experiment: Experiment, console: Console, report: LoadReport | None) -> None:
    """Resume from the newest valid checkpoint, or record the start of a new run."""
    newest = checkpoint.latest(run.folder / CHECKPOINTS)
    if newest is not None:
        loop.restore(checkpoint.load(newest, loop.fabric.device), newest.cursor)
        console.print(f"resumed {run.folder} at epoch {loop.cursor.epoch + 1}, step {loop.cursor.step}")
        run.record({"event": "resume", "step": loop.cursor.step})
        return
    if has_recorded(run.folder, "start"):  # it was killed before its first checkpoint
        console.print(f"{run.folder} has no checkpoint yet: it begins again")
        run.record({"event": "resume", "step": 0})
        return
    parameters = sum(parameter.numel() for parameter in experiment.model.parameters())
    start = {
        "event": "start",
        "step": 0,
        "config": experiment.config.plain(),
        "versions": versions(),
        "readers": {
            split: loader.dataset.readers()
            for split, loader in experiment.data.loaders.items()
            if isinstance(loader.dataset, ClipDataset)
        },
        "parameters": parameters,
        **experiment.data.facts(),
    }
    run.record(start)
    sizes = ", ".join(f"{len(loader)} {split}" for split, loader in experiment.data.loaders.items())
    samples = f"{sizes} {'key frames' if experiment.data.of_pairs else 'clips'}"
    console.print(f"{run.folder}: {samples}, {parameters:,} parameters", soft_wrap=True)
    if experiment.data.left_out is not None:
        console.print(str(experiment.data.left_out), soft_wrap=True, markup=False, highlight=False)
    if report is not None:
        console.print(str(report), soft_wrap=True)


def _finish(loop: Loop, run: Run, experiment: Experiment, fabric: Fabric, console: Console) -> None:
    fabric.barrier()  # rank 0 may still be writing the last checkpoint
    best = chosen_checkpoint(run.folder, experiment.config, "best")
    if "test" in experiment.data.loaders:
        epoch, batches = load_checkpoint(experiment, fabric, best), experiment.data.loaders["test"].evaluation()
        tasks = experiment.evaluations("test")
        stats = evaluate(fabric, experiment.model, experiment.objective, batches, tasks, epoch, "test")
        console.print(epoch_table(stats))
        run.record({"event": "evaluation", "step": loop.cursor.step, "checkpoint": best.path.name, **stats.to_json()})
    end = {"event": "end", "step": loop.cursor.step, "best_epoch": loop.best.epoch, "best": loop.best.value}
    run.record({**end, "monitor": experiment.monitor})
    if not math.isnan(loop.best.value):
        console.print(f"best {experiment.monitor} {loop.best.value:.4f} at epoch {loop.best.epoch + 1}; {run.folder}")


def load_checkpoint(experiment: Experiment, fabric: Fabric, chosen: checkpoint.Checkpoint) -> int:
    """Load the network and the losses of a checkpoint onto the device; return its epoch, from 0."""
    state, comes_next = checkpoint.load(chosen, fabric.device), chosen.cursor
    epoch = int(comes_next["epoch"]) - (comes_next["batch"] == 0)  # if stopped within an epoch, that epoch
    load_network(experiment.model, state)
    fabric.to_device(experiment.model)
    objective = experiment.objective.to(fabric.device)
    objective.load_state_dict(state["objective"])
    objective.schedule(epoch)
    return epoch


def load_network(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Load the evaluated weights into a model: those of the moving average if there is one."""
    average = {key.removeprefix("module."): v for key, v in state["average"].items() if key.startswith("module.")}
    model.load_state_dict(average or state["model"])
