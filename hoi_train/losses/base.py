"""The contract of a loss: one file a paper, per-sample losses first, the reduction stated."""

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

    A subclass takes ``class_counts`` first; its keyword-only arguments are its hyper-parameters, and from them
    the configuration's schema is made. All state that changes the next step is a buffer or a parameter. What a loss
    learns from batches it learns in ``forward`` while ``training`` (evaluation puts it in ``eval`` mode), summed over
    ranks. What it draws it draws from torch's global generator, which the loop seeds anew for every step and rank.

    Args:
        class_counts: of the training split; they fix the number of classes C and the kind of labels.
        weights: how class counts become the weights that ``weigh`` applies; none if not given.

    Shapes:
        logits ``[N, C]``, floating; computed in float32 or better whatever came in.
        target int64 ``[N]`` with class ids (single-label), or floating ``[N, C]`` in 0..1 (multi-label).
        result ``[N]``; N = 0 gives an empty result whose reduction is 0.
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
        self.head: Mapping[str, Any] = {}  # what the configuration of a head must say whose logits the formula takes
        self.kind: LabelKind = class_counts.labels
        self.num_classes = class_counts.num_classes
        self.place: Place = _place(class_counts.labels, weights)
        self.from_epoch = 0 if weights is None else weights.from_epoch
        self.deferred = self.from_epoch > 0
        # Computed in float64, kept in float32: Apple's MPS has no float64, and moving one there fails.
        self.register_buffer("weights", None if weights is None else weights.of(class_counts).float())

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of each sample, ``[N]``; raises ``ValueError`` on shapes or types that do not fit."""
        self._check(logits, target)
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        if self.kind == "multi":
            target = target.to(logits.dtype)  # float32 targets would pull float64 logits down to float32
        with torch.autocast(logits.device.type, enabled=False):
            return self.per_sample(logits, target)

    @abstractmethod
    def per_sample(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the paper's formula on float32 or float64 logits; the one method every loss writes."""

    def reduce(self, losses: Tensor, target: Tensor) -> Tensor:
        """Return the scalar to minimise: the mean over samples unless the paper says otherwise.

        In training the samples are those of all ranks, which may have unequally many, and every rank must call this
        equally often. Ranks follow the mean of their gradients, so that the mean of their results is what one process
        gets for all their samples. In evaluation every rank is given all samples.
        """
        return losses.sum() / self.shared_divisor(losses.new_tensor(len(losses)))

    def shared_divisor(self, mine: Tensor) -> Tensor:
        """Return what this rank divides its sum of losses by, from its own part of the whole batch's divisor."""
        whole = mean_over_ranks(mine) if self.training else mine
        return whole.clamp(min=torch.finfo(mine.dtype).tiny)  # of an empty batch: 0 / tiny is 0

    def weigh(self, losses: Tensor, target: Tensor) -> Tensor:
        """Multiply losses by the class weights in force, or return them as they are if there are none.

        Args:
            losses: ``[N]`` or, one term a class, ``[N, C]``, which ``column`` and ``positives`` need.
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
        """Set what depends on the epoch (from 0). Pure in ``epoch``: may be called any number of times.

        A subclass that overrides it calls this one, which begins deferred weights.
        """
        self.deferred = epoch < self.from_epoch

    def after_validation(self, stats: TaskStats) -> None:
        """Learn from the per-class results of the validation just made."""

    @classmethod
    def learns_from_validation(cls) -> bool:
        """Return whether the results of a validation change it."""
        return cls.after_validation is not Loss.after_validation

    def class_weights(self) -> Tensor | None:
        """Return the weights per class in force, float64 ``[C]``, or ``None`` if the loss has none."""
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
    """Return ``[N]``: the mean weight of the classes of each row of a multi-hot target, 1 for a row without."""
    labels = target.sum(1)
    return torch.where(labels > 0, target @ weights / labels.clamp(min=torch.finfo(weights.dtype).tiny), 1.0)
