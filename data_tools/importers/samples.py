"""What every importer reads into: a ``Sample`` per row of the manifest, however the clips were annotated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hoi_train.core.records import ClassList, LabelKind, Split, UserError
from hoi_train.data.manifest.problems import Problems


@dataclass(frozen=True)
class Options:
    """What every importer is told.

    Args:
        videos: folder of the videos, which paths in the manifest are relative to.
        out: folder for the manifest.
        val_fraction: if no val clips are annotated, this fraction of train becomes val, by group where there are
            groups, else by class; by default 0.2 (vidhoi and vidor: 0.1; egtea: see --val-subjects).
        seed: random seed of the draw for --val-fraction.
        keep_missing: list clips whose videos are not on disk, too.
        fps: frames per second of frame folders, where the annotation does not give it or gives another one.
    """

    videos: Path
    out: Path
    val_fraction: float | None = None
    seed: int = 0
    keep_missing: bool = False
    fps: float | None = None

    def __post_init__(self) -> None:
        if not self.videos.is_dir():
            raise UserError(f"{self.videos} is not a folder; it must be that of the videos")
        if self.val_fraction is not None and not 0 <= self.val_fraction < 1:
            raise UserError(f"--val-fraction must be at least 0 and below 1, got {self.val_fraction:g}")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise UserError(f"--fps must be frames per second above 0, got {self.fps:g}")


@dataclass(frozen=True)
class Detected:
    """What was detected in a video: Arrow arrays of one list each, of the types ``DETECTED`` and ``TRACKS``."""

    pairs: Any
    tracks: Any


@dataclass(frozen=True)
class Sample:
    """A labelled video, or a stretch of one, as annotated.

    Args:
        clip_id: unique.
        video: what is looked for on disk, in the way of ``lookup``.
        split: ``train``, ``val`` or ``test``.
        labels: for each task of clips the name of a class, or the names of any number.
        file: where it was annotated.
        row: line or row of ``file``, from 1; ``None`` for the whole file.
        unit: what ``row`` counts.
        lookup: ``path``: ``video`` is a path below the data root; ``stem``: such a path without its suffix; ``name``:
            the name, without suffix, of a video anywhere below the data root.
        group: what no split may tear apart.
        start, end: seconds in the video.
        num_frames: frames of the whole video, where the annotation counts them.
        fps: frames per second of its frame folder, where the annotation gives it.
        size: width and height in pixels of the frames that boxes were annotated in.
        pairs, tracks: Arrow arrays of one list each, of the types ``PAIRS`` and ``TRACKS``.
        detected: what a detector found in the video.
    """

    clip_id: str
    video: str
    split: Split
    labels: Mapping[str, str | Sequence[str]]
    file: Path
    row: int | None = None
    unit: Literal["line", "row"] = "line"
    lookup: Literal["path", "stem", "name"] = "path"
    group: str | None = None
    start: float | None = None
    end: float | None = None
    num_frames: int | None = None
    fps: float | None = None
    size: tuple[int, int] | None = None
    pairs: Any = None
    tracks: Any = None
    detected: Detected | None = None

    def names(self, task: str) -> Sequence[str]:
        """Return the labels of a task as a sequence."""
        labels = self.labels[task]
        return (labels,) if isinstance(labels, str) else labels


TaskClasses = Mapping[str, tuple[Sequence[str], LabelKind]]


@dataclass
class Reading:
    """The samples of an annotation and what they mean.

    Args:
        samples: read once; in the order of the manifest within each split.
        classes: for each task the class names in their order, and how many of them a sample has.
        problems: what is wrong with the annotation; complete once all samples were read.
        remarks: what is left out, or odd but allowed, and how often; complete once all samples were read.
        notes: what else the user should know.
        val_fraction: the default of the option.
        val_by: what the draw of val keeps whole: the group, or only the clip.
        object_classes: classes of the objects of pairs; if given, the task is one of pairs.
    """

    samples: Iterable[Sample]
    classes: TaskClasses
    problems: Problems
    remarks: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    val_fraction: float = 0.2
    val_by: Literal["group", "clip"] = "group"
    object_classes: ClassList | None = None
