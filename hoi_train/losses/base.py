"""The base class of losses: per-sample losses first, then an explicit reduction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hoi_train.core.ranks import mean_over_ranks
from hoi_train.core.records import ClassCounts, LabelKind, TaskStats
from hoi_train.losses.weights import ClassWeighting, Place


class Loss(nn.Module, ABC):
    """Map logits and targets to per-sample losses.

    A subclass takes ``class_counts`` first; its keyword-only arguments are its hyper-parameters, from which the
    configuration's schema is built. All state that changes the next step is a buffer or a parameter. Statistics of
    batches are updated in ``forward`` while ``training`` (evaluation uses ``eval`` mode), summed over ranks. Random
    numbers come from torch's global generator, which the loop seeds for every step and rank.

    Args:
        class_counts: of the training split; they define the number of classes C and the kind of labels.
        weights: scheme of the class weights that ``weigh`` applies; no weights by default.

    Shapes:
        logits ``[N, C]``, floating; computed in at least float32.
        target int64 ``[N]`` with class ids (single-label), or floating ``[N, C]`` in 0..1 (multi-label).
        result ``[N]``; for N = 0 it is empty and its reduction is 0.
    """

    labels: ClassVar[frozenset[LabelKind]]
    weights: Tensor | None

    def __init__(self, class_counts: ClassCounts, weights: ClassWeighting | None = None) -> None:
        super().__init__()
        if class_counts.labels not in self.labels:
            raise ValueError(
                f"{type(self).__name__} is for {' and '.join(sorted(self.labels))}-label tasks, "
                f"this task is {class_counts.labels}-label"
            )
        self.head: Mapping[str, Any] = {}  # required values in the configuration of the task's head
        self.kind: LabelKind = class_counts.labels
        self.num_classes = class_counts.num_classes
        self.place: Place = _place(class_counts.labels, weights)
        self.from_epoch = 0 if weights is None else weights.from_epoch
        self.deferred = self.from_epoch > 0
        # Computed in float64, stored in float32, because Apple's MPS has no float64.
        self.register_buffer("weights", None if weights is None else weights.of(class_counts).float())

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, ``[N]``; raises ``ValueError`` for wrong shapes or types."""
        self._check(logits, target)
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        if self.kind == "multi":
            target = target.to(logits.dtype)  # float32 targets would reduce float64 logits to float32
        with torch.autocast(logits.device.type, enabled=False):
            return self.per_sample(logits, target)

    @abstractmethod
    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the paper's formula on float32 or float64 logits; every loss implements this."""

    def reduce(self, losses: Tensor, target: Tensor) -> Tensor:
        """Return the scalar to minimise: the mean over samples unless the paper has another reduction.

        In training this is a mean over the samples of all ranks, whose numbers may differ; all ranks must call it
        equally often. Gradients are averaged over ranks, so the mean of the ranks' results equals the result of one
        process with all samples. In evaluation every rank has all samples.
        """
        return losses.sum() / self.shared_divisor(losses.new_tensor(len(losses)))

    def shared_divisor(self, mine: Tensor) -> Tensor:
        """Return the divisor of this rank's sum of losses from its part of the whole batch's divisor."""
        whole = mean_over_ranks(mine) if self.training else mine
        return whole.clamp(min=torch.finfo(mine.dtype).tiny)  # for an empty batch 0 / tiny is 0

    def weigh(self, losses: Tensor, target: Tensor) -> Tensor:
        """Multiply losses by the current class weights, if there are any.

        Args:
            losses: ``[N]``, or one term per class, ``[N, C]``, which ``column`` and ``positives`` need.
            target: as in ``forward``.
        """
        if self.weights is None or self.deferred:
            return losses
        weights = self.weights.to(losses.dtype)
        if self.place == "column":
            return losses * weights
        if self.place == "positives":
            return losses * (1 + target * (weights - 1))
        rows = weights[target] if self.kind == "single" else _mean_of_classes(weights, target)
        return losses * (rows if losses.ndim == 1 else rows[:, None])

    def schedule(self, epoch: int) -> None:
        """Set what depends on the epoch (from 0); a pure function of ``epoch``.

        Overriding methods must call this one, which switches deferred weights.
        """
        self.deferred = epoch < self.from_epoch

    def after_validation(self, stats: TaskStats) -> None:
        """Update the loss from the per-class results of a validation."""

    @classmethod
    def learns_from_validation(cls) -> bool:
        """Return whether validation results change the loss."""
        return cls.after_validation is not Loss.after_validation

    def class_weights(self) -> Tensor | None:
        """Return the current class weights, float64 ``[C]``, or ``None`` if the loss has none."""
        if self.weights is None:
            return None
        return torch.ones(self.num_classes).double() if self.deferred else self.weights.cpu().double()

    def _check(self, logits: Tensor, target: Tensor) -> None:
        if logits.ndim != 2 or logits.shape[1] != self.num_classes or not logits.is_floating_point():
            raise ValueError(f"logits must be floating [N, {self.num_classes}], got {logits.dtype} {logits.shape}")
        if self.kind == "single":
            fits = target.shape == logits.shape[:1] and target.dtype == torch.int64
            wanted = "int64 [N]"
        else:
            fits = target.shape == logits.shape and target.is_floating_point()
            wanted = f"floating [N, {self.num_classes}]"
        if not fits:
            raise ValueError(f"target must be {wanted} for N = {len(logits)}, got {target.dtype} {target.shape}")


def _place(labels: LabelKind, weights: ClassWeighting | None) -> Place:
    place = None if weights is None else weights.place
    if labels == "single" and place not in (None, "row"):
        raise ValueError(f"weights.place: {place!r} is for multi-label tasks; a single-label loss weighs whole rows")
    return place or ("row" if labels == "single" else "column")


def _mean_of_classes(weights: Tensor, target: Tensor) -> Tensor:
    """Return the mean weight of the classes of each multi-hot row, ``[N]``, 1 for a row without classes."""
    labels = target.sum(1)
    return torch.where(labels > 0, target @ weights / labels.clamp(min=torch.finfo(weights.dtype).tiny), 1.0)
