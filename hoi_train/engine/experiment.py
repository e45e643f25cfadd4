"""Everything a run is made of, built from its configuration and checked against its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn, optim

from hoi_train.config import ConfigError, RunConfig
from hoi_train.data.class_sampling import SAMPLING
from hoi_train.data.dataset import ClipDataset
from hoi_train.data.loader import ClipLoader
from hoi_train.data.manifest import Manifest, read_manifest
from hoi_train.data.mixing import MIXING, Mixing
from hoi_train.data.transforms import TRANSFORMS
from hoi_train.engine.optim import OPTIMIZERS, SCHEDULES, Schedule
from hoi_train.engine.randomness import seed_of
from hoi_train.engine.tasks import check_tasks, make_groups, make_loss
from hoi_train.losses.base import Loss
from hoi_train.losses.objective import Objective
from hoi_train.methods import METHODS
from hoi_train.methods.fit import Context, Fit
from hoi_train.metrics.groups import Groups
from hoi_train.models.backbones import BACKBONES
from hoi_train.models.heads import HEADS
from hoi_train.models.recognizer import Recognizer, build_recognizer
from hoi_train.models.weights import LoadReport, load_weights
from hoi_train.records import SPLITS, ClassCounts, Split, Task
from hoi_train.schema import build


@dataclass(frozen=True)
class Experiment:
    """The parts of a run, ready to be trained or evaluated."""

    config: RunConfig
    tasks: Mapping[str, Task]
    counts: Mapping[str, ClassCounts]
    groups: Mapping[str, Groups]
    loaders: Mapping[Split, ClipLoader]
    model: Recognizer
    objective: Objective
    method: Fit
    mixing: Mixing
    make_optimizer: Callable[[nn.Module], optim.Optimizer]
    schedule: Schedule
    monitor: str
    weights_report: LoadReport | None


def assemble(config: RunConfig, *, rank: int = 0, world_size: int = 1) -> Experiment:
    """Build the parts of a run.

    Raises:
        ConfigError: configuration and data do not fit.
        ManifestError: the manifest has bad rows.
        WeightsError: the starting weights cannot be loaded.
    """
    manifest = read_manifest(config.data.manifest, config.data.root)
    check_tasks(config, manifest)
    tasks = {name: manifest.tasks[name] for name in config.tasks}
    datasets = _datasets(config, manifest, tasks)
    parts = {"rank": rank, "world_size": world_size, "workers": config.data.workers}

    def make_loader(split: Split, rows: Tensor, batch_size: int) -> ClipLoader:
        return ClipLoader(datasets[split].select(rows), batch_size, **parts)

    def make_head(task: str, num_features: int) -> nn.Module:
        head: nn.Module = build(config.tasks[task].head, HEADS, num_features, tasks[task].num_classes)
        return head

    context = Context(
        tasks=tasks,
        counts={name: manifest.split("train").counts(name) for name in tasks},
        labels={split: {name: data.clips.labels(name) for name in tasks} for split, data in datasets.items()},
        epochs=config.training.epochs,
        batch_size=config.training.batch_size,
        seed=config.seed,
        world_size=world_size,
        sampling=build(config.data.sampling, SAMPLING),
        make_loader=make_loader,
        make_head=make_head,
    )
    with _refusals_of(config.method.name):
        method: Fit = build(config.method, METHODS, context)
    model, report = _model(config, tasks, method)
    objective = Objective(
        {name: make_loss(config, manifest, name) for name in tasks},
        {name: task.weight for name, task in config.tasks.items()},
    )
    first = next(iter(tasks.values()))
    experiment = Experiment(
        config=config,
        tasks=tasks,
        counts=context.counts,
        groups={name: make_groups(config, manifest, name) for name in tasks},
        loaders={split: ClipLoader(data, context.batch_size, **parts) for split, data in datasets.items()},
        model=model,
        objective=objective,
        method=method,
        mixing=build(config.data.mixing, MIXING),
        make_optimizer=partial(build, config.optimizer, OPTIMIZERS),
        schedule=build(config.schedule, SCHEDULES),
        monitor=config.checkpoints.monitor or f"{first.name}/{'recall_macro' if first.labels == 'single' else 'map'}",
        weights_report=report,
    )
    _check_validation(experiment)
    if len(method.stages()) > 1 and config.training.patience is not None:
        raise ConfigError(f"training.patience: would end the run before the later stages of {config.method.name}")
    return experiment


def _model(config: RunConfig, tasks: Mapping[str, Task], method: Fit) -> tuple[Recognizer, LoadReport | None]:
    torch.manual_seed(seed_of(config.seed, "initial weights"))
    heads = {name: partial(build, config.tasks[name].head, HEADS) for name in tasks}
    model = build_recognizer(build(config.model.backbone, BACKBONES), tasks, heads, config.model.preprocessing)
    with _refusals_of(config.method.name):
        method.adapt(model)
    report = load_weights(model, config.model.weights) if config.model.weights else None
    if config.training.channels_last:
        model = model.to(memory_format=torch.channels_last_3d)
    return model, report


@contextmanager
def _refusals_of(method: str) -> Iterator[None]:
    """Say as the user's fault what a method raises that does not fit the run."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"method.{method}: {error}") from None


def _datasets(config: RunConfig, manifest: Manifest, tasks: Mapping[str, Task]) -> dict[Split, ClipDataset]:
    """Return the clips of each split that has some."""
    data = config.data
    transforms = build(data.train, TRANSFORMS), build(data.evaluation, TRANSFORMS)
    views = {split: manifest.split(split) for split in SPLITS}
    return {
        split: ClipDataset(clips, tasks, transforms, num_frames=data.num_frames, seed=config.seed, reader=data.reader)
        for split, clips in views.items()
        if len(clips)
    }


def _check_validation(experiment: Experiment) -> None:
    """Refuse what needs validation results where there is no validation split."""
    if "val" in experiment.loaders:
        return
    learners = [
        f"tasks.{task}.loss: {experiment.config.loss_of(task).name} learns from validation results"
        for task in experiment.tasks
        if type(experiment.objective.loss(task)).after_validation is not Loss.after_validation
    ]
    if experiment.config.training.patience is not None:
        learners.append("training.patience: stopping early needs validation results")
    if learners:
        path = experiment.config.data.manifest
        raise ConfigError("\n".join(f"{line}, but {path} has no clips in the split 'val'" for line in learners))
