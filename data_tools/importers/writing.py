"""From the samples of any format to a manifest: checks, draw of val, search for the videos, and what is said of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from data_tools.importers.finding import VideoFinder
from data_tools.importers.samples import Options, Reading, Sample
from data_tools.sources import MANIFEST, MISSING, Imported
from hoi_train.core.paths import inside, is_plain
from hoi_train.core.randomness import seed_of
from hoi_train.core.records import SPLITS, ClassList, Task, UserError
from hoi_train.data.detections_file import DETECTIONS, write_detections
from hoi_train.data.manifest import Manifest, written_manifest
from hoi_train.data.manifest.columns import DETECTED, NOT_IN_CSV, TRACKS, column_types
from hoi_train.data.manifest.problems import Problems
from hoi_train.data.manifest.tasks import check_tasks

NAMED = 20  # classes without a sample that are named


@dataclass
class _Located:
    """Which samples become rows, and where their videos are.

    Args:
        samples: those that become rows.
        places: for each of them the columns that say where its video is.
        missing: split by clip, for those that are annotated but not on disk.
        misfits: frame folders with another number of images than annotated, by path: the images, and the frames.
    """

    samples: list[Sample] = field(default_factory=list)
    places: list[Mapping[str, Any]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    misfits: dict[str, tuple[int, int]] = field(default_factory=dict)


def write_reading(reading: Reading, options: Options) -> Imported:
    """Write the manifest of a reading, the list of clips that are not on disk, and what was detected.

    Raises:
        ManifestError: with everything that is wrong with the annotation, each with file and row.
        UserError: no samples, or none of their videos.
    """
    root = options.videos.resolve()
    samples = list(reading.samples)
    _check(samples, root, reading.problems)
    reading.problems.raise_if_any()
    if not samples:
        raise UserError(f"there is nothing to write: {'; '.join(_remarks(reading)) or 'no clips are annotated'}")
    tasks = _tasks(reading)
    fraction = reading.val_fraction if options.val_fraction is None else options.val_fraction
    samples, drawn = _with_val(samples, reading, fraction, options.seed)
    # the rows of a split lie together, so that its view shares their memory
    samples.sort(key=lambda sample: SPLITS.index(sample.split))
    located = _locate(samples, root, options)
    notes = list(_notes(reading, located, options))
    if not located.samples:
        raise UserError(f"there is nothing to write: {'; '.join(notes)}")
    if drawn:
        notes.append(f"no val was given: {drawn} of train were drawn for val (--val-fraction {fraction:g})")
    elif fraction and not any(sample.split == "val" for sample in samples):
        notes.append(f"no val clips: train has too few clips or groups to draw any (--val-fraction {fraction:g})")
    missing, table, detected = located.missing, _table(located, tasks), _detected(located.samples)
    del samples, located  # the table has their boxes now, and the check takes as much again
    written = written_manifest(options.out / MANIFEST, table, tasks, root, reading.object_classes)
    for earlier in (MISSING, DETECTIONS):
        (options.out / earlier).unlink(missing_ok=True)
    if missing:
        lines = (f"{split}\t{name}\n" for name, split in missing.items())
        (options.out / MISSING).write_text("".join(lines), encoding="utf-8")
        counts = Counter(missing.values())
        by_split = ", ".join(f"{counts[split]} {split}" for split in SPLITS if counts[split])
        notes.insert(0, f"clips not on disk: {len(missing)} ({by_split}); {options.out / MISSING} lists them")
    if detected is not None and reading.object_classes is not None:
        file = write_detections(options.out / DETECTIONS, detected, reading.object_classes)
        num_pairs = pc.sum(pc.list_value_length(detected.column("pairs"))).as_py()
        notes.append(f"detections in {len(detected)} videos, {num_pairs} pairs: {file}")
    return Imported(written.path, (*notes, *_empty_classes(written), *written.warnings), written)


def _check(samples: Sequence[Sample], root: Path, problems: Problems) -> None:
    """Note names that a manifest cannot hold, and clips that occur twice."""
    seen: dict[str, Sample] = {}
    for sample in samples:
        labels = [name for task in sample.labels for name in sample.names(task)]
        odd = [text for text in (sample.clip_id, sample.video, sample.group or "", *labels) if not is_plain(text)]
        fault = None
        if odd:
            fault = f"{odd[0]!r:.80} contains control characters"
        elif sample.lookup == "name" and ("/" in sample.video or sample.video in ("", ".", "..")):
            fault = f"{sample.video!r:.80} is not the name of a file"
        elif sample.lookup != "name" and inside(root, sample.video) in (None, "", "."):
            fault = f"path {sample.video!r:.80} leaves the folder {root}"
        elif sample.clip_id in seen:
            before = seen[sample.clip_id]
            fault = f"clip {sample.clip_id!r:.80} is in {before.file.name}, {before.unit} {before.row} already"
        if fault:
            problems.add(sample.file, sample.row, fault, sample.unit)
        seen.setdefault(sample.clip_id, sample)


def _tasks(reading: Reading) -> list[Task]:
    of: Literal["clip", "pair"] = "clip" if reading.object_classes is None else "pair"
    try:
        tasks = [Task(name, ClassList(tuple(names)), kind, of) for name, (names, kind) in reading.classes.items()]
        check_tasks(tasks, reading.object_classes)
    except ValueError as error:
        raise UserError(str(error)) from None
    return tasks


def _with_val(samples: list[Sample], reading: Reading, fraction: float, seed: int) -> tuple[list[Sample], int]:
    """Draw val from train if there is none: a fraction of the groups, and of the clips without a group of each class.

    The number is rounded, and at least one stays. A name's place in the draw depends on the name and the seed alone.

    Returns:
        The samples in the same order, and how many were drawn.
    """
    if not fraction or any(sample.split == "val" for sample in samples):
        return samples, 0
    task = next(iter(reading.classes))

    def stratum_and_name(sample: Sample) -> tuple[str, str]:
        if reading.val_by == "clip" or sample.group:
            return "", (sample.group if reading.val_by == "group" else None) or sample.clip_id
        label = sample.labels[task]
        return (label if isinstance(label, str) else ""), sample.clip_id

    strata: defaultdict[str, set[str]] = defaultdict(set)
    for sample in samples:
        if sample.split == "train":
            stratum, name = stratum_and_name(sample)
            strata[stratum].add(name)
    drawn: set[str] = set()
    for names in strata.values():
        ordered = sorted(names, key=lambda name: seed_of(seed, "val", name))
        drawn.update(ordered[: min(int(fraction * len(ordered) + 0.5), len(ordered) - 1)])
    chosen = [sample.split == "train" and stratum_and_name(sample)[1] in drawn for sample in samples]
    moved = [replace(sample, split="val") if is_val else sample for sample, is_val in zip(samples, chosen, strict=True)]
    return moved, sum(chosen)


def _locate(samples: Sequence[Sample], root: Path, options: Options) -> _Located:
    """Look for the videos of samples.

    A frame folder whose images are not those that pairs count their frames in is taken for missing.

    Raises:
        UserError: there is none of them.
    """
    finder, located = VideoFinder(root, options.fps), _Located()
    for sample in samples:
        path = finder.find(sample)
        images = None if path is None else finder.num_images(path)
        frames = None if images is None else _other_count(sample, images)
        if path is not None and images is not None and frames is not None:
            located.misfits[path] = images, frames
        is_there = path is not None and (frames is None or sample.pairs is None)
        if not is_there:
            located.missing[sample.clip_id] = sample.split
        if path is not None and is_there:
            place = {"path": path, "num_frames": images, "fps": finder.fps(sample, path)}
        elif path is None and options.keep_missing:
            place = {"path": finder.expected(sample)}
        else:
            continue
        located.samples.append(sample)
        located.places.append(place)
    if samples and not located.samples and not located.misfits:
        raise UserError(
            f"none of the {len(samples)} annotated clips is below {root}; looked for files such as "
            f"{root / finder.expected(samples[0])}; --keep-missing lists them all the same"
        )
    return located


def _other_count(sample: Sample, images: int) -> int | None:
    """Return how many frames were annotated, if a folder of so many images cannot be theirs."""
    least, tolerance = 0, 0
    if sample.pairs is not None:
        least = pc.max(pc.struct_field(pc.list_flatten(sample.pairs), "frame")).as_py() + 1
        tolerance = 1  # decoders differ about the last frame
    if images < least:
        return sample.num_frames or least
    return None if sample.num_frames is None or abs(images - sample.num_frames) <= tolerance else sample.num_frames


def _notes(reading: Reading, located: _Located, options: Options) -> Iterator[str]:
    if located.misfits:
        example, (images, frames) = next(iter(located.misfits.items()))
        yield (
            f"frame folders {'left out ' if reading.object_classes else ''}that hold another number of images than was "
            f"annotated: {len(located.misfits)}, such as {example} with {images} images for {frames} frames; a folder "
            "must hold every frame of its video (extracted without a rate, -r) and no other images"
        )
    yield from _remarks(reading)
    if located.missing and options.keep_missing:
        yield "clips that are not on disk are in the manifest all the same (--keep-missing)"


def _remarks(reading: Reading) -> list[str]:
    return [*(f"{what}: {count}" for what, count in reading.remarks.items() if count), *reading.notes]


def _table(located: _Located, tasks: Sequence[Task]) -> pa.Table:
    """Return the rows as an Arrow table, which copies the boxes of samples only once."""
    samples, types = located.samples, column_types(tasks)
    values: dict[str, Any] = {
        name: [getattr(sample, name) for sample in samples] for name in ("clip_id", "split", "group", "start", "end")
    }
    values |= {name: [place.get(name) for place in located.places] for name in ("path", "num_frames", "fps")}
    values |= {
        name: [sample.size and sample.size[k] for sample in samples] for k, name in enumerate(("width", "height"))
    }
    for task in tasks:
        if task.of == "clip":
            values[task.name] = [
                sample.labels[task.name] if task.labels == "single" else sample.names(task.name) for sample in samples
            ]
    columns = {name: pa.array(found, types[name]) for name, found in values.items()}
    for name, of in NOT_IN_CSV.items():
        if any(getattr(sample, name) is not None for sample in samples):
            lists = _lists([getattr(sample, name) for sample in samples], of)
            columns[name] = lists if name == "tracks" else lists.combine_chunks()  # as the manifest holds them
    return pa.table(columns)


def _detected(samples: Sequence[Sample]) -> pa.Table | None:
    """Return the rows of the file of detections; ``None`` if nothing was detected."""
    found = {sample.clip_id: sample.detected for sample in samples if sample.detected is not None}
    if not found:
        return None
    pairs = _lists([detected.pairs for detected in found.values()], DETECTED)
    tracks = _lists([detected.tracks for detected in found.values()], TRACKS)
    return pa.table({"clip_id": list(found), "pairs": pairs, "tracks": tracks})


def _lists(values: Sequence[Any], of: Any) -> Any:
    """Return Arrow arrays of one list each, or ``None``, as chunks of one array."""
    return pa.chunked_array([pa.nulls(1, of) if value is None else value for value in values], of)


def _empty_classes(manifest: Manifest) -> Iterator[str]:
    for name, task in manifest.tasks.items():
        empty = [task.classes.names[k] for k, count in enumerate(manifest.counts(name).positives) if not count]
        if empty:
            more = f" and {len(empty) - NAMED} more" if len(empty) > NAMED else ""
            yield f"{name}: classes without a clip: {', '.join(empty[:NAMED])}{more}"
