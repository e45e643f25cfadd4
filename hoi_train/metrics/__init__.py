"""Per-class results first, averages last.

Two rules are ours and hold for every number here:

- A class without support in the evaluated split has nan for recall, precision, F1 and AP, and is left out of every
  average; ``classes_counted`` says how many classes were averaged.
- A class with support that was never predicted has precision 0 (0/0 is set to 0, as in the CDB evaluation code).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from hoi_train.core.records import Task, TaskStats
from hoi_train.metrics import multi_label, single_label
from hoi_train.metrics.per_class import PerClass, counted, counted_mean
from hoi_train.metrics.thresholds import DEFAULT

__all__ = ["scalar_names", "task_stats"]


def task_stats(
    task: Task,
    logits: Tensor,
    target: Tensor,
    groups: Mapping[str, tuple[int, ...]],
    loss: float,
    threshold: float | Tensor = DEFAULT,
) -> TaskStats:
    """Measure one task on one split, each row once (see :func:`hoi_train.metrics.gather.gather`).

    The averages are plain means over the classes with support, of all classes (``_macro``, ``map``) or of one group
    (``recall_majority``, ``precision_minority``, ``map_minority`` …). Everything is computed on the CPU in float64
    with exactly rounded sums, so equal rows give equal bits whatever the number of ranks or threads.

    Args:
        task: names the classes and says whether a row carries one of them or any number.
        logits: floating ``[N, C]``, finite.
        target: int64 ``[N]`` (single-label) or ``[N, C]`` of zeros and ones (multi-label).
        groups: class ids of each group, from a rule of :mod:`hoi_train.metrics.groups`.
        loss: the split's loss, reduced as the task's loss does it; reported as it comes.
        threshold: in 0..1, one or ``[C]``; a multi-label class is predicted where its sigmoid score is above it.

    Returns:
        Vectors ``recall``, ``precision``, ``f1``, ``ap`` and the averages; with N = 0 all but ``loss`` are nan.

    Raises:
        ValueError: shapes or class ids do not fit the task, a logit is not finite, or the threshold is out of range.

    >>> import torch
    >>> from hoi_train.core.records import ClassList
    >>> task = Task("verb", ClassList(("take", "put", "pour")), "single")
    >>> logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [3.0, 1.0, 0.0]])
    >>> groups = {"majority": (0,), "minority": (1, 2)}
    >>> stats = task_stats(task, logits, torch.tensor([0, 1, 1]), groups, loss=0.5)
    >>> stats.vectors["recall"].tolist(), stats.scalars["recall_macro"], stats.scalars["classes_counted"]
    ([1.0, 0.5, nan], 0.75, 2)
    """
    _check(task, logits, target, groups)
    logits, target = logits.detach().cpu().double(), target.detach().cpu()
    if task.labels == "single":
        result = single_label.evaluate(logits, target)
    else:
        result = multi_label.evaluate(logits, target, torch.as_tensor(threshold, dtype=torch.float64))
    scalars = {"loss": loss, **result.accuracy, **_averages(result, groups)}
    return TaskStats(task, len(logits), result.support, result.vectors, scalars, dict(groups), result.confusion)


def scalar_names(task: Task, groups: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the averages that :func:`task_stats` gives for a task, without measuring anything.

    >>> from hoi_train.core.records import ClassList
    >>> scalar_names(Task("noun", ClassList(("cup",)), "multi"), ("minority",))[-3:]
    ('precision_minority', 'map_minority', 'classes_counted_minority')
    """
    accuracy = ("top1", "top5") if task.labels == "single" else ()
    macro = ("recall_macro", "precision_macro", "f1_macro", "map", "classes_counted")
    of_groups = (f"{name}_{group}" for group in groups for name in ("recall", "precision", "map", "classes_counted"))
    return ("loss", *accuracy, *macro, *of_groups)


def _averages(result: PerClass, groups: Mapping[str, tuple[int, ...]]) -> dict[str, float]:
    recall, precision, f1, ap = (result.vectors[name] for name in ("recall", "precision", "f1", "ap"))
    scalars: dict[str, float] = {
        "recall_macro": counted_mean(recall),
        "precision_macro": counted_mean(precision),
        "f1_macro": counted_mean(f1),
        "map": counted_mean(ap),
        "classes_counted": counted(result.support),
    }
    for group, ids in groups.items():
        scalars[f"recall_{group}"] = counted_mean(recall, ids)
        scalars[f"precision_{group}"] = counted_mean(precision, ids)
        scalars[f"map_{group}"] = counted_mean(ap, ids)
        scalars[f"classes_counted_{group}"] = counted(result.support, ids)
    return scalars


def _check(task: Task, logits: Tensor, target: Tensor, groups: Mapping[str, tuple[int, ...]]) -> None:
    num_classes, rows = task.num_classes, len(logits)
    if logits.ndim != 2 or logits.shape[1] != num_classes or not logits.is_floating_point():
        raise ValueError(f"task {task.name!r}: logits must be floating [N, {num_classes}], got {_describe(logits)}")
    if not logits.isfinite().all():
        bad = (~logits.isfinite()).any(1).nonzero().flatten().tolist()
        raise ValueError(f"task {task.name!r}: logits of {len(bad)} of {rows} rows are not finite, first row {bad[0]}")
    for group, ids in groups.items():
        if any(not 0 <= class_id < num_classes for class_id in ids):
            raise ValueError(f"task {task.name!r}: group {group!r} has class ids {ids}, allowed 0..{num_classes - 1}")
    _check_target(task, target, rows)


def _check_target(task: Task, target: Tensor, rows: int) -> None:
    if task.labels == "single":
        fits = target.shape == (rows,) and not target.is_floating_point()
        fits = fits and bool(((target >= 0) & (target < task.num_classes)).all())
        wanted = f"class ids [{rows}] in 0..{task.num_classes - 1}"
    else:
        fits = target.shape == (rows, task.num_classes) and bool(((target == 0) | (target == 1)).all())
        wanted = f"zeros and ones [{rows}, {task.num_classes}]"
    if not fits:
        values = f" with values {target.min().item()}..{target.max().item()}" if target.numel() else ""
        raise ValueError(f"task {task.name!r}: target must be {wanted}, got {_describe(target)}{values}")


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
