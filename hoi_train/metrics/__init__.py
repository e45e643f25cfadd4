"""``METRICS``: every number that an evaluation yields. Per-class results come first, averages last.

Two rules hold for every number:

- A class without support in the evaluated split has nan for recall, precision, F1 and AP, and is left out of every
  average; ``classes_counted`` says how many classes were averaged.
- A class with support that was never predicted has precision 0 (0/0 is set to 0, as in the CDB evaluation code).

A new metric is a file beside this one and a line in the table. ``scalar_names``, ``checkpoints.monitor`` and its mode,
the table after each epoch, ``hoi-train compare`` and the curves follow from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from hoi_train.core.records import ClassGroups, LabelKind, Task, TaskStats
from hoi_train.metrics.metric import (
    Direction,
    Metric,
    PairMetric,
    PerClassMetric,
    Place,
    Scalar,
    ScalarMetric,
    counted,
)
from hoi_train.metrics.pairs import PER_TRIPLET, PERSON_TOP_K, VIDHOI
from hoi_train.metrics.per_class import AP, F1, PRECISION, RECALL
from hoi_train.metrics.rows import EvaluatedRows, evaluated_frames
from hoi_train.metrics.thresholds import DEFAULT
from hoi_train.metrics.top_k import TOP1, TOP5

if TYPE_CHECKING:
    from torch import Tensor

    from hoi_train.core.pairs import Detections, TruePairs

__all__ = [
    "METRICS",
    "class_vectors",
    "default_monitor",
    "detected_scalars",
    "direction_of",
    "scalar_names",
    "scalars_of",
    "shown",
    "task_stats",
]

LOSS = ScalarMetric(
    "loss",
    lambda rows: {"loss": rows.loss},
    {"loss": Scalar("loss", direction="min", share=False, places=frozenset({"epoch", "curves"}))},
)
_LINES: tuple[Metric, ...] = (
    LOSS,
    TOP1,
    TOP5,
    RECALL,
    PRECISION,
    F1,
    AP,
    VIDHOI,
    PER_TRIPLET,
    PERSON_TOP_K,
)  # tables and plots show them in this order
METRICS: dict[str, Metric] = {metric.name: metric for metric in _LINES}
MONITORED: Mapping[LabelKind, str] = {"single": "recall_macro", "multi": "map"}


def task_stats(
    task: Task,
    logits: Tensor,
    target: Tensor,
    groups: ClassGroups,
    loss: float,
    threshold: float | Tensor = DEFAULT,
    pairs: TruePairs | None = None,
) -> TaskStats:
    """Measure one task on one split, each row once (see :func:`hoi_train.metrics.gather.gather`).

    The averages are plain means over the classes with support, of all classes (``_macro``, ``map``) or of one group
    (``recall_majority``, ``precision_minority``, ``map_minority`` …). Everything is computed on the CPU in float64
    with exactly rounded sums, so equal rows give equal bits whatever the number of ranks or threads.

    Args:
        task: names the classes and says whether a row carries one of them or any number.
        logits: floating ``[N, C]``, finite.
        target: int64 ``[N]`` (single-label) or ``[N, C]`` of zeros and ones (multi-label).
        groups: class ids of each group, from a rule of :mod:`hoi_train.metrics.groups`; any number of groups.
        loss: the split's loss, reduced as the task's loss does it; reported as it comes.
        threshold: in 0..1, one or ``[C]``; a multi-label class is predicted where its sigmoid score is above it.
        pairs: the annotated pairs of the rows; a task of pairs has the metrics of the published protocols with them.

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
    for group, ids in groups.items():
        if any(not 0 <= class_id < task.num_classes for class_id in ids):
            allowed = f"allowed 0..{task.num_classes - 1}"
            raise ValueError(f"task {task.name!r}: group {group!r} has class ids {ids}, {allowed}")
    rows = EvaluatedRows(task, logits, target, loss, threshold, pairs)
    vectors: dict[str, Tensor] = {}
    scalars: dict[str, float] = {}
    for metric in _metrics_of(task):
        found = metric.measure(rows, groups)
        vectors |= found.vectors
        scalars |= found.scalars
    scalars["classes_counted"] = counted(rows.support)
    scalars |= {f"classes_counted_{group}": counted(rows.support, ids) for group, ids in groups.items()}
    return TaskStats(task, len(rows), rows.support, vectors, scalars, dict(groups), rows.confusion)


def detected_scalars(truth: TruePairs, detections: Detections, logits: Tensor) -> dict[str, float]:
    """Measure the predicates of detected pairs by every metric of pairs.

    Args:
        truth: the annotated pairs of a split.
        detections: on its frames.
        logits: floating ``[N, P]`` of the detected pairs.

    Returns:
        ``<protocol>_map`` and ``<protocol>_classes`` of all triplet classes, and with ``_rare`` and ``_non_rare``;
        ``person_top5_recall``, ``_precision``, ``_accuracy`` and ``_f1``; in 0..1, nan where there is nothing.
    """
    frames = evaluated_frames(truth, detections, logits)
    found: dict[str, float] = {}
    for metric in METRICS.values():
        if isinstance(metric, PairMetric):
            found |= metric.value(frames)
    return found


def scalars_of(task: Task, groups: Iterable[str]) -> dict[str, Scalar]:
    """Return how every number of a task reads, by name, without measuring anything."""
    groups = tuple(groups)
    found: dict[str, Scalar] = {}
    for metric in _metrics_of(task):
        found |= metric.scalars(task.labels, groups)
    counts = ("classes_counted", *(f"classes_counted_{group}" for group in groups))
    return found | dict.fromkeys(counts, Scalar("classes counted", direction=None, share=False))


def scalar_names(task: Task, groups: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the numbers that :func:`task_stats` gives for a task.

    >>> from hoi_train.core.records import ClassList
    >>> scalar_names(Task("noun", ClassList(("cup",)), "multi"), ("rare",))[:3]
    ('loss', 'recall_macro', 'recall_rare')
    """
    return tuple(scalars_of(task, groups))


def shown(tasks: Iterable[TaskStats], place: Place) -> dict[str, Scalar]:
    """Return the numbers that a place shows of tasks (or of several runs of one task).

    They stand in the order of the table, those without a group before the averages over groups.
    """
    tasks = list(tasks)
    found = {
        name: scalar
        for metric in METRICS.values()
        for stats in tasks
        if metric.applies(stats.task)
        for name, scalar in metric.scalars(stats.task.labels, stats.groups).items()
        if place in scalar.places and name in stats.scalars
    }
    return dict(sorted(found.items(), key=lambda item: item[1].group != ""))


def class_vectors(stats: TaskStats) -> dict[str, str]:
    """Return the headings of a task's vectors for the table of its classes, by name."""
    lines = (metric for metric in METRICS.values() if isinstance(metric, PerClassMetric))
    return {line.name: line.class_heading or line.heading for line in lines if line.name in stats.vectors}


def default_monitor(task: Task) -> str:
    """Return the number by which a run's best checkpoint is chosen unless ``checkpoints.monitor`` says otherwise."""
    return f"{task.name}/{MONITORED[task.labels]}"


def direction_of(scalar: str) -> Direction:
    """Return which values of a number are better, by its name alone; ``max`` for counts and unknown names.

    >>> direction_of("loss"), direction_of("map_minority")
    ('min', 'max')
    """
    groups = [scalar.split("_", n)[-1] for n in range(scalar.count("_"), 0, -1)]  # what may be a group's name
    for candidates in ((), *((group,) for group in groups)):
        for metric in METRICS.values():
            if (found := metric.scalars("single", candidates).get(scalar)) is not None:
                return found.direction or "max"
    return "max"


def _metrics_of(task: Task) -> list[Metric]:
    return [metric for metric in METRICS.values() if metric.applies(task)]
