"""A small run in memory for the tests of methods with a meta set, and their mathematics by double backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import one_hot

from hoi_train.core.batches import ClipBatch
from hoi_train.core.records import ClassCounts, ClassList, LabelKind, Split, Task
from hoi_train.data.class_sampling import Instance
from hoi_train.data.run_data import RunData
from hoi_train.data.samplers import EpochSampler
from hoi_train.losses import LOSSES
from hoi_train.losses.objective import Objective
from hoi_train.methods.fit import Context, Step
from hoi_train.models.preprocessing import PREPROCESSING
from hoi_train.models.recognizer import Recognizer

NUM_CLASSES = 3
LABELS: dict[Split, list[int]] = {"train": [0] * 9 + [1] * 4 + [2] * 3, "val": [0, 1, 2, 0, 1, 2, 0, 1]}


@dataclass(frozen=True)
class Rows:
    """A batch of floating rows in place of clips, for networks that are called as ``network(video=rows)``."""

    video: Tensor
    targets: Mapping[str, Tensor]
    clip_ids: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.video)

    @property
    def inputs(self) -> dict[str, Tensor]:
        return {"video": self.video}

    @property
    def shares(self) -> list[tuple[Mapping[str, Tensor], float]]:
        return [(self.targets, 1.0)]

    def blend(self, function: Callable[[Mapping[str, Tensor]], Tensor]) -> Tensor:
        return function(self.targets)


class Linear(nn.Module):
    """Map rows to the logits of the one task ``verb``."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, video: Tensor) -> dict[str, Tensor]:
        return {"verb": video @ self.weight.T + self.bias}


class Videos:
    """Videos that are functions of split and row; a loader of them without files."""

    def __init__(self, rows: Tensor, split: Split, kind: LabelKind, batch_size: int, rank: int, world: int) -> None:
        self.rows, self.split, self.kind = rows, split, kind
        self.rank, self.world, self.batch_size = rank, world, batch_size

    def select(self, rows: Tensor, batch_size: int) -> Videos:
        return Videos(rows, self.split, self.kind, batch_size, self.rank, self.world)

    def training(self, epoch: int, start: int, drawn: Tensor | None) -> Iterator[ClipBatch]:
        sampler = EpochSampler(len(self.rows), self.batch_size, 0, self.rank, self.world)
        for items in sampler.batches(epoch, start, drawn):
            yield clips(self.split, [int(self.rows[item.clip]) for item in items], self.kind)


def labels(split: Split, kind: LabelKind) -> Tensor:
    """Return class ids, or multi-hot labels in which every third clip carries the next class too."""
    ids = torch.tensor(LABELS[split])
    if kind == "single":
        return ids
    hot = one_hot(ids, NUM_CLASSES).bool()
    return hot | (hot.roll(1, 1) & (torch.arange(len(ids)) % 3 == 0)[:, None])


def clips(split: Split, rows: list[int], kind: LabelKind) -> ClipBatch:
    """Return the clips of some rows, 2 frames of 8 x 8."""
    draws = [torch.Generator().manual_seed(1000 * (split == "val") + row) for row in rows]
    video = torch.stack([torch.randint(0, 256, (3, 2, 8, 8), generator=draw, dtype=torch.uint8) for draw in draws])
    target = labels(split, kind)[rows]
    target = target if kind == "single" else target.float()
    return ClipBatch(video, {"verb": target}, torch.tensor(rows), tuple(f"{split}_{row}" for row in rows))


def context(kind: LabelKind = "single", batch_size: int = 4, rank: int = 0, world: int = 1, **changes: Any) -> Context:
    """Return a run of the task ``verb``."""
    own = {split: {"verb": labels(split, kind)} for split in LABELS}
    data = RunData(
        tasks={"verb": Task("verb", ClassList(("take", "put", "pour")), kind)},
        counts={"train": {"verb": counts(kind)}},
        labels=own,
        loaders={split: Videos(torch.arange(0), split, kind, 1, rank, world) for split in own},  # type: ignore[misc]
    )
    parts = {field.name for field in fields(RunData)} & changes.keys()
    settings: dict[str, Any] = {
        "data": replace(data, **{name: changes.pop(name) for name in parts}),
        "epochs": 3,
        "batch_size": batch_size,
        "seed": 3,
        "world_size": world,
        "sampling": Instance(),
        "make_head": None,
    }
    return Context(**{**settings, **changes})


def counts(kind: LabelKind) -> ClassCounts:
    """Return the class counts of the training split."""
    of = labels("train", kind)
    return ClassCounts.single(of.bincount().tolist()) if kind == "single" else ClassCounts.multi(of.sum(0).tolist(), 16)


def network(norm: bool = False, dropout: float = 0.0) -> Recognizer:
    """Return a small convolutional recognizer in float64, in training mode."""
    torch.manual_seed(1)
    first = nn.Conv3d(3, 4, 3, stride=(1, 2, 2), padding=1)
    norms = [nn.BatchNorm3d(4)] if norm else []
    backbone = nn.Sequential(first, *norms, nn.Tanh(), nn.Conv3d(4, 6, 3, padding=1), nn.Softplus())
    backbone.num_features = 6  # type: ignore[assignment]
    head = nn.Sequential(nn.Dropout(dropout), nn.Linear(6, NUM_CLASSES))
    return Recognizer(backbone, {"verb": head}, PREPROCESSING["kinetics_2020"]).double().train()


def objective(loss: str, kind: LabelKind) -> Objective:
    """Return the objective of one task with a loss of the table."""
    return Objective({"verb": LOSSES[loss](counts(kind))}).train()


def step(net: nn.Module, of: Objective, lr: float = 0.1) -> Step:
    """Return a step as the loop makes it."""

    def total(batch: ClipBatch, logits: Mapping[str, Tensor], weights: Tensor | None = None) -> Tensor:
        return cast(Tensor, of(logits, batch.shares, weights)[0])

    def losses(batch: ClipBatch, logits: Mapping[str, Tensor]) -> Tensor:
        return batch.blend(lambda targets: of.samples(logits, targets))

    return Step(total, losses, cast(Recognizer, net), lr, lambda batch: batch)


def by_double_backward(
    net: nn.Module, batch: Any, meta: Any, of: Objective, lr: float, coefficients: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the inner loss's coefficients' loss as the papers have it: through the graph of an explicit inner step.

    ``coefficients`` gives the inner loss's weights of the samples from their losses. Returned are the losses of the
    batch and the meta loss after the step, with their graphs.
    """
    now = dict(net.named_parameters())
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    losses = of.samples(functional_call(net, (now, buffers), kwargs=batch.inputs), batch.targets)
    inner = (coefficients(losses) * losses).sum()
    gradients = torch.autograd.grad(inner, list(now.values()), create_graph=True)
    ahead = {name: value - lr * found for (name, value), found in zip(now.items(), gradients, strict=True)}
    logits = functional_call(net, (ahead, buffers), kwargs=meta.inputs)
    return losses, of.samples(logits, meta.targets).mean()
