"""Measure a training step: a bare PyTorch loop, the application with the same settings, and with its best settings.

    python scripts/bench_step.py                                # 3D-ResNeXt-101, 10 frames of 112 x 112, two clips
    python scripts/bench_step.py --size 224 --clips 1 --compile
    python scripts/bench_step.py --clips 8 --steps 1 --ranks

Each peer is a process; they take turns in shuffled rounds, and the first round is dropped. All train on random clips in
memory, so that only the step is measured:

- ``bare``: forward, cross-entropy, backward and SGD written out, in float32.
- ``same``: the application's loop in float32, with its checks, metrics, log and progress bar.
- ``best``: the same loop in bfloat16 with ``channels_last``.
- ``compiled``: ``best`` with ``training.compile``, if requested.
- ``ranks``: ``same`` as two gloo ranks, each with half of the clips and half of the threads, if requested.

Milliseconds per clip are medians over rounds; ratios are medians of the ratio to ``bare`` in the same round, with their
range. Memory is the most that a process held beyond what it held before its first step (of a GPU: allocated).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from socket import create_server
from statistics import median
from typing import Any

import torch
from rich.console import Console
from torch import nn

from data_tools.options import at_least
from hoi_train.config import RunConfig
from hoi_train.core.batches import ClipBatch
from hoi_train.core.records import ClassCounts, ClassList, Task
from hoi_train.data.loader import ClipLoader
from hoi_train.data.run_data import RunData
from hoi_train.engine.experiment import compose
from hoi_train.engine.loop import Loop
from hoi_train.engine.run import open_run
from hoi_train.engine.tasks import make_groups
from hoi_train.engine.train import launch
from hoi_train.models.backbones import BACKBONES
from hoi_train.models.heads import LinearHead
from hoi_train.models.preprocessing import PREPROCESSING
from hoi_train.models.recognizer import Recognizer

TASK = Task("verb", ClassList(tuple(f"class {number}" for number in range(51))), "single")
OPTIMIZER: dict[str, Any] = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4}
SETTINGS: dict[str, dict[str, Any]] = {
    "bare": {},
    "same": {},
    "best": {"precision": "bf16-mixed", "channels_last": True},
    "compiled": {"precision": "bf16-mixed", "channels_last": True, "compile": True},
    "ranks": {},
}


@dataclass(frozen=True)
class Work:
    """The work of every peer in a round."""

    backbone: str
    frames: int
    size: int
    clips: int
    steps: int
    threads: int

    def batch(self) -> ClipBatch:
        """Return random clips as the loader does: uint8, with the channels of a pixel adjacent."""
        draw = torch.Generator().manual_seed(0)
        shape = (self.clips, self.frames, self.size, self.size, 3)
        video = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw).permute(0, 4, 1, 2, 3)
        indices = torch.arange(self.clips)
        return ClipBatch(video, {TASK.name: indices % TASK.num_classes}, indices, tuple(map(str, indices.tolist())))


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=BACKBONES, default="resnext3d_101")
    parser.add_argument("--frames", type=at_least(1), default=10, metavar="T")
    parser.add_argument("--size", type=at_least(1), default=112, metavar="PX")
    parser.add_argument("--clips", type=at_least(1), default=2, metavar="N", help="clips a step (%(default)s)")
    parser.add_argument("--steps", type=at_least(1), default=4, metavar="N", help="steps a turn (%(default)s)")
    parser.add_argument("--rounds", type=at_least(1), default=7, metavar="N", help="rounds that count (%(default)s)")
    parser.add_argument(
        "--threads", type=at_least(1), default=torch.get_num_threads(), metavar="N", help="(%(default)s)"
    )
    parser.add_argument("--compile", action="store_true", help="measure the compiled network, too")
    parser.add_argument("--ranks", action="store_true", help="measure two ranks, too")
    given = parser.parse_args()
    if given.ranks and (given.clips % 2 or given.threads % 2):
        parser.error(f"--ranks halves clips and threads: they must be even, got {given.clips} and {given.threads}")
    work = Work(given.backbone, given.frames, given.size, given.clips, given.steps, given.threads)
    names = [name for name in SETTINGS if vars(given).get({"compiled": "compile"}.get(name, name), True)]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    print(f"python {platform.python_version()}, torch {torch.__version__}, {device}, {work.threads} threads")
    print(f"{json.dumps(asdict(work))}, {given.rounds} rounds\n")
    print(table(take_turns(names, work, given.rounds)))
    return 0


def take_turns(names: list[str], work: Work, rounds: int) -> dict[str, tuple[list[float], float]]:
    """Let the peers measure in turn.

    Returns:
        For each peer the milliseconds per clip in each round, and the memory in MiB.
    """
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[str, list[Connection[Any, Any]]] = {name: [] for name in names}
    for name in names:
        for part, environment in _parts(name, work):
            pipe, theirs = spawn.Pipe()
            pipes[name].append(pipe)
            spawn.Process(target=_serve, args=(name, part, theirs, environment), daemon=True).start()
            theirs.close()  # so that the end of the process is noticed
    found: dict[str, list[float]] = {name: [] for name in names}
    order = random.Random(0)
    for number in range(rounds + 1):
        for name in order.sample(names, len(names)):
            for pipe in pipes[name]:
                pipe.send(True)
            seconds = max(pipe.recv() for pipe in pipes[name])
            if number:
                found[name].append(1000 * seconds / (work.steps * work.clips))
    for pipe in (pipe for peer in pipes.values() for pipe in peer):
        pipe.send(False)
    return {name: (found[name], sum(pipe.recv() for pipe in peer)) for name, peer in pipes.items()}


def _parts(name: str, work: Work) -> list[tuple[Work, dict[str, str]]]:
    """Return the processes of a peer: the work of each, and the environment that ``torchrun`` would set."""
    if name != "ranks":
        return [(work, {})]
    with create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    shared = {"TORCHELASTIC_RUN_ID": name, "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    shared |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    half = replace(work, clips=work.clips // 2, threads=work.threads // 2)
    return [(half, {**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]


def table(found: dict[str, tuple[list[float], float]]) -> str:
    """Return the measurements as Markdown."""
    lines = ["| | ms per clip | times as fast as bare | MiB per step |", "|---|---|---|---|"]
    bare = found["bare"][0]
    for name, (times, memory) in found.items():
        ratios = [theirs / own for theirs, own in zip(bare, times, strict=True)]
        spread = f"{median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f})"
        lines.append(f"| {name} | {median(times):.0f} | {spread} | {memory:.0f} |")
    return "\n".join(lines)


class _Over(Exception):  # noqa: N818 - not an error
    """Raised when a peer has no more turns."""


def _serve(name: str, work: Work, pipe: Connection[Any, Any], environment: dict[str, str]) -> None:
    """Take a turn on each request; report at the end how much memory the steps took."""
    os.environ.update(environment)
    torch.set_num_threads(work.threads)
    network = _network(work)
    before = _peak()
    with tempfile.TemporaryDirectory() as folder, suppress(_Over):
        if name == "bare":
            _train_bare(network, _turns(work, pipe))
        else:
            _train(network, work, _turns(work, pipe), {**SETTINGS[name], "threads": work.threads}, Path(folder))
    pipe.send(_peak() - before)


def _turns(work: Work, pipe: Connection[Any, Any]) -> Iterator[ClipBatch]:
    """Yield the batches of a turn when it begins, and report the seconds until the next one is requested."""
    batch = work.batch()
    while pipe.recv():
        began = time.perf_counter()
        for _ in range(work.steps):
            yield batch
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        pipe.send(time.perf_counter() - began)
    raise _Over


def _peak() -> float:
    """Return the most memory held so far, in MiB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _network(work: Work) -> Recognizer:
    torch.manual_seed(0)
    backbone: Any = BACKBONES[work.backbone]().build()
    head = LinearHead(backbone.num_features, TASK.num_classes)
    return Recognizer(backbone, {TASK.name: head}, PREPROCESSING["kinetics_2020"])


def _train_bare(network: nn.Module, batches: Iterator[ClipBatch]) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.train().to(device)
    optimizer = torch.optim.SGD(network.parameters(), **OPTIMIZER)
    for batch in batches:
        logits = network(batch.video.to(device, memory_format=torch.contiguous_format))[TASK.name]
        loss = nn.functional.cross_entropy(logits, batch.targets[TASK.name].to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


class _Memory(ClipLoader):
    """Provide batches from memory instead of clips from files."""

    def __init__(self, batches: Iterator[ClipBatch], clips: Sequence[None], batch_size: int) -> None:
        super().__init__(_Seeded(clips), batch_size)  # type: ignore[arg-type]
        self.given = batches

    def _batches(self, items: Any) -> Iterator[ClipBatch]:
        return self.given


class _Seeded(list[None]):
    seed, num_views = 0, 1


def _train(
    network: Recognizer, work: Work, batches: Iterator[ClipBatch], training: dict[str, Any], folder: Path
) -> None:
    """Train as ``hoi-train train`` does, for one endless epoch."""
    clips = _Seeded([None] * (10_000 * work.clips))
    augment = {"name": "augment", "size": work.size}
    raw = {
        "name": "bench",
        "runs": str(folder),
        "data": {"manifest": "none", "train": augment, "evaluation": "center_crop"},
        "model": {"backbone": work.backbone},
        "tasks": {TASK.name: {}},
        "loss": "cross_entropy",
        "optimizer": {"name": "sgd", **OPTIMIZER},
        "training": {"epochs": 1, "batch_size": work.clips, **training},
        "checkpoints": {"every_minutes": 1e6},
        "wandb": {"mode": "disabled"},
    }
    config = RunConfig.model_validate_json(json.dumps(raw))
    counts = {TASK.name: ClassCounts.single([1] * TASK.num_classes)}
    loader = _Memory(batches, clips, work.clips)
    data = RunData(
        tasks={TASK.name: TASK},
        counts={"train": counts, "val": counts, "test": counts},
        labels={"train": {TASK.name: torch.arange(len(clips)) % TASK.num_classes}},
        loaders={"train": loader},
        groups={TASK.name: make_groups(config, TASK, {"train": counts[TASK.name]})},
    )
    experiment = compose(config, data, lambda: network)
    if config.training.channels_last:
        network.to(memory_format=torch.channels_last_3d)
    fabric = launch(config.training)
    with open_run(config, writer=fabric.global_rank == 0) as run, Path(os.devnull).open("w") as nowhere:
        Loop(experiment, fabric, run, Console(file=nowhere, force_terminal=True)).fit()


if __name__ == "__main__":
    sys.exit(main())
