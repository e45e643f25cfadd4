"""Labelled stretches of videos, however they were annotated, and their way into a manifest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from data_tools.sources import (
    VIDEO_SUFFIXES,
    Imported,
    count_images,
    find_clips,
    is_clip,
    is_video,
    with_val,
    write_import,
)
from hoi_train.core.paths import inside, is_plain
from hoi_train.core.records import ClassList, LabelKind, Split, Task, UserError
from hoi_train.data.manifest.problems import Problems
from hoi_train.data.manifest.tasks import check_tasks


@dataclass(frozen=True)
class Options:
    """What all formats are told.

    Args:
        videos: the data root.
        out: where to write.
        val_fraction: how much of train becomes val if the source has no val: of the groups, or without groups of each
            class.
        seed: of that draw.
        keep_missing: list samples whose videos are not on disk, too.
        fps: frames a second of frame folders, where the annotation gives times.
    """

    videos: Path
    out: Path
    val_fraction: float = 0.2
    seed: int = 0
    keep_missing: bool = False
    fps: float | None = None

    def __post_init__(self) -> None:
        if not self.videos.is_dir():
            raise UserError(f"--videos: {self.videos} is not a folder")
        if not 0 <= self.val_fraction < 1:
            raise UserError(f"--val-fraction must be at least 0 and below 1, got {self.val_fraction:g}")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise UserError(f"--fps must be frames a second above 0, got {self.fps:g}")


@dataclass(frozen=True)
class Sample:
    """A labelled video, or a stretch of one, as annotated.

    Args:
        clip_id: unique.
        video: path below the data root, or with ``named`` the name of a file anywhere below it, without suffix.
        split: ``train``, ``val`` or ``test``.
        labels: for each task the name of a class, or the names of any number.
        file, row: where it was annotated.
        group: what no split may tear apart.
        start, end: seconds.
        num_frames: images of its frame folder, where the annotation counts them.
        named: how ``video`` is meant.
        unit: what ``row`` counts.
    """

    clip_id: str
    video: str
    split: Split
    labels: Mapping[str, str | Sequence[str]]
    file: Path
    row: int
    group: str | None = None
    start: float | None = None
    end: float | None = None
    num_frames: int | None = None
    named: bool = False
    unit: Literal["line", "row"] = "line"


def write_samples(
    samples: Sequence[Sample],
    classes: Mapping[str, tuple[Sequence[str], LabelKind]],
    options: Options,
    problems: Problems,
    left_out: Mapping[str, int],
    notes: Sequence[str] = (),
) -> Imported:
    """Write the manifest of some samples.

    Args:
        samples: in the order of the manifest.
        classes: the class names of each task in their order, and how many of them a sample has.
        options: see there.
        problems: what is wrong in the annotation so far; more is noted here, and then raised.
        left_out: how many annotations are not among the samples, by what they are.
        notes: what else the user should know.

    Raises:
        ManifestError: with everything that is wrong in the annotation, each with file and line.
        UserError: no samples, or none of their videos.
    """
    root = options.videos.resolve()
    _check(samples, root, problems)
    problems.raise_if_any()
    said = [*notes, *(f"left out: {count} × {what}" for what, count in left_out.items() if count)]
    if not samples:
        raise UserError(f"there is nothing to write: {'; '.join(said) or 'no clips are annotated'}")
    tasks = _tasks(classes)
    samples, drawn = with_val(samples, partial(_name_and_class, tasks[0]), options.val_fraction, options.seed)
    if drawn:
        said.append(f"no val was given: {drawn} of train were drawn for val (--val-fraction {options.val_fraction:g})")
    elif options.val_fraction and not any(sample.split == "val" for sample in samples):
        said.append("no val clips: train is too small, or missing, to draw any")
    places = _Places(root, options.fps)
    rows, missing = [], {}
    for sample in samples:
        place = places.find(sample)
        if place is None:
            missing[sample.clip_id] = sample.split
            place = {"path": places.expected(sample)}
        if sample.clip_id not in missing or options.keep_missing:
            rows.append({**_columns(sample), **place})
    if not rows:
        raise UserError(
            f"none of the videos of the {len(missing)} annotated clips is below {root}; looked for files such as "
            f"{root / places.expected(samples[0])}; --keep-missing lists them all the same"
        )
    if missing and options.keep_missing:
        said.append("clips that are not on disk are in the manifest all the same (--keep-missing)")
    if places.miscounted:
        example, wanted = next(iter(places.miscounted.items()))
        said.append(
            f"frame folders that hold another number of images than was annotated: {len(places.miscounted)}, such as "
            f"{example}, annotated {wanted}; a folder must hold the frames of its video and no other images"
        )
    return write_import(options.out, rows, tasks, root, missing, said)


def _check(samples: Sequence[Sample], root: Path, problems: Problems) -> None:
    """Note names that a manifest cannot hold, and clips that occur twice."""
    seen: dict[str, Sample] = {}
    for sample in samples:
        labels = [name for value in sample.labels.values() for name in ([value] if isinstance(value, str) else value)]
        odd = [text for text in (sample.clip_id, sample.video, sample.group or "", *labels) if not is_plain(text)]
        fault = None
        if odd:
            fault = f"{odd[0]!r:.80} contains control characters"
        elif sample.named and ("/" in sample.video or sample.video in ("", ".", "..")):
            fault = f"{sample.video!r:.80} is not the name of a file"
        elif not sample.named and inside(root, sample.video) in (None, "", "."):
            fault = f"path {sample.video!r:.80} leaves the folder {root}"
        elif sample.clip_id in seen:
            before = seen[sample.clip_id]
            fault = f"clip {sample.clip_id!r:.80} is in {before.file.name}, {before.unit} {before.row} already"
        if fault:
            problems.add(sample.file, sample.row, fault, sample.unit)
        seen.setdefault(sample.clip_id, sample)


def _tasks(classes: Mapping[str, tuple[Sequence[str], LabelKind]]) -> list[Task]:
    try:
        tasks = [Task(name, ClassList(tuple(names)), labels) for name, (names, labels) in classes.items()]
        check_tasks(tasks, None)
    except ValueError as error:
        raise UserError(str(error)) from None
    return tasks


def _name_and_class(task: Task, sample: Sample) -> tuple[str, str]:
    label = sample.labels[task.name]
    return sample.clip_id, label if isinstance(label, str) else ""


def _columns(sample: Sample) -> dict[str, Any]:
    times = {name: value for name, value in (("start", sample.start), ("end", sample.end)) if value is not None}
    return {"clip_id": sample.clip_id, "split": sample.split, "group": sample.group, **sample.labels, **times}


class _Places:
    """Finds the videos of samples; the data root is searched once, and only if names are looked up."""

    def __init__(self, root: Path, fps: float | None) -> None:
        self.root = root
        self.fps = fps
        self._named: dict[str, list[str]] | None = None
        self._frames: dict[str, int] = {}
        self.miscounted: dict[str, int] = {}

    def find(self, sample: Sample) -> dict[str, Any] | None:
        """Return the columns that say where a video is, or ``None`` if it is not on disk."""
        path = self._by_name(sample.video) if sample.named else self._at(sample.video)
        if path is None or not (self.root / path).is_dir():
            return None if path is None else {"path": path}
        if sample.start is not None and self.fps is None:
            raise UserError(f"{self.root / path} is a folder of frames: say with --fps how many are a second")
        if path not in self._frames:
            self._frames[path] = count_images(self.root / path)
        if sample.num_frames not in (None, self._frames[path]):
            self.miscounted[path] = sample.num_frames or 0
        return {"path": path, "num_frames": self._frames[path], **({"fps": self.fps} if self.fps else {})}

    def expected(self, sample: Sample) -> str:
        """Return where a video would be looked for."""
        return f"{sample.video}{VIDEO_SUFFIXES[0]}" if sample.named else inside(self.root, sample.video) or ""

    def _at(self, video: str) -> str | None:
        path = inside(self.root, video)
        return path if path and is_clip(self.root / path) else None

    def _by_name(self, name: str) -> str | None:
        if self._named is None:
            self._named = defaultdict(list)
            for path in find_clips(self.root, self.root, Counter()):
                file = Path(path)
                self._named[file.stem if is_video(file) else file.name].append(path)
        found = self._named.get(name, [])
        videos = [path for path in found if not (self.root / path).is_dir()] if len(found) > 1 else found
        if len(videos) > 1 or (found and not videos):
            two = " and ".join((videos or found)[:2])
            raise UserError(f"two videos below {self.root} are called {name!r}: {two}; keep one of them there")
        return videos[0] if videos else None
