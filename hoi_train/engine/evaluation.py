"""Evaluate a split: the logits of all ranks, then the statistics of each task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

from hoi_train.core.batches import ClipBatch
from hoi_train.core.pairs import TruePairs
from hoi_train.core.ranks import distributed
from hoi_train.core.records import ClassGroups, EpochStats, Split, Task, TaskStats, UserError
from hoi_train.data.views import average_views
from hoi_train.losses.base import Loss
from hoi_train.losses.objective import Objective
from hoi_train.metrics import task_stats
from hoi_train.metrics.gather import gather
from hoi_train.metrics.thresholds import DEFAULT

if TYPE_CHECKING:  # its import takes seconds, which checking a configuration does not need
    from lightning_fabric import Fabric


class NonFiniteError(UserError):
    """A logit, loss or gradient that is nan or infinite; the message names the step and the clips."""


@dataclass(frozen=True)
class TaskEvaluation:
    """A task with its class groups, extra metrics and threshold.

    Args:
        task: what is recognised.
        groups: class ids of each group.
        pairs: the annotated pairs of the split, for a task of pairs.
        threshold: multi-label only: a class is predicted above this score in 0..1; one, or float64 ``[C]``.
    """

    task: Task
    groups: ClassGroups
    pairs: TruePairs | None = None
    threshold: float | Tensor = DEFAULT


@torch.no_grad()
def evaluate(
    fabric: Fabric,
    model: nn.Module,
    objective: Objective,
    batches: Iterable[ClipBatch],
    tasks: Mapping[str, TaskEvaluation],
    epoch: int,
    split: Split,
) -> EpochStats:
    """Evaluate a model on a split; the result is equal on all ranks.

    Args:
        fabric: places batches and carries the precision.
        model: called as ``model(**batch.inputs)``, in evaluation mode; not wrapped for ranks, since shards are uneven.
        objective: gives the losses of each task.
        batches: this rank's share of the split, each view of each clip on one rank.
        tasks: what to evaluate, by name.
        epoch: number of the epoch just trained, from 0.
        split: name of the split.

    Raises:
        NonFiniteError: on every rank, if a logit of any clip is not finite.
    """
    was_training = objective.training
    objective.eval()
    rows = network_rows(fabric, model, batches, {name: of.task for name, of in tasks.items()}, split)
    stats = EpochStats(
        epoch=epoch,
        split=split,
        tasks={name: _statistics(of, objective.loss(name), *rows[name]) for name, of in tasks.items()},
    )
    objective.train(was_training)
    return stats


@torch.no_grad()
def network_rows(
    fabric: Fabric, model: nn.Module, batches: Iterable[ClipBatch], tasks: Mapping[str, Task], split: Split
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return logits and target of every clip or pair of a split, in their order, by task; equal on all ranks.

    The logits of a clip's views are averaged by ``average_views``.

    Args:
        fabric: as of ``evaluate``.
        model: as of ``evaluate``.
        batches: as of ``evaluate``.
        tasks: by name.
        split: name of the split.

    Raises:
        NonFiniteError: on every rank, if a logit of any clip is not finite.
    """
    share_buffers(model)
    was_training = model.training
    model.eval()
    keys: list[Tensor] = []
    columns: dict[str, list[Tensor]] = {f"{kind} {task}": [] for task in tasks for kind in ("logits", "target")}
    for batch in batches:
        placed = batch.map(fabric.to_device)
        with fabric.autocast():
            logits = model(**placed.inputs)
        keys.append(batch.keys)
        for task in tasks:
            values = logits[task]
            # Losses and statistics of half-precision logits are computed in float32, as in training.
            columns[f"logits {task}"].append((values.float() if values.dtype == torch.bfloat16 else values).cpu())
            columns[f"target {task}"].append(batch.targets[task])
    positions, rows = by_position(keys, columns)
    _check_finite({task: rows[f"logits {task}"] for task in tasks}, positions, split)
    model.train(was_training)
    return {
        name: (average_views(rows[f"logits {name}"], task.labels), rows[f"target {name}"][:, 0])
        for name, task in tasks.items()
    }


def by_position(keys: list[Tensor], columns: Mapping[str, list[Tensor]]) -> tuple[Tensor, dict[str, Tensor]]:
    """Gather the rows of all ranks and batches, sorted by position, with an axis for the views.

    Args:
        keys: of each batch of this rank, see ``gather``.
        columns: by name, of each batch ``[n, …]``.

    Returns:
        Positions int64 ``[N]`` and columns ``[N, V, …]`` of N clips or pairs with V views each.

    Raises:
        ValueError: a clip or pair lacks a view, or ranks disagree; raised on every rank.
    """
    found, *gathered = gather(*(torch.cat(parts) if parts else torch.empty(0) for parts in (keys, *columns.values())))
    num_views = int(found[:, 1].max()) + 1 if len(found) else 1
    counts = Counter[int](found[:, 0].tolist() if len(found) else ())
    if lacking := [position for position, count in counts.items() if count != num_views][:5]:
        raise ValueError(f"{num_views} views were evaluated, but positions {lacking} of the split lack some of them")
    rows = {
        name: column.reshape(-1, num_views, *column.shape[1:]) for name, column in zip(columns, gathered, strict=True)
    }
    return found.reshape(-1, num_views, 2)[:, 0, 0], rows


def _statistics(of: TaskEvaluation, loss: Loss, logits: Tensor, target: Tensor) -> TaskStats:
    device = next((buffer.device for buffer in loss.buffers()), logits.device)
    logits_there, target_there = logits.to(device), target.to(device)
    value = float(loss.reduce(loss(logits_there, target_there), target_there))
    return task_stats(of.task, logits, target, of.groups, value, of.threshold, of.pairs)


def _check_finite(logits: Mapping[str, Tensor], positions: Tensor, split: Split) -> None:
    for task, values in logits.items():
        bad = positions[~values.isfinite().flatten(1).all(dim=1)]
        if len(bad):
            raise NonFiniteError(
                f"{len(bad)} rows of {split} have logits of task {task!r} that are nan or infinite, the first at "
                f"positions {bad[:5].tolist()} of the split: the weights have diverged; try a lower learning rate"
            )


def share_buffers(model: nn.Module) -> None:
    """Broadcast the buffers of rank 0 (running means of batch norms), so that all ranks evaluate one network."""
    if distributed():
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
