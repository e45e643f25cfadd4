"""The evaluated rows of one task, checked, and what several metrics derive from them, each computed once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hoi_train.core.pairs import Detections, EvaluatedFrames, TruePairs
from hoi_train.core.records import Task
from hoi_train.metrics.thresholds import DEFAULT


class HitCounts(NamedTuple):
    """Rows by class, int64 ``[C]`` each: that carry it and were predicted to, were predicted to, carry it."""

    hits: Tensor
    predicted: Tensor
    support: Tensor


@dataclass(frozen=True, eq=False)
class EvaluatedRows:
    """Logits and target of all rows of a task on a split: what a metric measures.

    Args:
        task: names the classes and the label kind.
        logits: floating ``[N, C]``, finite; kept in float64 on the CPU.
        target: int64 ``[N]`` (single-label) or ``[N, C]`` of zeros and ones (multi-label).
        loss: the split's loss, reduced as the task's loss does it.
        threshold: in 0..1, one or ``[C]``; a multi-label class is predicted where its sigmoid score is above it.
        pairs: the annotated pairs, one for each row, of a task of pairs.

    Raises:
        ValueError: shapes or class ids do not fit the task, a logit is not finite, or a threshold is out of range.
    """

    task: Task
    logits: Tensor
    target: Tensor
    loss: float = math.nan
    threshold: float | Tensor = DEFAULT
    pairs: TruePairs | None = None

    def __post_init__(self) -> None:
        _check_logits(self.task, self.logits)
        _check_target(self.task, self.target, len(self.logits))
        threshold = torch.as_tensor(self.threshold, dtype=torch.float64)
        if not ((threshold >= 0) & (threshold < 1)).all():
            raise ValueError(f"a threshold must be a score in 0..1 (1 excluded), got {threshold.tolist()}")
        object.__setattr__(self, "threshold", threshold)
        object.__setattr__(self, "logits", self.logits.detach().cpu().double())
        object.__setattr__(self, "target", self.target.detach().cpu())

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def support(self) -> Tensor:
        """Rows that carry each class, int64 ``[C]``."""
        return self.counts.support

    @cached_property
    def truth(self) -> Tensor:
        """Whether a row carries a class, bool ``[N, C]``."""
        return (one_hot(self.target, self.task.num_classes) if self.task.labels == "single" else self.target).bool()

    @cached_property
    def confusion(self) -> Tensor | None:
        """Int64 ``[C, C]``, rows truth, columns prediction; single-label only.

        A row is predicted to be the class of its largest logit, the lowest id among equals.
        """
        if self.task.labels == "multi":
            return None
        # Imported on first use: it costs seconds, and most commands never evaluate.
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        predicted = self.logits.argmax(dim=1)  # the first of equal maxima, as torch documents
        # validate_args=False: the library's own check refuses a task of one class; ours has been made before.
        return multiclass_confusion_matrix(predicted, self.target, self.task.num_classes, validate_args=False)

    @cached_property
    def counts(self) -> HitCounts:
        """What recall, precision and F1 are made of."""
        if self.confusion is not None:
            return HitCounts(self.confusion.diagonal(), self.confusion.sum(0), self.confusion.sum(1))
        predicted = self.logits.sigmoid() > self.threshold  # a score equal to the threshold is not predicted
        return HitCounts((predicted & self.truth).sum(0), predicted.sum(0), self.truth.sum(0))

    @cached_property
    def frames(self) -> EvaluatedFrames | None:
        """The annotated pairs with their predicted predicates: boxes, their scores (1) and objects of the truth."""
        if self.pairs is None:
            return None
        sure = torch.ones(len(self.pairs), dtype=torch.float64).numpy()
        found = Detections(**self.pairs.columns, person_scores=sure, object_scores=sure)
        return evaluated_frames(self.pairs, found, self.logits)


def evaluated_frames(truth: TruePairs, detections: Detections, logits: Tensor) -> EvaluatedFrames:
    """Join annotated pairs, detected pairs and the network's logits of the latter, floating ``[N, P]``.

    The evaluated frames are those with a true pair. Where nothing was detected in one of them, all of its pairs are
    missed; the published numbers are without those 168 of VidHOI's frames.
    """
    frames = tuple(dict.fromkeys(truth.frame_ids.tolist()))
    predicted = detections.predicted(logits.double().sigmoid().numpy())
    return EvaluatedFrames(frames=frames, truth=truth, predicted=predicted)


def _check_logits(task: Task, logits: Tensor) -> None:
    if logits.ndim != 2 or logits.shape[1] != task.num_classes or not logits.is_floating_point():
        raise ValueError(
            f"task {task.name!r}: logits must be floating [N, {task.num_classes}], got {_describe(logits)}"
        )
    if not logits.isfinite().all():
        bad = (~logits.isfinite()).any(1).nonzero().flatten().tolist()
        raise ValueError(
            f"task {task.name!r}: logits of {len(bad)} of {len(logits)} rows are not finite, first row {bad[0]}"
        )


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
