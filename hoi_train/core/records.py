"""Records used throughout the package: frozen dataclasses that validate themselves.

Shape letters used throughout: N samples, C classes, T frames, H height, W width, S side of the network's input.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hoi_train.core.strict_json import finite, number

if TYPE_CHECKING:  # importing torch takes seconds, which processes that only decode do not need
    from torch import Tensor

LabelKind = Literal["single", "multi"]
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
ClassGroups = Mapping[str, tuple[int, ...]]
"""Class ids by the name of their group: any number of groups, the most frequent classes first, ids ascending."""


class UserError(Exception):
    """An error in the user's input; commands print its message without a traceback."""


class ClipError(UserError):
    """A clip that cannot be read. The message names the clip, its file and the cause."""


def nearest(name: str, allowed: Sequence[str]) -> str:
    """Return a hint such as ``; did you mean 'take'?``, or an empty string."""
    close = difflib.get_close_matches(name, allowed, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown_task(name: str, known: Iterable[str]) -> str:
    """Return the message about an option ``task`` that is not one of the run's tasks."""
    tasks = list(known)
    return f"task: no task {name!r}; this run has {', '.join(tasks)}{nearest(name, tasks)}"


@dataclass(frozen=True)
class ClassList:
    """The class names of one task in their official order; a class id is a position, from 0."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("a class list needs at least one class")
        if repeated := sorted(name for name, count in Counter(self.names).items() if count > 1):
            raise ValueError(f"class names must be unique, repeated: {repeated}")
        if any(not name or name != name.strip() for name in self.names):
            raise ValueError("class names must not be empty or have blanks around them")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def index(self, name: str) -> int:
        """Return the id of a class; raises ``ValueError`` with the nearest name."""
        try:
            return self.names.index(name)
        except ValueError:
            raise ValueError(f"unknown class {name!r}{nearest(name, self.names)}") from None


@dataclass(frozen=True)
class Task:
    """A recognition task.

    Args:
        name: of the task.
        classes: in their order.
        labels: ``single``, one class per row, or ``multi``, any number.
        of: what is labelled.
        mirrored: pairs of class ids that mirroring exchanges, such as left and right.
    """

    name: str
    classes: ClassList
    labels: LabelKind
    of: Literal["clip", "pair"] = "clip"
    mirrored: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        ids = [class_id for pair in self.mirrored for class_id in pair]
        if len(set(ids)) != len(ids):
            raise ValueError(f"task {self.name!r}: mirrored names a class twice")

    @property
    def in_mirror(self) -> Tensor:
        """The class of each class after mirroring, int64 ``[C]``."""
        import torch

        ids = torch.arange(self.num_classes)
        for one, other in self.mirrored:
            ids[one], ids[other] = other, one
        return ids

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.classes)


@dataclass(frozen=True)
class ClassCounts:
    """Class counts of the training split, from which losses and class groups are built.

    Args:
        positives: training samples with each class, C non-negative integers.
        num_samples: number of training samples; equals the sum of ``positives`` for single-label tasks.
        labels: ``"single"`` (one class per sample) or ``"multi"`` (any number, also none).
    """

    positives: tuple[int, ...]
    num_samples: int
    labels: LabelKind

    def __post_init__(self) -> None:
        if not self.positives or min(self.positives) < 0:
            raise ValueError(f"class counts must be C >= 1 non-negative integers, got {self.positives}")
        if self.labels == "single" and sum(self.positives) != self.num_samples:
            raise ValueError(f"single-label counts sum to {sum(self.positives)}, not to {self.num_samples = }")
        if max(self.positives) > self.num_samples:
            raise ValueError(f"a class occurs {max(self.positives)} times in {self.num_samples} samples")

    @classmethod
    def single(cls, positives: Sequence[int]) -> ClassCounts:
        """Build the counts of a single-label task."""
        return cls(tuple(int(n) for n in positives), sum(int(n) for n in positives), "single")

    @classmethod
    def multi(cls, positives: Sequence[int], num_samples: int) -> ClassCounts:
        """Build the counts of a multi-label task with ``num_samples`` rows."""
        return cls(tuple(int(n) for n in positives), num_samples, "multi")

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.positives)

    def tensor(self) -> Tensor:
        """Return the positives as float64 ``[C]``."""
        import torch

        return torch.tensor(self.positives, dtype=torch.float64)


@dataclass(frozen=True)
class Clip:
    """A labelled clip.

    Args:
        clip_id: unique in the manifest.
        path: video file or folder of numbered frame images; absolute.
        start, end: seconds in the file, ``end`` exclusive; ``None`` is the file's own start or end.
        split: ``train``, ``val`` or ``test``.
        group: subject or source video, whose clips must all be in one split; ``None`` if unknown.
        labels: by task the class id (single-label) or the ascending class ids (multi-label).
        num_frames: number of frames of the whole file, if known.
        fps: frames per second of a frame folder; ``None`` for video files, which have their own times.
        size: width and height in pixels of the upright frames in which boxes were annotated, if known.
    """

    clip_id: str
    path: Path
    split: Split
    labels: Mapping[str, int | tuple[int, ...]]
    start: float | None = None
    end: float | None = None
    group: str | None = None
    num_frames: int | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"clip {self.clip_id!r}: split {self.split!r} is not one of {', '.join(SPLITS)}")
        for name, value in (("start", self.start), ("end", self.end)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"clip {self.clip_id!r}: {name} must be seconds >= 0, got {value}")
        if self.end is not None and (self.start or 0.0) >= self.end:
            raise ValueError(f"clip {self.clip_id!r}: start {self.start} is not before end {self.end}")


@dataclass(frozen=True)
class PairAnnotation:
    """A person and an object in one frame of a clip, with their predicates.

    Args:
        frame: number of the frame in the clip, from 0.
        person_id, object_id: track ids in the clip.
        person_box, object_box: ``(x0, y0, x1, y1)`` in pixels of the frame, ``x0 < x1``, ``y0 < y1``.
        object_class: name of the object's class.
        predicates: names of the predicates that hold, possibly none.
    """

    frame: int
    person_id: int
    object_id: int
    person_box: tuple[float, float, float, float]
    object_box: tuple[float, float, float, float]
    object_class: str
    predicates: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, (x0, y0, x1, y1) in (("person_box", self.person_box), ("object_box", self.object_box)):
            if not (x0 < x1 and y0 < y1):
                raise ValueError(f"{name} {(x0, y0, x1, y1)} is not x0 < x1, y0 < y1")


@dataclass(frozen=True)
class Track:
    """The boxes of one person or object, one per frame.

    Args:
        track_id: the ``person_id`` or ``object_id`` of its pairs; unique in the file.
        start_frame: number of the file's first frame with a box, from 0.
        boxes: floating ``[B, 4]``, B >= 1, ``(x0, y0, x1, y1)`` in pixels of the file's frame, ``x0 < x1``,
            ``y0 < y1``, one per frame from ``start_frame`` on.
    """

    track_id: int
    start_frame: int
    boxes: Tensor

    def __post_init__(self) -> None:
        name, boxes = f"track {self.track_id}", self.boxes
        if self.start_frame < 0:
            raise ValueError(f"{name}: start_frame must be at least 0, got {self.start_frame}")
        if not (boxes.ndim == 2 and boxes.shape[1] == 4 and len(boxes) and boxes.is_floating_point()):
            raise ValueError(f"{name}: boxes must be floating [B >= 1, 4], got {boxes.dtype} {boxes.shape}")
        if not (boxes.isfinite().all() and (boxes[:, :2] < boxes[:, 2:]).all()):
            raise ValueError(f"{name}: a box is not finite x0 < x1, y0 < y1")

    def boxes_at(self, frames: Tensor) -> Tensor:
        """Return the boxes, ``[T, 4]``, in frames of the file, int64 ``[T]`` from 0; beyond the ends the nearest."""
        return self.boxes[(frames - self.start_frame).clamp(0, len(self.boxes) - 1)]


@dataclass(frozen=True)
class TaskStats:
    """The results of one task on one split: per-class vectors, and the averages made from them.

    Args:
        task: what was evaluated.
        num_samples: rows evaluated, each clip (or pair) counted once.
        support: int64 ``[C]``, evaluated rows that carry each class.
        vectors: float64 ``[C]`` each: ``recall``, ``precision``, ``f1``, ``ap`` in 0..1; nan where undefined.
        scalars: averages by name (``top1``, ``recall_macro``, ``recall_minority``, ``loss`` …); nan where undefined.
        groups: class ids of each group, such as ``majority`` and ``minority``; any number of groups.
        confusion: int64 ``[C, C]``, rows truth, columns prediction; single-label only.
    """

    task: Task
    num_samples: int
    support: Tensor
    vectors: Mapping[str, Tensor]
    scalars: Mapping[str, float]
    groups: ClassGroups = field(default_factory=dict)
    confusion: Tensor | None = None

    def __post_init__(self) -> None:
        for name, vector in self.vectors.items():
            if vector.shape != (self.task.num_classes,):
                raise ValueError(f"{self.task.name}/{name} must be [{self.task.num_classes}], got {vector.shape}")

    def to_json(self) -> dict[str, Any]:
        """Return all but the scalars as plain lists; nan becomes ``None``, since JSON has no nan."""
        return {
            "classes": list(self.task.classes),
            "num_samples": self.num_samples,
            "support": self.support.tolist(),
            **{name: finite(vector.tolist()) for name, vector in self.vectors.items()},
            "groups": {name: list(ids) for name, ids in self.groups.items()},
            "confusion": None if self.confusion is None else self.confusion.tolist(),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any], task: Task, scalars: Mapping[str, float]) -> TaskStats:
        """Return the results that `to_json` wrote, with the task and the scalars that it leaves out."""
        import torch

        vectors = record.keys() - {"classes", "num_samples", "support", "groups", "confusion"}
        confusion = record["confusion"]
        return cls(
            task=task,
            num_samples=record["num_samples"],
            support=torch.tensor(record["support"], dtype=torch.int64),
            vectors={
                name: torch.tensor([number(value) for value in values], dtype=torch.float64)
                for name, values in record.items()
                if name in vectors
            },
            scalars=scalars,
            groups={name: tuple(ids) for name, ids in record["groups"].items()},
            confusion=None if confusion is None else torch.tensor(confusion, dtype=torch.int64),
        )


@dataclass(frozen=True)
class EpochStats:
    """The result of one evaluation: every task's statistics on one split after one epoch (from 0)."""

    epoch: int
    split: Split
    tasks: Mapping[str, TaskStats]

    def scalars(self) -> dict[str, float]:
        """Return every average under ``task/name``, for example ``verb/recall_minority``."""
        return {f"{task}/{name}": v for task, stats in self.tasks.items() for name, v in stats.scalars.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the record with plain values, as the event log keeps it."""
        tasks = {task: stats.to_json() for task, stats in self.tasks.items()}
        return {"epoch": self.epoch, "split": self.split, "scalars": finite(self.scalars()), "tasks": tasks}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], tasks: Mapping[str, Task]) -> EpochStats:
        """Return the evaluation that `to_json` wrote.

        Args:
            record: an evaluation record of an event log, or an ``evaluation_<split>.json``.
            tasks: the run's tasks, see `recorded_tasks`. For a task that is not listed, as in the logs of old
                runs, the label kind follows from the confusion matrix, which only single-label tasks have.
        """
        found = {}
        for name, entry in record["tasks"].items():
            kind: LabelKind = "multi" if entry["confusion"] is None else "single"
            task = tasks.get(name) or Task(name, ClassList(tuple(entry["classes"])), kind)
            prefix = f"{name}/"
            own = {key.removeprefix(prefix): v for key, v in record["scalars"].items() if key.startswith(prefix)}
            found[name] = TaskStats.from_json(entry, task, {key: number(value) for key, value in own.items()})
        return cls(record["epoch"], record["split"], found)


def recorded_tasks(start: Mapping[str, Any]) -> dict[str, Task]:
    """Return the tasks that the start record of a run describes; empty if it is too old to do so."""
    return {
        name: Task(name, ClassList(tuple(start["classes"][name])), labels, start["of"][name])
        for name, labels in start.get("labels", {}).items()
    }
