"""What the loss tests share: one example of each kind of task, and a validation with given recalls."""

from __future__ import annotations

import torch
from torch import Tensor

from hoi_train.core.records import ClassCounts, ClassList, LabelKind, Task, TaskStats
from hoi_train.losses import LOSSES, Loss

SINGLE = ClassCounts.single([900, 60, 7, 0])
MULTI = ClassCounts.multi([900, 60, 7, 0], num_samples=1000)
COUNTS: dict[LabelKind, ClassCounts] = {"single": SINGLE, "multi": MULTI}
ACROSS_SAMPLES = {"two_way"}  # each class's samples of the batch are compared, so that rows are not on their own
KINDS = [(name, kind) for name, loss in LOSSES.items() for kind in sorted(loss.labels)]


def make(name: str, kind: LabelKind) -> Loss:
    """Build a loss of the table with its defaults; CDB after a validation, so that its weights differ.

    What learns from batches has learnt from one, and in ``eval`` mode what draws does not: every loss is a function.
    """
    loss = LOSSES[name](COUNTS[kind])
    if name in ("cdb_ce", "cdb_bce"):
        loss.after_validation(validation([0.9, 0.5, 0.25, 0.0]))
    loss(*batch(kind, num_samples=64, seed=1))
    return loss.eval()


def batch(kind: LabelKind, num_samples: int = 5, num_classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw float64 logits and targets; in multi-label batches the second row is all negative."""
    draw = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(num_samples, num_classes, generator=draw, dtype=torch.float64)
    if kind == "single":
        return logits, torch.randint(num_classes, (num_samples,), generator=draw)
    target = (torch.rand(num_samples, num_classes, generator=draw) < 0.4).double()
    target[1:2] = 0
    return logits, target


def training(kind: LabelKind) -> list[tuple[Tensor, Tensor]]:
    """Return the batches of four steps."""
    return [batch(kind, num_samples=8, seed=seed) for seed in range(4)]


def validation(recall: list[float]) -> TaskStats:
    """Return the statistics of a validation that measured these recalls; nan for a class without samples."""
    classes = ClassList(tuple(f"class {i}" for i in range(len(recall))))
    values = torch.tensor(recall, dtype=torch.float64)
    support = torch.where(values.isnan(), 0, 100)
    return TaskStats(Task("verb", classes, "single"), int(support.sum()), support, {"recall": values}, {})


def gradient(loss: Loss, logits: Tensor, target: Tensor) -> Tensor:
    """Return the gradient of the reduced loss with respect to the logits."""
    logits = logits.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(loss.reduce(loss(logits, target), target), logits)
    return found
