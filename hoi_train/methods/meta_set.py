"""The meta set: a few clips per class, whose loss determines the weights of training clips."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.functional import one_hot

from hoi_train.core.batches import ClipBatch
from hoi_train.core.randomness import generator, seed_of
from hoi_train.core.records import unknown_task
from hoi_train.data.class_sampling import draw_by_class
from hoi_train.methods.fit import Context, Fit, Step

MetaSplit = Literal["val", "train"]
Clips = Annotated[int, Ge(1)]


class MetaSet:
    """A balanced set of clips, chosen once, with a batch for every training batch.

    The set is ``balanced_rows`` of the split, a function of data and seed. Meta batches are drawn by class, all classes
    of the set equally often, and augmented as training clips; a batch is a function of (seed, epoch, number of the
    batch), and two ranks draw the same as one process with the doubled batch. So classes with fewer than ``per_class``
    clips are balanced, too: their clips are drawn more often.

    ``val`` shares no clip with training, as in the papers, which remove the set from the training images; but
    validation clips then influence training. ``train`` keeps its clips in training, so that rare classes lose none: the
    set overlaps with training, and each of its clips supports itself.

    Args:
        context: the run.
        per_class: clips per class.
        split: source of the clips.
        task: task whose classes are balanced; the run's first by default.
        batch_size: clips per meta batch and rank; by default that of training.

    Raises:
        ValueError: unknown task, missing split, or a trained class has no clip in the split, so that its training
            clips would get no support.
    """

    def __init__(
        self, context: Context, *, per_class: int, split: MetaSplit, task: str | None, batch_size: int | None
    ) -> None:
        names = list(context.data.tasks)
        self.task = names[0] if task is None else task
        if self.task not in names:
            raise ValueError(unknown_task(self.task, names))
        if split not in context.data.labels:
            raise ValueError(f"split: the manifest has no clips in the split {split!r}; use split: train")
        held = _multi_hot(context, self.task, split)
        missing = (held.sum(0) == 0) & (_multi_hot(context, self.task, "train").sum(0) > 0)
        if missing.any():
            classes = [context.data.tasks[self.task].classes.names[i] for i in missing.nonzero().flatten().tolist()]
            raise ValueError(
                f"split: no clip in the split {split!r} has {', '.join(classes)} (task {self.task}), so that "
                "training clips of these classes would get no support; use split: train"
            )
        self.context, self.split, self.batch_size = context, split, batch_size or context.batch_size
        self.rows = balanced_rows(held, per_class, context.seed)
        self.labels = held[self.rows]
        self.loader = context.data.loaders[split].select(self.rows, self.batch_size)

    def batches(self, epoch: int, batch: int, num_batches: int) -> Iterator[ClipBatch]:
        """Yield this rank's meta batches of an epoch of ``num_batches`` from ``batch`` on."""
        shares = (self.labels.sum(0) > 0).double()
        length = num_batches * self.batch_size * self.context.world_size
        drawn = draw_by_class(self.labels, shares / shares.sum(), seed_of(self.context.seed, "meta"), epoch, length)
        return self.loader.training(epoch, batch, drawn)


class MetaWeighted(Fit, ABC):
    """Weight each clip of a batch by means of a meta batch: ``loss = sum_i w_i l_i`` over all ranks.

    A subclass defines ``w``. The meta loss is the mean of the run's losses, class weights included, over the meta
    batch, which is never mixed. Losses with state are updated by the training step, not by looking ahead.

    Args:
        context: the run.
        per_class: clips per class in the meta set.
        split: source of the meta set; see ``MetaSet`` for the consequences.
        task: task whose classes are balanced; the run's first by default.
        meta_batch_size: clips per meta batch and rank; by default that of training.
    """

    def __init__(
        self,
        context: Context,
        *,
        per_class: Clips = 10,
        split: MetaSplit = "val",
        task: str | None = None,
        meta_batch_size: Clips | None = None,
    ) -> None:
        super().__init__(context)
        if any(each.of == "pair" for each in context.data.tasks.values()):
            raise ValueError("weights whole clips, and these tasks are of pairs")
        self.meta_set = MetaSet(context, per_class=per_class, split=split, task=task, batch_size=meta_batch_size)
        self.meta: Iterator[ClipBatch] = iter(())

    def begin_epoch(self, epoch: int, batch: int, num_batches: int) -> None:
        """Start with the meta batch of the next training batch."""
        self.meta = self.meta_set.batches(epoch, batch, num_batches)

    def training_loss(self, model: nn.Module, batch: ClipBatch, step: Step) -> Tensor:
        """Return the weighted sum times the number of ranks, over which gradients are averaged."""
        weights = self.weights(batch, step.place(next(self.meta)), step)
        return self.context.world_size * step.objective(batch, model(**batch.inputs), weights)

    @abstractmethod
    def weights(self, batch: ClipBatch, meta: ClipBatch, step: Step) -> Tensor:
        """Return this rank's weights, floating ``[N]``, detached."""


def balanced_rows(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Choose ``per_class`` clips of each class, or all of them, in an order given by the seed.

    Classes choose from the rarest to the most common; chosen clips count for all of their classes. So a single-label
    set is balanced, and in a multi-label set a class has more clips only by co-occurrence with rarer ones.

    Args:
        labels: bool ``[N, C]``.
        per_class: >= 1.
        seed: of the run.

    Returns:
        int64 positions, ascending.

    >>> labels = torch.tensor([[1, 0], [1, 0], [1, 0], [0, 1]]).bool()
    >>> labels[balanced_rows(labels, 2, seed=0)].sum(0).tolist()
    [2, 1]
    """
    order = torch.randperm(len(labels), generator=generator(seed, "meta set"))
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for class_id in labels.sum(0).argsort(stable=True).tolist():
        carriers = labels[:, class_id]
        wanted = max(per_class - int((carriers & chosen).sum()), 0)
        free = order[(carriers & ~chosen)[order]]
        chosen[free[:wanted]] = True
    return chosen.nonzero().flatten()


def _multi_hot(context: Context, task: str, split: MetaSplit) -> Tensor:
    """Return the classes of each clip, bool ``[N, C]``."""
    labels = context.data.labels[split][task]
    return labels if labels.ndim == 2 else one_hot(labels, context.data.tasks[task].num_classes).bool()
