"""Synthetic run directories: random predictions of stated quality, measured and logged as a training does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from hoi_train.core.records import ClassCounts, ClassList, EpochStats, LabelKind, Split, Task, TaskStats
from hoi_train.metrics import task_stats
from hoi_train.metrics.groups import TopK
from hoi_train.tracking.events import EventLog

VERBS = ("take", "put", "open", "close", "cut", "pour", "stir", "wipe")
COUNTS = (120, 90, 60, 40, 20, 10, 5, 3)


def make_task(labels: LabelKind, names: Sequence[str] = VERBS) -> Task:
    return Task("verb" if labels == "single" else "noun", ClassList(tuple(names)), labels)


def make_stats(task: Task, counts: Sequence[int], skill: Sequence[float], seed: int, majority: int = 3) -> TaskStats:
    """Measure random logits, raised by ``skill[c]`` where class c is true; no sample has the last class."""
    draw = torch.Generator().manual_seed(seed)
    rows = sum(counts) // 4
    weights = torch.tensor([*counts[:-1], 0], dtype=torch.float64)
    target = torch.multinomial(weights, rows, replacement=True, generator=draw)
    truth = torch.nn.functional.one_hot(target, len(counts)).float()
    logits = torch.randn(truth.shape, generator=draw) + truth * torch.tensor(skill)
    groups = TopK(k=majority)(ClassCounts.single(counts), task.classes)
    loss = 3 - sum(skill) / len(skill) / 2
    return task_stats(task, logits, target if task.labels == "single" else truth, groups, loss)


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a run directory and returns its path."""

    def make(
        name: str,
        labels: Sequence[LabelKind] = ("single",),
        tail: float = 1.0,
        epochs: int = 6,
        splits: Sequence[Split] = ("val", "test"),
        names: Sequence[str] = VERBS,
        counts: Sequence[int] = COUNTS,
        majority: int = 3,
    ) -> Path:
        tasks = [make_task(kind, names) for kind in labels]
        log = EventLog(tmp_path / name / "events.jsonl")
        log.write({"event": "start", "step": 0, "class_counts": {task.name: list(counts) for task in tasks}})
        for epoch in range(epochs):
            for step in (2 * epoch + 1, 2 * epoch + 2):
                log.write({"event": "train", "step": step, "epoch": epoch, "scalars": {"loss": 3 / step**0.5}})
            head = 4 * (epoch + 1) / epochs
            skill = [head if i < majority else head * tail for i in range(len(counts))]
            for split in splits if epoch == epochs - 1 else splits[:1]:
                stats = {task.name: make_stats(task, counts, skill, 10 * epoch, majority) for task in tasks}
                record = EpochStats(epoch, split, stats).to_json()
                log.write({"event": "evaluation", "step": 2 * epoch + 2, **record})
        log.close()
        return tmp_path / name

    return make


@pytest.fixture
def epoch_stats() -> EpochStats:
    """Return one evaluation of a single-label and a multi-label task; the last class has no sample."""
    tasks = [make_task("single"), make_task("multi")]
    return EpochStats(3, "val", {task.name: make_stats(task, COUNTS, [2.0] * 8, seed=1) for task in tasks})
