"""Measure the cost of each loss and method: the time of a training step relative to plain cross-entropy.

    python scripts/bench_losses.py
    python scripts/bench_losses.py --backbone resnext3d_101 --frames 10 --size 112 --clips 2

First a training step of the backbone with cross-entropy, on random clips, measured per clip. Then each loss alone,
forward and backward on random logits, alternating with plain cross-entropy (BCE for multi-label losses); the last
column is the resulting factor on the step: ``1 + difference / (batch x seconds per clip)``. Last the whole step of
each method that has one of its own, alternating with the plain one, at ``--clips`` clips and 19 classes. Medians of
``--repeats`` and ``--steps`` pairs.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, optim

from data_tools.options import at_least
from hoi_train.core.batches import ClipBatch
from hoi_train.core.records import ClassCounts, ClassList, LabelKind, Split, Task
from hoi_train.data.class_sampling import Instance
from hoi_train.data.run_data import RunData
from hoi_train.data.samplers import EpochSampler
from hoi_train.losses import LOSSES, Loss
from hoi_train.losses.objective import Objective
from hoi_train.methods import METHODS
from hoi_train.methods.fit import Context, Features, Fit, Step
from hoi_train.models.backbones import BACKBONES
from hoi_train.models.heads import LinearHead
from hoi_train.models.recognizer import Recognizer, build_recognizer

# Methods with steps of their own, in their second stage if they have two; the other methods have plain steps.
STEPS: dict[str, dict[str, Any]] = {
    "crt": {"epochs": 1},
    "lws": {"epochs": 1},
    "oltr": {"epochs": 1},
    "l2rw": {},
    "mwn": {},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=at_least(1), nargs="+", default=[19, 50, 600])
    parser.add_argument("--batches", type=at_least(1), nargs="+", default=[32, 1024])
    parser.add_argument("--backbone", choices=BACKBONES, default="resnext3d_101")
    parser.add_argument("--frames", type=at_least(1), default=10)
    parser.add_argument("--size", type=at_least(1), default=112)
    parser.add_argument("--clips", type=at_least(1), default=2, help="clips of the measured steps")
    parser.add_argument("--repeats", type=at_least(1), default=30, help="pairs for a loss")
    parser.add_argument("--steps", type=at_least(1), default=5, help="pairs for a method")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    print(f"python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    clip_shape = (arguments.clips, 3, arguments.frames, arguments.size, arguments.size)
    seconds, methods = _methods(arguments.backbone, clip_shape, arguments.steps)
    print(
        f"{arguments.backbone}, {arguments.frames} frames of {arguments.size} x {arguments.size}, float32, "
        f"batch {arguments.clips}: {1000 * seconds:.0f} ms per clip with cross-entropy\n"
    )
    print("| loss | labels | classes | batch | ms | ms more than plain | part of the plain step |")
    print("|---|---|---|---|---|---|---|")
    for name, loss in LOSSES.items():
        for kind in sorted(loss.labels):
            for classes in arguments.classes:
                for batch in arguments.batches:
                    own, more = _loss(name, kind, classes, batch, arguments.repeats)
                    part = 1 + more / (batch * seconds)
                    cells = (name, kind, classes, batch, f"{1000 * own:.2f}", f"{1000 * more:.2f}", f"{part:.4f}")
                    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    print("\n| method | part of the plain step |\n|---|---|")
    for name, part in methods.items():
        print(f"| {name} | {part:.2f} |")


def _loss(name: str, kind: LabelKind, classes: int, batch: int, repeats: int) -> tuple[float, float]:
    """Return the seconds of forward and backward, and the difference to the plain loss of the label kind."""
    counts = [max(1000 // (rank + 1), 1) for rank in range(classes)]
    of = ClassCounts.single(counts) if kind == "single" else ClassCounts.multi(counts, 2000)
    logits = torch.randn(batch, classes, requires_grad=True)
    target = torch.randint(classes, (batch,)) if kind == "single" else (torch.rand(batch, classes) < 0.1).float()
    plain = LOSSES["cross_entropy" if kind == "single" else "bce"](of)

    def step(loss: Loss) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss.reduce(loss(logits, target), target), logits)

    ours, theirs = _pairs(step(LOSSES[name](of)), step(plain), repeats)
    return statistics.median(ours), statistics.median(a - b for a, b in zip(ours, theirs, strict=True))


def _pairs(one: Callable[[], object], other: Callable[[], object], repeats: int) -> tuple[list[float], list[float]]:
    """Return the seconds of both, measured alternately after three warm-up rounds."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats + 3):
        for times, function in zip(found, (one, other), strict=True):
            began = time.perf_counter()
            function()
            times.append(time.perf_counter() - began)
    return found[0][3:], found[1][3:]


class _Clips:
    """Random clips instead of files, with the interface of a loader that methods use."""

    def __init__(self, shape: tuple[int, ...], num_clips: int, batch_size: int) -> None:
        self.shape, self.sampler = shape, EpochSampler(num_clips, batch_size, 0)

    def select(self, rows: Tensor, batch_size: int) -> _Clips:
        return _Clips(self.shape, len(rows), batch_size)

    def training(self, epoch: int, start_batch: int, drawn: Tensor | None) -> Iterator[ClipBatch]:
        for _ in self.sampler.batches(epoch, start_batch, drawn):
            yield _batch(self.shape)


def _batch(shape: tuple[int, ...]) -> ClipBatch:
    video = torch.randint(0, 256, shape, dtype=torch.uint8)
    ids = torch.arange(len(video)) % 19
    return ClipBatch(video, {"verb": ids}, torch.arange(len(video)), tuple(map(str, ids.tolist())))


def _methods(backbone: str, shape: tuple[int, ...], repeats: int) -> tuple[float, dict[str, float]]:
    """Return the seconds per clip of the plain step, and each method's step relative to it."""
    task = Task("verb", ClassList(tuple(f"class {i}" for i in range(19))), "single")
    labels = torch.arange(19 * 20) % 19
    counts = ClassCounts.single([20] * 19)
    splits: tuple[Split, ...] = ("train", "val")
    data = RunData(
        tasks={"verb": task},
        counts={"train": {"verb": counts}},
        labels={split: {"verb": labels} for split in splits},
        loaders={split: _Clips(shape, len(labels), shape[0]) for split in splits},  # type: ignore[misc]
    )
    context = Context(
        data=data,
        epochs=2,
        batch_size=shape[0],
        seed=0,
        world_size=1,
        sampling=Instance(),
        make_head=lambda task, width: LinearHead(width, 19),
    )
    tasks = {"verb": task}
    network = build_recognizer(BACKBONES[backbone](), tasks, {"verb": LinearHead}, "kinetics_2020").train()
    objective = Objective({"verb": LOSSES["cross_entropy"](counts)})
    optimizer = optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    plain = _step(METHODS["fit"](context), network, objective, optimizer, shape)
    features = Features(torch.randn(len(labels), network.num_features), {"verb": labels})
    parts, seconds = {}, []
    for name, options in STEPS.items():
        method, own = METHODS[name](context, **options), copy.deepcopy(network)
        method.adapt(own)
        method.begin_stage(len(method.stages()) - 1, own, lambda _split: features)
        method.schedule(context.epochs - 1, own)
        method.begin_epoch(context.epochs - 1, 0, 10 * repeats + 10)
        trained = [parameter for parameter in own.parameters() if parameter.requires_grad]
        step = _step(method, own, objective, optim.SGD(trained, lr=1e-3, momentum=0.9), shape)
        ours, theirs = _pairs(step, plain, repeats)
        parts[name] = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        seconds += theirs
    return statistics.median(seconds) / shape[0], parts


def _step(
    method: Fit, network: Recognizer, objective: Objective, optimizer: optim.Optimizer, shape: tuple[int, ...]
) -> Callable[[], object]:
    batch = _batch(shape)
    step = Step(
        objective=lambda batch, logits, weights=None: objective(logits, batch.shares, weights)[0],
        losses=lambda batch, logits: objective.samples(logits, batch.targets),
        network=network,
        lr=1e-3,
        place=lambda batch: batch,
    )

    def make() -> None:
        optimizer.zero_grad(set_to_none=True)
        method.training_loss(network, batch, step).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return make


if __name__ == "__main__":
    main()
