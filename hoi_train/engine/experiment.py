"""Build the parts of a run from its configuration and check them against its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn, optim

from hoi_train.config import RunConfig
from hoi_train.core.randomness import seed_of
from hoi_train.core.records import SPLITS, ClassList, Split, Task
from hoi_train.core.schema import build
from hoi_train.core.strict_yaml import ConfigError
from hoi_train.data.class_sampling import SAMPLING
from hoi_train.data.mixing import MIXING, Mixing
from hoi_train.data.run_data import RunData
from hoi_train.engine.evaluation import TaskEvaluation
from hoi_train.engine.read_data import read_data
from hoi_train.engine.tasks import make_loss
from hoi_train.losses.objective import Objective
from hoi_train.methods import METHODS
from hoi_train.methods.fit import Context, Fit
from hoi_train.metrics import default_monitor
from hoi_train.models.backbones import BACKBONES
from hoi_train.models.heads import HEADS
from hoi_train.models.pooling import POOLING
from hoi_train.models.recognizer import Recognizer, build_recognizer
from hoi_train.models.spec import BackboneSpec
from hoi_train.optim import OPTIMIZERS, SCHEDULES, Schedule


@dataclass(frozen=True)
class Experiment:
    """The parts of a run, ready to be trained or evaluated.

    Args:
        config: of the run.
        data: tasks, class counts, labels and loaders.
        model: with random weights, or those of a checkpoint once loaded.
        objective: the losses of all tasks.
        method: the hooks of the loop.
        mixing: mixes the clips of a training batch.
        make_optimizer: returns a new optimizer for what trains in a module.
        schedule: of the learning rate.
        monitor: name of the average that decides which checkpoint is the best.
        weights: file of pretrained weights that a new run begins with.
    """

    config: RunConfig
    data: RunData
    model: Recognizer
    objective: Objective
    method: Fit
    mixing: Mixing
    make_optimizer: Callable[[Recognizer], optim.Optimizer]
    schedule: Schedule
    monitor: str
    weights: Path | None = None

    def evaluations(self, split: Split) -> dict[str, TaskEvaluation]:
        """Return how each task is evaluated on a split."""

        def of(name: str, task: Task) -> TaskEvaluation:
            return TaskEvaluation(task, self.data.groups[name], self.data.truth(split, name))

        return {name: of(name, task) for name, task in self.data.tasks.items()}


def assemble(config: RunConfig, *, rank: int = 0, world_size: int = 1) -> Experiment:
    """Build the parts of a run from its manifest, the network with random weights.

    Raises:
        ConfigError: configuration and data do not fit.
        ManifestError: the manifest has bad rows.
    """
    data = read_data(config, rank=rank, world_size=world_size)

    def make_model() -> Recognizer:
        return _network(config, data.tasks, data.object_classes)

    experiment = compose(config, data, make_model, world_size=world_size)
    return replace(experiment, weights=config.model.weights)


def check(config: RunConfig) -> None:
    """Find what a new run would refuse, without memory for the network and without its weights; raise as it does."""
    weights = config.model.weights
    if weights is not None and not weights.is_file():
        published = _spec(config).weights
        hint = "" if published is None else f"; published weights of {config.model.backbone.name}: {published.source}"
        raise ConfigError(f"model.weights: {weights} is not there, or not a file{hint}")
    data = read_data(config)

    def make_model() -> Recognizer:
        with torch.device("meta"):
            return _network(config, data.tasks, data.object_classes)

    compose(config, data, make_model)


def rebuild(config: RunConfig, tasks: Mapping[str, Task], object_classes: ClassList | None) -> Recognizer:
    """Build the network of a trained run without its data; its weights are to be loaded.

    Args:
        config: the run's configuration.
        tasks: by name, what the network recognises, in the run's order.
        object_classes: classes of the objects of pairs, in the run's order.

    Raises:
        ConfigError: the parts do not fit one another.
    """
    model = _network(config, tasks, object_classes)
    if METHODS[config.method.name].adapt is not Fit.adapt:  # the others may need labels, which a run does not keep
        context = _context(config, RunData(tasks, counts={}, labels={split: {} for split in SPLITS}, loaders={}))
        with _refusals_of(f"method.{config.method.name}"):
            build(config.method, METHODS, context).adapt(model)
    return _laid_out(config, model)


def compose(
    config: RunConfig, data: RunData, make_model: Callable[[], Recognizer], *, world_size: int = 1
) -> Experiment:
    """Build the parts of a run from its data and a builder of its network.

    Raises:
        ConfigError: loss, method, groups and clips do not fit one another.
    """
    tasks = data.tasks
    context = _context(config, data, world_size)
    with _refusals_of(f"method.{config.method.name}"):
        method: Fit = build(config.method, METHODS, context)
    torch.manual_seed(seed_of(config.seed, "initial weights"))
    model = make_model()
    with _refusals_of(f"method.{config.method.name}"):
        method.adapt(model)
    for stage, epoch in enumerate(method.stages()):  # a rule that cannot draw is refused now
        with _refusals_of(f"method.{config.method.name}" if stage else "data.sampling"):
            method.sampler(epoch)
    with _refusals_of("tasks"):
        losses = {name: make_loss(config, name, data.counts["train"][name]) for name in tasks}
    first = next(iter(tasks.values()))
    experiment = Experiment(
        config=config,
        data=data,
        model=_laid_out(config, model),
        objective=Objective(losses, {name: task.weight for name, task in config.tasks.items()}),
        method=method,
        mixing=build(config.data.mixing, MIXING),
        make_optimizer=lambda model: build(config.optimizer, OPTIMIZERS, model.layers()),
        schedule=build(config.schedule, SCHEDULES),
        monitor=config.checkpoints.monitor or default_monitor(first),
    )
    _check_losses(experiment)
    _check_validation(experiment)
    _check_training(experiment)
    return experiment


def _spec(config: RunConfig) -> BackboneSpec:
    spec: BackboneSpec = build(config.model.backbone, BACKBONES)
    return spec


def _laid_out(config: RunConfig, model: Recognizer) -> Recognizer:
    """Apply memory format and dtype to a network."""
    if config.training.channels_last:
        model.to(memory_format=torch.channels_last_3d)
    return model.double() if config.training.precision == "64-true" else model


def _network(config: RunConfig, tasks: Mapping[str, Task], object_classes: ClassList | None) -> Recognizer:
    with _refusals_of("model.pooling"):
        return build_recognizer(
            _spec(config),
            tasks,
            {name: partial(_head, config, name) for name in tasks},
            config.model.preprocessing,
            partial(build, config.model.pooling, POOLING),
            len(object_classes or ()),
            config.model.freeze_through,
        )


def _head(config: RunConfig, task: str, num_features: int, num_classes: int) -> nn.Module:
    with _refusals_of(f"tasks.{task}.head"):
        head: nn.Module = build(config.tasks[task].head, HEADS, num_features, num_classes)
        return head


def _context(config: RunConfig, data: RunData, world_size: int = 1) -> Context:
    return Context(
        data=data,
        epochs=config.training.epochs,
        batch_size=config.training.batch_size,
        seed=config.seed,
        world_size=world_size,
        sampling=build(config.data.sampling, SAMPLING),
        make_head=lambda task, num_features: _head(config, task, num_features, data.tasks[task].num_classes),
    )


@contextmanager
def _refusals_of(part: str) -> Iterator[None]:
    """Re-raise a component's ValueError as ConfigError with its key."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{part}: {error}") from None


def _check_training(experiment: Experiment) -> None:
    """Refuse optimizer settings that torch refuses, and patience with a method of several stages."""
    config = experiment.config
    with _refusals_of("optimizer"):
        build(config.optimizer, OPTIMIZERS, [[nn.Parameter(torch.zeros(1))]])
    if len(experiment.method.stages()) > 1 and config.training.patience is not None:
        raise ConfigError(f"training.patience: would end the run before the later stages of {config.method.name}")


def _check_losses(experiment: Experiment) -> None:
    """Refuse heads and methods whose logits do not fit a loss, and class weights that would never be used."""
    config, problems = experiment.config, []
    patience = config.training.patience
    for task in experiment.data.tasks:
        loss = experiment.objective.loss(task)
        name, head = config.loss_of(task).name, config.tasks[task].head
        for key, wanted in loss.head.items():
            given = getattr(head, key, None)
            if given != wanted:
                where = "head" if key == "name" else f"head.{key}"
                problems.append(f"tasks.{task}.{where}: loss {name!r} needs {wanted!r}, got {given!r}")
                break
        if loss.head and not experiment.method.keeps_logits:
            problems.append(
                f"method: {config.method.name!r} changes the head's logits, and tasks.{task}.loss {name!r} is made for "
                f"those of the head {loss.head['name']!r} as they are; take another loss or method"
            )
        if loss.from_epoch and loss.from_epoch > (last := _last_trained(experiment)):
            problems.append(
                f"tasks.{task}.loss: weights from epoch {loss.from_epoch} on (counted from 0) would never be used: "
                f"the last epoch that trains is {last}"
            )
        elif patience is not None and patience < loss.from_epoch:
            problems.append(
                f"training.patience: {patience} epochs may end the run before epoch {loss.from_epoch}, with which the "
                f"weights of tasks.{task}.loss begin; give at least {loss.from_epoch}, or none"
            )
    if problems:
        raise ConfigError("\n".join(problems))


def _last_trained(experiment: Experiment) -> int:
    """Return the last epoch that trains, from 0; some methods only adjust the classifier in the run's last epoch."""
    last = experiment.config.training.epochs - 1
    drawn = experiment.method.sampler(last)
    return last if drawn is None or len(drawn) else last - 1


def _check_validation(experiment: Experiment) -> None:
    """Refuse losses and patience that need a validation split if there is none."""
    if "val" in experiment.data.loaders:
        return
    learners = [
        f"tasks.{task}.loss: {experiment.config.loss_of(task).name} learns from validation results"
        for task in experiment.data.tasks
        if experiment.objective.loss(task).learns_from_validation()
    ]
    if experiment.config.training.patience is not None:
        learners.append("training.patience: stopping early needs validation results")
    if learners:
        path = experiment.config.data.manifest
        raise ConfigError("\n".join(f"{line}, but {path} has no clips in the split 'val'" for line in learners))
