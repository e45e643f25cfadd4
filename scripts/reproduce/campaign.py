"""Runs of a published table: each is an experiment of the library on images, trained by its loop in a run directory."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from hoi_train.config import ConfigError, Mixing, RunConfig, Sampling
from hoi_train.data.class_sampling import SAMPLING
from hoi_train.data.mixing import MIXING
from hoi_train.engine import train as engine
from hoi_train.engine.experiment import Experiment
from hoi_train.engine.loop import Loop, Stopped
from hoi_train.engine.optim import OPTIMIZERS, SCHEDULES
from hoi_train.engine.randomness import seed_of
from hoi_train.engine.run import Run, has_recorded, open_run
from hoi_train.losses import LOSSES
from hoi_train.losses.objective import Objective
from hoi_train.methods import METHODS
from hoi_train.methods.fit import Context, Fit
from hoi_train.metrics.groups import GROUP_RULES
from hoi_train.models.heads import HEADS
from hoi_train.models.preprocessing import Preprocessing
from hoi_train.models.recognizer import Recognizer
from hoi_train.records import ClassCounts, Split, Task, UserError, nearest
from hoi_train.schema import Component, Strict, build, component
from scripts.reproduce.images import ImageLoader, Images
from scripts.reproduce.networks import NETWORKS

NORMALISATION = {
    row.name: row
    for row in (
        Preprocessing("mnist", 1 / 255, (0.1307,) * 3, (0.3081,) * 3, "RGB"),
        Preprocessing("cifar", 1 / 255, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), "RGB"),
        Preprocessing("imagenet", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "RGB"),
    )
}

if TYPE_CHECKING:
    Network = Component
    Normalisation = str
else:
    Network = component(NETWORKS)
    Normalisation = Literal[tuple(NORMALISATION)]


class ImageData(Strict):
    """Which images, in the words of the script that takes them, and whether training crops and mirrors them."""

    images: dict[str, str | int | float]
    crop_and_flip: bool = False
    sampling: Sampling = "instance"  # type: ignore[assignment]  # read as if written in a file
    mixing: Mixing = "none"  # type: ignore[assignment]


class ImageModel(Strict):
    """The network and the input it expects."""

    backbone: Network
    preprocessing: Normalisation


class ImageConfig(RunConfig):
    """Everything that decides a run on images; ``tested`` says whose weights give the test result."""

    data: ImageData  # type: ignore[assignment]
    model: ImageModel  # type: ignore[assignment]
    tested: Literal["last", "best"]


def image_config(raw: Mapping[str, Any]) -> ImageConfig:
    """Check plain values as a configuration file is checked; wandb is off."""
    return ImageConfig.model_validate_json(json.dumps({"wandb": {"mode": "disabled"}, **raw}))


class SparingRun(Run):
    """A run directory that costs a short run little.

    The log keeps one training step of each epoch beside all evaluations. Where the last weights are tested, an epoch's
    end is saved only every ``checkpoints.every_minutes``, and at the end of the run; where the best are, always.

    Args:
        opened: the run directory as the library opens it.
        tested: as in ``ImageConfig``.
        epochs: of the whole run.
    """

    def __init__(self, opened: Run, tested: Literal["last", "best"], epochs: int) -> None:
        super().__init__(opened.config, opened.signals, opened.trackers, opened.wandb_id)
        self.tested, self.epochs = tested, epochs
        self._saved_at, self._logged_epoch = time.monotonic(), -1

    def record(self, record: Mapping[str, Any]) -> None:
        """Keep a record, unless it is a training step of an epoch that has one."""
        if record["event"] == "train":
            if record["epoch"] == self._logged_epoch:
                return
            self._logged_epoch = record["epoch"]
        super().record(record)

    def save(self, state: Mapping[str, Any], cursor: Mapping[str, int], metric: float) -> None:
        """Save a state if it is due; where the last weights are tested, none is better than another."""
        within_epoch, over = cursor["batch"] > 0, cursor["epoch"] == self.epochs
        waited = time.monotonic() - self._saved_at > 60 * self.config.checkpoints.every_minutes
        if self.tested == "best" or within_epoch or over or waited or self.stop_requested:
            super().save(state, cursor, metric if self.tested == "best" else math.nan)
            self._saved_at = time.monotonic()


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        name: of its runs, to which a script adds the column.
        loss: as in a configuration.
        published: a number in percent for each column, ``None`` where the paper has none.
        method: as in a configuration.
        head: as in a configuration.
    """

    name: str
    loss: str | Mapping[str, Any]
    published: tuple[float | None, ...]
    method: str = "fit"
    head: str | Mapping[str, Any] = "linear"


@dataclass(frozen=True)
class Planned:
    """A run to make: its configuration, and what gives its images, called only if there is something to train."""

    config: ImageConfig
    make_splits: Callable[[], Mapping[Split, Images]]


def chosen_rows(table: Mapping[str, Row], wanted: Sequence[str] | None) -> dict[str, Row]:
    """Return the rows asked for, or all whose method this version has; raises ``UserError`` if that cannot be."""
    for heading in wanted or ():
        if heading not in table:
            known = list(table)
            raise UserError(f"--rows: no row {heading!r}; the table has {', '.join(known)}{nearest(heading, known)}")
    chosen = {heading: row for heading, row in table.items() if wanted is None or heading in wanted}
    missing = [heading for heading, row in chosen.items() if row.method not in METHODS]
    if missing and wanted is not None:
        raise UserError(f"--rows: {', '.join(missing)}: this version does not have the method")
    for heading in missing:
        print(f"{heading}: left out, this version does not have the method {chosen[heading].method!r}")
    return {heading: row for heading, row in chosen.items() if heading not in missing}


def part_of(text: str) -> tuple[int, int]:
    """Read ``2/3``, the second of three parts of a campaign."""
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"must be like 1/2 and 2/2, got {text!r}")
    return int(part), int(parts)


def train_all(plan: Sequence[Planned], task: Task, part: tuple[int, int]) -> int:
    """Train every run of a part of the plan that is not finished; return 0, or the code of one that was stopped."""
    mine = plan[part[0] - 1 :: part[1]]
    for number, planned in enumerate(mine, start=1):
        began = time.monotonic()
        code = train_images(planned, task)
        print(f"{number}/{len(mine)}  {time.monotonic() - began:6.1f} s  {planned.config.run_dir}", flush=True)
        if code:
            return code
    return 0


def train_images(planned: Planned, task: Task) -> int:
    """Train a run to its end from wherever its directory stands, and test it; a finished one is left as it is.

    Returns:
        0 when the run is at its end; 143 or 130 when SIGTERM or SIGINT stopped it with its state saved.
    """
    config, console = planned.config, Console(quiet=True)
    with open_run(config, writer=True) as opened:
        if has_recorded(opened.folder, "end"):
            return 0
        fabric: Fabric = engine.launch(config.training)
        run = SparingRun(opened, config.tested, config.training.epochs)
        experiment = assemble_images(config, task, planned.make_splits())
        loop = Loop(experiment, fabric, run, console)
        engine._begin(loop, run, experiment, console)
        try:
            loop.fit()
        except Stopped:
            return run.signals.exit_code
        engine._finish(loop, run, experiment, fabric, console)
    return 0


def assemble_images(config: ImageConfig, task: Task, splits: Mapping[Split, Images]) -> Experiment:
    """Build the parts of a run on images; raises ``ConfigError`` if loss or method do not fit."""
    try:
        return _assembled(config, task, splits)
    except ValueError as error:
        raise ConfigError(f"{config.run_dir.name}: {error}") from None


def _assembled(config: ImageConfig, task: Task, splits: Mapping[Split, Images]) -> Experiment:
    name, batch_size = task.name, config.training.batch_size
    present = torch.bincount(splits["train"].labels, minlength=task.num_classes)
    counts = ClassCounts.single(present.tolist())
    loader = partial(ImageLoader, task=name, crop_and_flip=config.data.crop_and_flip)

    def make_loader(split: Split, rows: Tensor, size: int) -> ImageLoader:
        return loader(splits[split].select(rows), size)

    def make_head(_: str, num_features: int) -> nn.Module:
        head: nn.Module = build(config.tasks[name].head, HEADS, num_features, task.num_classes)
        return head

    context = Context(
        tasks={name: task},
        counts={name: counts},
        labels={split: {name: images.labels} for split, images in splits.items()},
        epochs=config.training.epochs,
        batch_size=batch_size,
        seed=config.seed,
        world_size=1,
        sampling=build(config.data.sampling, SAMPLING),
        make_loader=make_loader,
        make_head=make_head,
    )
    method: Fit = build(config.method, METHODS, context)
    torch.manual_seed(seed_of(config.seed, "initial weights"))
    backbone = build(config.model.backbone, NETWORKS)
    head = make_head(name, backbone.num_features)
    model = Recognizer(backbone, {name: head}, NORMALISATION[config.model.preprocessing])
    method.adapt(model)
    return Experiment(
        config=config,
        tasks=context.tasks,
        counts=context.counts,
        groups={name: build(config.tasks[name].groups, GROUP_RULES)(counts, task.classes)},
        loaders={split: loader(images, batch_size) for split, images in splits.items()},
        model=model,
        objective=Objective({name: build(config.loss_of(name), LOSSES, counts)}),
        method=method,
        mixing=build(config.data.mixing, MIXING),
        make_optimizer=partial(build, config.optimizer, OPTIMIZERS),
        schedule=build(config.schedule, SCHEDULES),
        monitor=config.checkpoints.monitor or f"{name}/recall_macro",
        weights_report=None,
    )
