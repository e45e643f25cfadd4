"""The run configuration: YAML to a strict, typed, frozen record.

The sections that name a table's entry (loss, backbone, optimizer …) have schemas made from the constructors'
signatures; see ``schema.py``. A file may begin with ``extends: other.yaml`` and then states only what differs;
``null`` removes a key of the other file, and on the command line one that is set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Lt, MinLen
from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    model_validator,
)

from hoi_train.core.schema import Component, EntryOf, NameIn, Strict, as_tuples, build, explain
from hoi_train.core.strict_yaml import ConfigError, apply_override, read_layers
from hoi_train.data.class_sampling import SAMPLING
from hoi_train.data.mixing import MIXING
from hoi_train.data.readers import READERS
from hoi_train.data.sampling import PLANS
from hoi_train.data.transforms import TRANSFORMS
from hoi_train.data.views import Views
from hoi_train.losses import LOSSES
from hoi_train.methods import METHODS
from hoi_train.metrics import direction_of
from hoi_train.metrics.groups import GROUP_RULES
from hoi_train.models.backbones import BACKBONES
from hoi_train.models.heads import HEADS
from hoi_train.models.pooling import POOLING
from hoi_train.models.preprocessing import PREPROCESSING
from hoi_train.models.spec import BackboneSpec
from hoi_train.optim import OPTIMIZERS, SCHEDULES
from hoi_train.tracking.chosen import Trackers, trackers_by_name


def _folder_name(name: str) -> str:
    if not name or name != Path(name).name or name.startswith("."):
        raise ValueError("must be usable as the name of a folder")
    return name


def _default(value: Any) -> Any:
    """Return a default in YAML form, validated like user input."""
    return Field(default=value)


def _of_the_backbone() -> Any:
    """Return a default that ``RunConfig`` takes from the backbone's specification."""

    def without_default(schema: dict[str, Any]) -> None:
        del schema["default"]

    return Field(default=None, validate_default=False, json_schema_extra=without_default)


Backbone = Annotated[Component, EntryOf(BACKBONES)]
FramePlan = Annotated[Component, EntryOf(PLANS)]
GroupRule = Annotated[Component, EntryOf(GROUP_RULES)]
Head = Annotated[Component, EntryOf(HEADS)]
LossChoice = Annotated[Component, EntryOf(LOSSES)]
MethodChoice = Annotated[Component, EntryOf(METHODS)]
Mixing = Annotated[Component, EntryOf(MIXING)]
Optimizer = Annotated[Component, EntryOf(OPTIMIZERS)]
Pooling = Annotated[Component, EntryOf(POOLING)]
Sampling = Annotated[Component, EntryOf(SAMPLING)]
ScheduleChoice = Annotated[Component, EntryOf(SCHEDULES)]
Transform = Annotated[Component, EntryOf(TRANSFORMS)]


class Data(Strict):
    """Where the clips come from and how they become batches.

    Args:
        manifest: Parquet, csv or jsonl file of the clips.
        root: folder that the manifest's paths are relative to; by default the one that ``dataset.json`` names.
        reader: how videos are read; ``auto`` chooses by the kind of file.
        num_frames: frames of a clip that the network sees; by default the backbone's, as the sizes of both transforms.
        plan: which frames of a clip are taken.
        train: transform of training clips.
        evaluation: transform in evaluation and prediction.
        views: views of a clip in evaluation, whose scores are averaged.
        sampling: how often the clips of each class are drawn.
        mixing: how the clips of a training batch are mixed.
        workers: reading processes per rank; 0 reads in the training process.
        timeout: seconds that a worker may take to read a clip.
        bad_clips: ``quarantine`` leaves out the clips that ``quarantine`` lists; ``stop`` refuses to train with them.
        quarantine: ``quarantine.json`` of ``hoi-data verify``.
    """

    manifest: Path
    root: Path | None = None
    reader: Annotated[str, NameIn(READERS)] = "auto"
    num_frames: Annotated[int, Ge(1)] = _of_the_backbone()
    plan: FramePlan = _default("segments")
    train: Transform
    evaluation: Transform
    views: Views = Views()
    sampling: Sampling = _default("instance")
    mixing: Mixing = _default("none")
    workers: Annotated[int, Ge(0)] = 2
    timeout: Annotated[float, Gt(0)] = 300.0
    bad_clips: Literal["stop", "quarantine"] = "stop"
    quarantine: Path | None = None


class Model(Strict):
    """The network.

    Args:
        backbone: the network up to its map of features.
        pooling: from the map to the features of clips or pairs.
        preprocessing: what the weights were trained with; by default the backbone's.
        weights: file with the weights to begin with; random weights if not given.
        freeze_through: the last of the backbone's groups of layers, from the stem, that does not train; all train if
            not given. The batch norms of frozen layers keep their statistics.
    """

    backbone: Backbone
    pooling: Pooling = _default("mean")
    preprocessing: Annotated[str, NameIn(PREPROCESSING)] = _of_the_backbone()
    weights: Path | None = None
    freeze_through: str | None = None


class TaskConfig(Strict):
    """One task: its loss (the run's by default), its head and its groups of classes.

    Args:
        loss: of this task; the run's ``loss`` if not given.
        weight: factor of its loss in the sum over tasks.
        head: from features to logits.
        groups: rule that divides the classes into majority and minority.
    """

    loss: LossChoice | None = None
    weight: Annotated[float, Ge(0)] = 1.0
    head: Head = _default("linear")
    groups: GroupRule = _default("top_k")


class Training(Strict):
    """Epochs, batches, precision and memory of training.

    Args:
        epochs: of the whole run.
        batch_size: clips per rank and batch.
        accumulate: batches per step of the optimizer.
        clip_norm: largest norm of the gradient; not limited if not given.
        ema_decay: decay of a moving average of the weights, which is evaluated instead of them; none if not given.
        precision: ``32-true``, ``bf16-mixed`` (faster) or ``64-true``.
        channels_last: memory layout with adjacent channels, faster for convolutions.
        threads: of torch on a CPU; torch's default if not given.
        keep_memory: on a CPU: keep freed memory for the next step.
        compile: use ``torch.compile``.
        patience: end the run after this number of epochs without a better monitored value; never if not given.
    """

    epochs: Annotated[int, Ge(1)]
    batch_size: Annotated[int, Ge(1)] = 32
    accumulate: Annotated[int, Ge(1)] = 1
    clip_norm: Annotated[float, Gt(0)] | None = None
    ema_decay: Annotated[float, Gt(0), Lt(1)] | None = None
    precision: Literal["32-true", "bf16-mixed", "64-true"] = "32-true"
    channels_last: bool = False
    threads: Annotated[int, Ge(1)] | None = None
    keep_memory: bool = True
    compile: bool = False
    patience: Annotated[int, Ge(1)] | None = None


class Checkpoints(Strict):
    """When to save, and which result is the best; ``mode`` follows from the direction of the monitored metric.

    Args:
        every_minutes: save after this time since the last checkpoint, besides the end of each epoch.
        every_steps: save after this number of steps, too; not if not given.
        keep: newest checkpoints to keep, besides the best.
        monitor: number that decides which checkpoint is the best, such as ``verb/recall_macro``, which is the default
            of a single-label task ``verb``; ``noun/map`` of a multi-label task ``noun``.
        mode: whether the largest or the smallest monitored value is the best.
    """

    every_minutes: Annotated[float, Gt(0)] = 10.0
    every_steps: Annotated[int, Ge(1)] | None = None
    keep: Annotated[int, Ge(2)] = 2
    monitor: str | None = None
    mode: Literal["max", "min"] = "max"

    @model_validator(mode="before")
    @classmethod
    def _mode_of_the_monitor(cls, raw: Any) -> Any:
        if not isinstance(raw, Mapping) or raw.get("mode") is not None or not isinstance(raw.get("monitor"), str):
            return raw
        return {**raw, "mode": direction_of(raw["monitor"].rpartition("/")[2])}


class RunConfig(Strict):
    """The whole configuration of a run.

    Args:
        name: of the run; its folder is ``<runs>/<name>-seed<seed>``.
        seed: of initial weights, order and augmentation.
        runs: folder of the run directories.
        data: the clips.
        model: the network.
        tasks: settings of each task that is trained, by its name in the manifest.
        loss: of the tasks that have none of their own.
        method: the training procedure.
        optimizer: with its learning rate.
        schedule: of the learning rate.
        training: epochs, batches, precision.
        checkpoints: when to save, and which is the best.
        trackers: mirrors of the run's records, by name; one that is not listed does not run.
    """

    name: Annotated[str, AfterValidator(_folder_name)]
    seed: Annotated[int, Ge(0)] = 0
    runs: Path = _default("runs")
    data: Data
    model: Model
    tasks: Annotated[dict[str, TaskConfig], MinLen(1)]
    loss: LossChoice | None = None
    method: MethodChoice = _default("fit")
    optimizer: Optimizer
    schedule: ScheduleChoice = _default("multi_step")
    training: Training
    checkpoints: Checkpoints = Field(default_factory=Checkpoints)
    trackers: Trackers = _default({"wandb": {}})

    @model_validator(mode="before")
    @classmethod
    def _trackers_by_name(cls, raw: Any) -> Any:
        return as_tuples(trackers_by_name(raw)) if isinstance(raw, Mapping) else raw

    @model_validator(mode="after")
    def _every_task_has_a_loss(self) -> RunConfig:
        for task, config in self.tasks.items():
            if config.loss is None and self.loss is None:
                raise ValueError(f"tasks.{task}.loss: missing; give it, or a loss for all tasks as 'loss'")
        return self

    @model_validator(mode="after")
    def _fit_the_backbone(self) -> RunConfig:
        """Take from the backbone what the file does not say, and refuse what the backbone cannot use."""
        try:
            spec: BackboneSpec = build(self.model.backbone, BACKBONES)
        except ValueError as error:
            raise ValueError(f"model.backbone: {error}") from None
        model = _filled(self.model, preprocessing=spec.preprocessing[0])
        views = {part: _filled(getattr(self.data, part), size=spec.size.default) for part in ("train", "evaluation")}
        data = _filled(self.data, num_frames=spec.frames.default).model_copy(update=views)
        problems = _misfits(model, data, spec)
        if problems:
            raise ValueError("\n".join(problems))
        return self.model_copy(update={"model": model, "data": data})

    @property
    def run_dir(self) -> Path:
        """The folder that is the run's identity: ``<runs>/<name>-seed<seed>``."""
        return self.runs / f"{self.name}-seed{self.seed}"

    def loss_of(self, task: str) -> Component:
        """Return the configuration of a task's loss: its own, else the run's."""
        chosen = self.tasks[task].loss or self.loss
        assert chosen is not None
        return chosen

    def plain(self) -> dict[str, Any]:
        """Return the configuration as plain values, every default written out."""
        plain: dict[str, Any] = self.model_dump(mode="json")
        return plain


_Section = TypeVar("_Section", bound=Strict)


def _filled(section: _Section, **defaults: Any) -> _Section:
    """Return a section with defaults for those of its keys that were not given."""
    open_keys = type(section).model_fields.keys() - section.model_fields_set
    return section.model_copy(update={key: value for key, value in defaults.items() if key in open_keys})


def _misfits(model: Model, data: Data, spec: BackboneSpec) -> list[str]:
    """Return one line for each value that the backbone cannot use: the key, what came, what is allowed."""
    backbone = f"backbone {model.backbone.name!r}"
    numbers = {
        "data.num_frames": (data.num_frames, spec.frames),
        "data.train.size": (getattr(data.train, "size", None), spec.size),
        "data.evaluation.size": (getattr(data.evaluation, "size", None), spec.size),
    }
    problems = [
        f"{key}: {backbone} takes {allowed}, got {given}"
        for key, (given, allowed) in numbers.items()
        if given is not None and given not in allowed
    ]
    if model.preprocessing not in spec.preprocessing:
        allowed = ", ".join(spec.preprocessing)
        problems.append(f"model.preprocessing: {backbone} takes {allowed}, got {model.preprocessing!r}")
    if POOLING[model.pooling.name].of == "pair" and spec.gives == "pooled":
        problems.append(
            f"model.pooling: {model.pooling.name!r} needs a feature map, and {backbone} gives pooled features; pairs "
            "need another backbone"
        )
    try:
        spec.groups_through(model.freeze_through)
    except ValueError as error:
        problems.append(f"model.freeze_through: {backbone} has {error}")
    if model.freeze_through is not None and model.weights is None:
        problems.append("model.freeze_through: random weights would never train; give model.weights")
    return problems


# Keys that change where or how fast a run goes, never its result: they may differ when it is resumed.
FREE_KEYS = (
    "runs",
    "data.root",
    "data.workers",
    "data.timeout",
    "training.keep_memory",
    "checkpoints.every_minutes",
    "checkpoints.every_steps",
    "trackers",
    "wandb",  # what is now trackers.wandb
)


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a configuration file and apply overrides such as ``loss.tau=1.5`` or ``--loss.tau=1.5``.

    Raises:
        ConfigError: with one line for each problem.
    """
    raw = read_layers(path, trackers_by_name)
    for override in overrides:
        apply_override(raw, override, {"wandb": "trackers.wandb"})
        try:
            raw = trackers_by_name(raw)  # set as a name or a list
        except ValueError as error:
            raise ConfigError(f"{override!r}: {error}") from None
    return parse_config(raw, path)


def parse_config(raw: Mapping[str, Any], origin: Path) -> RunConfig:
    """Check plain values against the schema; ``origin`` is the file that messages name."""
    try:
        # JSON mode is strict about types and yet takes a list for a tuple and a string for a path.
        return RunConfig.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        raise ConfigError("\n".join(f"{origin}: {line}" for line in explain(error, RunConfig))) from None
    except TypeError as error:
        raise ConfigError(f"{origin}: {error}") from None


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return one line for each key whose value differs, except the keys in ``FREE_KEYS``."""
    before, after = _flat(old), _flat(new)
    changed = [key for key in sorted(before | after) if before.get(key) != after.get(key)]
    kept = [key for key in changed if not any(key == free or key.startswith(f"{free}.") for free in FREE_KEYS)]
    return [f"{key}: {before.get(key, 'not set')} -> {after.get(key, 'not set')}" for key in kept]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return flat
