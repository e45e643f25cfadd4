"""The loss and the class groups of each task, checked against the data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from hoi_train.config import RunConfig
from hoi_train.core.records import ClassCounts, ClassGroups, Split, Task, nearest, unknown_task
from hoi_train.core.schema import build
from hoi_train.core.strict_yaml import ConfigError
from hoi_train.data.manifest import Manifest
from hoi_train.data.manifest.tasks import DATASET_FILE
from hoi_train.losses import LOSSES
from hoi_train.losses.base import Loss
from hoi_train.metrics import scalars_of
from hoi_train.metrics.groups import GROUP_RULES


def check_tasks(
    config: RunConfig, manifest: Manifest, counts: Mapping[Split, Mapping[str, ClassCounts]]
) -> dict[str, ClassGroups]:
    """Check that the configured tasks are in the manifest and that each loss and group rule fits.

    Args:
        config: of the run.
        manifest: all splits.
        counts: class counts of every split, by task.

    Returns:
        The class groups of each task.

    Raises:
        ConfigError: with one line for each problem.
    """
    problems, groups = [], {}
    for name in config.tasks:
        try:
            groups[name] = _check_task(config, manifest, name, counts)
        except ConfigError as error:
            problems.append(str(error))
    known_tasks = [manifest.tasks[name] for name in config.tasks if name in manifest.tasks]
    if len({task.of for task in known_tasks}) > 1:
        kinds = ", ".join(f"{task.name} of each {task.of}" for task in known_tasks)
        problems.append(f"tasks: a run labels whole clips or human-object pairs, not both; it has {kinds}")
    of_pairs = any(task.of == "pair" for task in known_tasks)
    if of_pairs and manifest.object_classes is None:
        problems.append(f"tasks: {manifest.path.parent / DATASET_FILE} lists no object_classes, which pairs need")
    problems += _data_problems(config, of_pairs)
    counted = getattr(config.data.sampling, "task", None)
    if counted is not None and counted not in config.tasks:
        problems.append(f"data.sampling.{unknown_task(counted, config.tasks)}")
    if not problems:
        problems += _monitor_problems(config, known_tasks, groups)
    if not len(manifest.split("train")):
        problems.append(f"data.manifest: {manifest.path} has no clips in the split 'train'")
    if problems:
        raise ConfigError("\n".join(problems))
    return groups


def _monitor_problems(config: RunConfig, tasks: Iterable[Task], groups: Mapping[str, ClassGroups]) -> list[str]:
    monitor, mode = config.checkpoints.monitor, config.checkpoints.mode
    if monitor is None:
        return []
    measured = {f"{task.name}/{name}": s for task in tasks for name, s in scalars_of(task, groups[task.name]).items()}
    if monitor not in measured:
        hint = nearest(monitor, list(measured))
        return [f"checkpoints.monitor: {monitor!r} is not measured{hint}; measured are {', '.join(measured)}"]
    if measured[monitor].direction not in (mode, None):
        extreme = "largest" if mode == "max" else "least"
        return [f"checkpoints.mode: {mode!r} keeps the {extreme} {monitor}, which is the worst; leave it out"]
    return []


def _check_task(
    config: RunConfig, manifest: Manifest, name: str, counts: Mapping[Split, Mapping[str, ClassCounts]]
) -> ClassGroups:
    """Return the class groups of a task; raises ``ConfigError`` if data, loss or groups do not fit it."""
    if name not in manifest.tasks:
        known = list(manifest.tasks)
        text = f"{manifest.path} has no such task; it has {', '.join(known)}{nearest(name, known)}"
        raise ConfigError(f"tasks.{name}: {text}")
    by_split = {split: of[name] for split, of in counts.items()}
    train = by_split["train"]
    if manifest.tasks[name].of == "pair" and not train.num_samples:
        raise ConfigError(f"tasks.{name}: {manifest.path} has no pairs in the split 'train'")
    if train.num_samples and not any(train.positives):
        raise ConfigError(f"tasks.{name}: {manifest.path} has no label of it in the split 'train': nothing to learn")
    problems, groups = [], {}
    try:
        make_loss(config, name, train)
    except ValueError as error:
        problems.append(f"tasks.{name}.loss: {error}")
    try:
        groups = dict(make_groups(config, manifest.tasks[name], by_split))
    except ValueError as error:
        problems.append(f"tasks.{name}.groups: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    return groups


def _data_problems(config: RunConfig, of_pairs: bool) -> Iterator[str]:
    """Yield a line for each setting of mixing and views that the run's samples do not allow."""
    data, crops = config.data, config.data.views.crops
    if of_pairs and data.mixing.name != "none":
        yield f"data.mixing: {data.mixing.name!r} mixes clips, which tears their pairs apart; use 'none'"
    if crops > 1 and (data.evaluation.name != "center_crop" or getattr(data.evaluation, "padded", False)):
        text = f"{crops} crops lie along the long side of the picture, which needs data.evaluation: center_crop"
        yield f"data.views.crops: {text}, not padded"
    if crops > 1 and of_pairs:
        yield f"data.views.crops: {crops} crops along the long side cut pairs off; with tasks of pairs use 1"
    if data.views.frames > 1 and of_pairs and data.plan.name == "around_key":
        text = "data.plan around_key shows the same frames of a key frame in all views"
        yield f"data.views.frames: {text}; use 1, or data.plan segments"


def make_loss(config: RunConfig, task: str, counts: ClassCounts) -> Loss:
    """Build a task's loss from the class counts of the training split; raises ``ValueError`` if it does not fit."""
    choice, labels = config.loss_of(task), counts.labels
    fitting = [name for name, loss in LOSSES.items() if labels in loss.labels]
    if choice.name not in fitting:
        text = f"loss {choice.name!r} does not fit the {labels}-label task {task!r}"
        raise ValueError(f"{text}; give it one of its own: {', '.join(sorted(fitting))}")
    loss: Loss = build(choice, LOSSES, counts)
    return loss


def make_groups(config: RunConfig, task: Task, counts: Mapping[Split, ClassCounts]) -> ClassGroups:
    """Divide a task's classes by its rule; raises ``ValueError`` if the rule does not fit."""
    rule = build(config.tasks[task.name].groups, GROUP_RULES)
    splits = [counts[split] for split in rule.count_splits if split in counts]
    positives = [sum(counts) for counts in zip(*(split.positives for split in splits), strict=True)]
    total = ClassCounts(tuple(positives), sum(split.num_samples for split in splits), task.labels)
    groups: ClassGroups = rule(total, task.classes)
    return groups
