"""The meta set: a few clips of every class, whose loss says how much each training clip should count."""

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
    """Choose a balanced set of clips once, and draw a batch of it for every training batch.

    The set is ``balanced_rows`` of the split: a function of data and seed. Each clip of a meta batch is drawn by
    class, all classes of the set equally often, and looks as training clips do, augmentation included; a batch is a
    function of (seed, epoch, number of the batch), and two ranks draw what one process with the doubled batch draws.
    So classes with fewer than ``per_class`` clips are in balance too: their clips come more often.

    ``val`` shares no clip with what is trained, as in the papers, which take the set from the training images; but the
    validation results are then those of clips that had a say in training. ``train`` leaves its clips among those that
    are trained, so that no rare class loses any: the set overlaps with them, and each of its clips speaks for itself.

    Args:
        context: the run.
        per_class: clips of each class.
        split: where they come from.
        task: whose classes are balanced; the run's first task if not given.
        batch_size: clips of a meta batch and rank; that of training if not given.

    Raises:
        ValueError: no such task, no such split, or a class that is trained has no clip in the split, so that nothing
            would speak for its clips.
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
                f"split: no clip in the split {split!r} carries {', '.join(classes)} (task {self.task}), so that "
                "nothing would speak for the training clips that do; use split: train"
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
    """Weigh each clip of a batch by what a meta batch says of it: ``loss = sum_i w_i l_i`` over all ranks.

    A subclass says what ``w`` is. The meta loss is the mean of the run's own losses, class weights included, over the
    meta batch, which is never mixed. Looking ahead trains no loss that learns from batches; the step then made does.

    Args:
        context: the run.
        per_class: clips of each class in the meta set.
        split: where they come from; ``MetaSet`` says what that means for training and validation.
        task: whose classes the meta set balances; the run's first task if not given.
        meta_batch_size: clips of a meta batch and rank; that of training if not given.
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
            raise ValueError("weighs whole clips, and these tasks are of pairs")
        self.meta_set = MetaSet(context, per_class=per_class, split=split, task=task, batch_size=meta_batch_size)
        self.meta: Iterator[ClipBatch] = iter(())

    def begin_epoch(self, epoch: int, batch: int, num_batches: int) -> None:
        """Go to the meta batch that belongs to the next training batch."""
        self.meta = self.meta_set.batches(epoch, batch, num_batches)

    def training_loss(self, model: nn.Module, batch: ClipBatch, step: Step) -> Tensor:
        """Return the weighted sum, times the number of ranks since gradients are averaged over them."""
        weights = self.weights(batch, step.place(next(self.meta)), step)
        return self.context.world_size * step.objective(batch, model(**batch.inputs), weights)

    @abstractmethod
    def weights(self, batch: ClipBatch, meta: ClipBatch, step: Step) -> Tensor:
        """Return this rank's weights, floating ``[N]`` without a graph."""


def balanced_rows(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Choose ``per_class`` clips of each class, or all it has, in an order that the seed gives.

    Classes choose from the rarest to the most common; clips that others have chosen count for every class they carry.
    So a single-label set is balanced, and in a multi-label one a class has more only through the rarer ones it
    occurs with.

    Args:
        labels: bool ``[N, C]``.
        per_class: at least 1.
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
    """Return which classes each clip carries, bool ``[N, C]``."""
    labels = context.data.labels[split][task]
    return labels if labels.ndim == 2 else one_hot(labels, context.data.tasks[task].num_classes).bool()
