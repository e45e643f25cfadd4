"""Runs of a published table: each is an experiment on images, trained by the ordinary loop in a run directory."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import model_validator
from torch import nn

from hoi_train.config import Mixing, RunConfig, Sampling
from hoi_train.core.records import ClassCounts, Split, Task, UserError, nearest
from hoi_train.core.schema import Component, EntryOf, NameIn, Strict, build
from hoi_train.data.run_data import RunData
from hoi_train.engine.experiment import Experiment, compose
from hoi_train.engine.run import Run
from hoi_train.engine.tasks import make_groups
from hoi_train.engine.train import train
from hoi_train.methods import METHODS
from hoi_train.models.heads import HEADS
from hoi_train.models.preprocessing import Preprocessing
from hoi_train.models.recognizer import Recognizer
from scripts.reproduce.images import ImageLoader, Images
from scripts.reproduce.networks import NETWORKS
from scripts.reproduce.results import Cell, Result, cell

NORMALISATION = {
    row.name: row
    for row in (
        Preprocessing("mnist", 1 / 255, (0.1307,) * 3, (0.3081,) * 3, "RGB"),
        Preprocessing("cifar", 1 / 255, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), "RGB"),
        Preprocessing("imagenet", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "RGB"),
    )
}


class ImageData(Strict):
    """The images, as the script selects them, and whether training crops and mirrors them."""

    images: dict[str, str | int | float]
    crop_and_flip: bool = False
    sampling: Sampling = "instance"  # type: ignore[assignment]  # validated like a value in a file
    mixing: Mixing = "none"  # type: ignore[assignment]


class ImageModel(Strict):
    """The network and the input it expects."""

    backbone: Annotated[Component, EntryOf(NETWORKS)]
    preprocessing: Annotated[str, NameIn(NORMALISATION)]


class ImageConfig(RunConfig):
    """The configuration of a run on images; ``tested`` says which weights give the test result."""

    data: ImageData  # type: ignore[assignment]
    model: ImageModel  # type: ignore[assignment]
    tested: Literal["last", "best"]

    @model_validator(mode="after")
    def _fit_the_backbone(self) -> ImageConfig:
        """Leave the configuration as it is: the networks of the tables take the images of their data set."""
        return self


def image_config(raw: Mapping[str, Any]) -> ImageConfig:
    """Check plain values as a configuration file is checked; wandb is off."""
    return ImageConfig.model_validate_json(json.dumps({"wandb": {"mode": "disabled"}, **raw}))


class SparingRun(Run):
    """A run directory with little overhead for short runs.

    The log keeps one training step per epoch besides all evaluations. If the last weights are tested, the end of an
    epoch is saved only every ``checkpoints.every_minutes`` and at the end of the run; if the best are tested, always.
    """

    config: ImageConfig

    def __init__(self, config: RunConfig, *parts: Any) -> None:
        super().__init__(config, *parts)
        self._saved_at, self._logged_epoch = time.monotonic(), -1

    def record(self, record: Mapping[str, Any]) -> None:
        """Keep a record, unless it is a further training step of an epoch."""
        if record["event"] == "train":
            if record["epoch"] == self._logged_epoch:
                return
            self._logged_epoch = record["epoch"]
        super().record(record)

    def save(self, state: Mapping[str, Any], cursor: Mapping[str, int], metric: float) -> None:
        """Save a state if due; if the last weights are tested, states are not compared."""
        within_epoch, over = cursor["batch"] > 0, cursor["epoch"] == self.config.training.epochs
        waited = time.monotonic() - self._saved_at > 60 * self.config.checkpoints.every_minutes
        if self.config.tested == "best" or within_epoch or over or waited or self.stop_requested:
            super().save(state, cursor, metric if self.config.tested == "best" else math.nan)
            self._saved_at = time.monotonic()


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        name: of its runs; a script appends the column.
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
    """A planned run: its configuration, and a function that returns its images, called only if there is work to do."""

    config: ImageConfig
    make_splits: Callable[[], Mapping[Split, Images]]


def chosen_rows(table: Mapping[str, Row], wanted: Sequence[str] | None) -> dict[str, Row]:
    """Return the requested rows, or all whose method this version has; raises ``UserError`` for unknown rows."""
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


def selection(parser: argparse.ArgumentParser, arguments: argparse.Namespace, rows: Collection[str], *keys: str) -> str:
    """Return a suffix for the names of results of a part of the table, so that those of the whole table are kept.

    Args:
        parser: with the defaults, which select the whole table.
        arguments: the given ones.
        rows: of the whole table.
        keys: other arguments that choose columns or runs.
    """
    asked = {"rows": (arguments.rows or rows, rows)}
    asked |= {key: (getattr(arguments, key), parser.get_default(key)) for key in keys}
    words = [f"{key} {_words(given)}" for key, (given, whole) in asked.items() if _words(given) != _words(whole)]
    return "".join("_" + "".join(letter if letter.isalnum() else "_" for letter in word) for word in words)


def _words(value: Any) -> str:
    """Return a value, or the values of a list in order, as text."""
    several = isinstance(value, Collection) and not isinstance(value, str)
    return " ".join(sorted(set(map(str, value)))) if several else str(value)


@dataclass(frozen=True)
class Campaign:
    """A table with one training run per cell and seed: what to run, and how the results are written.

    Args:
        task: of all runs.
        rows: by heading.
        columns: the chosen ones of ``published_columns``.
        published_columns: the columns of ``Row.published``, in its order.
        seeds: one run per cell for each.
        make_config: the configuration of a row, column and seed.
        make_splits: the images of a column and seed.
        scalar: the test result of a cell.
        error: whether the table shows its complement to 1.
        title: of the table: measure, data and number of steps.
        axis: meaning of the columns.
        path: of the results, without a suffix.
    """

    task: Task
    rows: Mapping[str, Row]
    columns: Sequence[float]
    published_columns: Sequence[float]
    seeds: range
    make_config: Callable[[Row, Any, int], ImageConfig]
    make_splits: Callable[[Any, int], Mapping[Split, Images]]
    scalar: str
    error: bool
    title: str
    axis: str
    path: Path

    def plan(self) -> list[Planned]:
        """Return the runs, seeds outermost: a stopped campaign has fewer runs per cell, not fewer rows."""
        return [
            Planned(self.make_config(row, column, seed), partial(self.make_splits, column, seed))
            for seed in self.seeds
            for column in self.columns
            for row in self.rows.values()
        ]

    def table(self) -> Result:
        """Collect the results from the event logs of the runs that are finished."""
        cells = {heading: [self._cell(row, column) for column in self.columns] for heading, row in self.rows.items()}
        return Result(self.title, self.axis, [f"{column:g}" for column in self.columns], len(self.seeds), cells)

    def _cell(self, row: Row, column: float) -> Cell:
        folders = [self.make_config(row, column, seed).run_dir for seed in self.seeds]
        published = row.published[self.published_columns.index(column)]
        return cell(folders, self.scalar, published, error=self.error)


def run_campaign(make_campaign: Callable[[], Campaign], part: tuple[int, int]) -> int:
    """Train the missing runs of a part, write and print the table and return the exit code of the script."""
    try:
        campaign = make_campaign()
        code = train_all(campaign.plan(), campaign.task, part)
        if code:
            return code
        result = campaign.table()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result.write(campaign.path)
    print(result.markdown())
    return 0


def train_all(plan: Sequence[Planned], task: Task, part: tuple[int, int]) -> int:
    """Train every unfinished run of a part of the plan; return 0, or the exit code of a stopped run."""
    mine = plan[part[0] - 1 :: part[1]]
    for number, planned in enumerate(mine, start=1):
        began = time.monotonic()
        code = train_images(planned, task)
        if code:
            print(f"stopped in {planned.config.run_dir}, state saved; the same command goes on")
            return code
        print(f"{number}/{len(mine)}  {time.monotonic() - began:6.1f} s  {planned.config.run_dir}", flush=True)
    return 0


def train_images(planned: Planned, task: Task) -> int:
    """Train or resume a run to its end and test it; a finished one is left unchanged.

    Returns:
        0 when the run is at its end; 143 or 130 when SIGTERM or SIGINT stopped it with its state saved.
    """

    def assemble(config: ImageConfig, **_: int) -> Experiment:
        return assemble_images(config, task, planned.make_splits())

    return train(planned.config, assemble=assemble, make_run=SparingRun, quiet=True)


def assemble_images(config: ImageConfig, task: Task, splits: Mapping[Split, Images]) -> Experiment:
    """Build the parts of a run on images; raises ``ConfigError`` if loss or method do not fit."""
    name, batch_size = task.name, config.training.batch_size
    loader = partial(ImageLoader, task=name, crop_and_flip=config.data.crop_and_flip)

    def count(images: Images) -> ClassCounts:
        return ClassCounts.single(torch.bincount(images.labels, minlength=task.num_classes).tolist())

    def make_model() -> Recognizer:
        backbone = build(config.model.backbone, NETWORKS)
        head: nn.Module = build(config.tasks[name].head, HEADS, backbone.num_features, task.num_classes)
        return Recognizer(backbone, {name: head}, NORMALISATION[config.model.preprocessing])

    counts = {split: count(images) for split, images in splits.items()}
    data = RunData(
        tasks={name: task},
        counts={split: {name: of} for split, of in counts.items()},
        labels={split: {name: images.labels} for split, images in splits.items()},
        loaders={split: loader(images, batch_size) for split, images in splits.items()},
        groups={name: make_groups(config, task, counts)},
    )
    return compose(config, data, make_model)
