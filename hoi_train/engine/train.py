"""From a configuration to a finished run, and from a run to its results."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from hoi_train.config import ConfigError, RunConfig, Training
from hoi_train.engine import checkpoint
from hoi_train.engine.evaluation import Judged, evaluate
from hoi_train.engine.experiment import Experiment, assemble
from hoi_train.engine.loop import Loop, Stopped
from hoi_train.engine.run import (
    CHECKPOINTS,
    THRESHOLDS_FILE,
    Run,
    RunMaker,
    chosen_checkpoint,
    finished,
    has_recorded,
    open_run,
    read_run,
    read_thresholds,
    versions,
    write_thresholds,
)
from hoi_train.metrics.thresholds import fit_thresholds
from hoi_train.records import EpochStats, Split
from hoi_train.reports.tables import class_table, epoch_table


def launch(config: Training) -> Fabric:
    """Start Fabric on one device, or as one of the ranks that ``torchrun`` made."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    local, world = (int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    strategy = "ddp" if world > 1 else "auto"
    fabric = Fabric(devices=local, num_nodes=world // local, strategy=strategy, precision=config.precision)
    fabric.launch()
    return fabric


def train(
    config: RunConfig,
    *,
    assemble: Callable[..., Experiment] = assemble,
    make_run: RunMaker = Run,
    quiet: bool = False,
) -> int:
    """Train a run from wherever its directory stands, test its best checkpoint and return the exit code.

    Args:
        config: the run's configuration.
        assemble: from it, ``rank`` and ``world_size`` the parts of the run.
        make_run: what the open run directory is.
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
    with open_run(config, writer=fabric.global_rank == 0, make=make_run) as run:
        loop = Loop(experiment, fabric, run, console)
        _begin(loop, run, experiment, console)
        try:
            loop.fit()
        except Stopped:
            console.print(f"stopped at step {loop.cursor.step}, state saved; the same command goes on")
            return run.signals.exit_code
        _finish(loop, run, experiment, fabric, console)
    return 0


def evaluate_run(folder: Path, split: Split, which: str, console: Console, *, fit: bool = False) -> int:
    """Evaluate a checkpoint (``best`` or ``last``) of a run on a split, show and write ``evaluation_<split>.json``.

    With ``fit`` the thresholds of multi-label tasks are chosen on the validation split first and kept in the run, in
    ``thresholds.json``; a later evaluation of the same checkpoint uses them.
    """
    config = read_run(folder).model_copy(update={"runs": folder.parent})
    fabric = launch(config.training)
    experiment = assemble(config, rank=fabric.global_rank, world_size=fabric.world_size)
    if split not in experiment.loaders:
        raise ConfigError(f"{config.data.manifest} has no clips in the split {split!r}")
    chosen = chosen_checkpoint(folder, config, which)
    thresholds = _fit(experiment, fabric, chosen) if fit else read_thresholds(folder, chosen, experiment.tasks)
    judged = experiment.judged(split)
    judged |= {name: replace(judged[name], threshold=threshold) for name, threshold in thresholds.items()}
    stats = _evaluate_checkpoint(experiment, fabric, chosen, split, judged)
    if fabric.global_rank == 0:
        if fit:
            write_thresholds(folder, chosen, experiment.tasks, thresholds)
        if thresholds:
            console.print(f"thresholds: {folder / THRESHOLDS_FILE}, fitted on val", soft_wrap=True)
        result = {"checkpoint": chosen.path.name, **stats.to_json()}
        (folder / f"evaluation_{split}.json").write_text(json.dumps(result, indent=1))
        for task in stats.tasks.values():
            console.print(class_table(task))
        console.print(epoch_table(stats))
    return 0


def _begin(loop: Loop, run: Run, experiment: Experiment, console: Console) -> None:
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
        "run_id": run.wandb_id,
        "versions": versions(),
        "parameters": parameters,
        "class_counts": {task: list(counts.positives) for task, counts in experiment.counts.items()},
        "classes": {task: list(found.classes) for task, found in experiment.tasks.items()},
        "labels": {task: found.labels for task, found in experiment.tasks.items()},
        "of": {task: found.of for task, found in experiment.tasks.items()},
        "object_classes": list(experiment.object_classes or ()),
        "groups": {task: dict(groups) for task, groups in experiment.groups.items()},
    }
    run.record(start)
    sizes = ", ".join(f"{len(loader)} {split}" for split, loader in experiment.loaders.items())
    samples = f"{sizes} {'key frames' if any(task.of == 'pair' for task in experiment.tasks.values()) else 'clips'}"
    console.print(f"{run.folder}: {samples}, {parameters:,} parameters", soft_wrap=True)
    if experiment.weights_report is not None:
        console.print(str(experiment.weights_report), soft_wrap=True)


def _finish(loop: Loop, run: Run, experiment: Experiment, fabric: Fabric, console: Console) -> None:
    fabric.barrier()  # rank 0 may still be writing the last checkpoint
    best = chosen_checkpoint(run.folder, experiment.config, "best")
    stats = None
    if "test" in experiment.loaders:
        stats = _evaluate_checkpoint(experiment, fabric, best, "test", experiment.judged("test"))
        console.print(epoch_table(stats))
        run.record({"event": "evaluation", "step": loop.cursor.step, "checkpoint": best.path.name, **stats.to_json()})
    end = {"event": "end", "step": loop.cursor.step, "best_epoch": loop.best.epoch, "best": loop.best.value}
    run.record({**end, "monitor": experiment.monitor})
    if not math.isnan(loop.best.value):
        console.print(f"best {experiment.monitor} {loop.best.value:.4f} at epoch {loop.best.epoch + 1}; {run.folder}")


def _fit(experiment: Experiment, fabric: Fabric, chosen: checkpoint.Checkpoint) -> dict[str, Tensor]:
    """Return the best thresholds of the multi-label tasks on the validation split."""
    found: dict[str, Tensor] = {}

    def measure(name: str, logits: Tensor, target: Tensor) -> dict[str, float]:
        found[name] = fit_thresholds(logits, target)
        return {}

    tasks = {name: task for name, task in experiment.tasks.items() if task.labels == "multi"}
    if not tasks or "val" not in experiment.loaders:
        lacking = "no clips in the split 'val'" if tasks else "no multi-label task"
        raise ConfigError(f"--fit-thresholds: {experiment.config.data.manifest}: the run has {lacking}")
    judged = {name: replace(each, measure=partial(measure, name)) for name, each in experiment.judged("val").items()}
    _evaluate_checkpoint(experiment, fabric, chosen, "val", judged)
    return {name: found[name] for name in tasks}


def _evaluate_checkpoint(
    experiment: Experiment,
    fabric: Fabric,
    chosen: checkpoint.Checkpoint,
    split: Split,
    judged: Mapping[str, Judged],
) -> EpochStats:
    state = checkpoint.load(chosen, fabric.device)
    load_network(experiment.model, state)
    model = fabric.to_device(experiment.model)
    objective = experiment.objective.to(fabric.device)
    objective.load_state_dict(state["objective"])
    epoch, batches = int(chosen.cursor["epoch"]) - 1, experiment.loaders[split].evaluation()
    objective.schedule(epoch)
    return evaluate(fabric, model, objective, batches, judged, epoch, split)


def load_network(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Give a model the weights that results are reported of: the moving average's where there is one."""
    average = {key.removeprefix("module."): v for key, v in state["average"].items() if key.startswith("module.")}
    model.load_state_dict(average or state["model"])
