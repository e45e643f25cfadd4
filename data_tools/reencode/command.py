"""Encode all clips of a manifest anew, so that reading random frames of them is cheap, and write their manifest.

Each clip becomes an mp4 file of its own: trimmed, upright, at a constant frame rate, scaled, without sound, every frame
a key frame. Below the output folder:

=================== =======================================================================================
manifest.parquet    the clips that were made, with labels, groups, splits, pairs and tracks; and dataset.json
clips/              the files, each with the record of what it was made from
SHA256SUMS          their checksums: ``sha256sum -c SHA256SUMS``
reencode.json       what became of every clip that is not in the manifest
settings.json       what the folder was made with; other settings are refused
=================== =======================================================================================

A clip that is made already is not made again unless its source, its times or its settings changed.
"""

from __future__ import annotations

import json
import math
import random
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from data_tools.jobs import Engine, Store, claim, progress, run_jobs, write_atomically
from data_tools.killable import Lost, run_killable
from data_tools.reencode.frames import MAX_RATE, Made, move_pairs, move_tracks
from data_tools.reencode.source import MAX_SIDE, Outcome, Settings, Source, bytes_of, done_of, reencode_source
from data_tools.sources import MANIFEST
from hoi_train.data.manifest import Manifest, read_manifest, write_manifest
from hoi_train.data.manifest_columns import PAIRS
from hoi_train.records import UserError

CLIPS, REPORT, CHECKSUMS = "clips", "reencode.json", "SHA256SUMS"
SHOWN = 10  # bad clips shown in the terminal; the report has them all
SAMPLE = 20  # sources that --dry-run opens
BATCH = 1024  # rows whose boxes are moved at a time


@dataclass(frozen=True)
class Run:
    """How the work is done, which leaves no trace in the result.

    Args:
        workers: processes, or tasks at once on a Ray cluster; ``None`` for as many as there are cores.
        timeout: seconds that one source may take, with all its clips.
        engine: here, or on a Ray cluster.
    """

    workers: int | None = None
    timeout: float = 1800.0
    engine: Engine = "local"


@dataclass(frozen=True)
class Report:
    """What became of the clips of a manifest; ``bad`` in its order."""

    manifest: str
    settings: dict[str, Any]
    clips: int
    made: int
    bytes: int
    bad: tuple[Outcome, ...]

    def summary(self) -> str:
        """Say it in a line."""
        faults = ", ".join(f"{n} {fault}" for fault, n in Counter(clip.fault for clip in self.bad).most_common())
        found = self.clips - self.made - len(self.bad)
        bad = f"{len(self.bad)} bad{f' ({faults})' if faults else ''}"
        return f"{self.manifest}: {self.clips} clips: {self.made} made, {found} made before, {bad}"


def reencode(
    path: Path, out: Path, settings: Settings, run: Run | None = None, *, console: Console | None = None
) -> Report:
    """Make every clip of a manifest that is not made yet, then the manifest and the report of all.

    Args:
        path: the manifest; neither it nor its videos are touched.
        out: folder of the result, made if it is not there; several runs may share it if their settings are equal.
        settings: what the clips are made to be.
        run: how the work is done.
        console: where progress is shown.

    Raises:
        UserError: the folder was made with other settings, labels cannot be kept at the rate, or the disk is full.
    """
    run, console = run or Run(), console or Console()
    manifest, store, noted = _prepared(path, out, settings, run)
    claim(out, noted)
    store.folder.mkdir(exist_ok=True)
    store.sweep()
    try:
        made, bad = _make(manifest, store, settings, run, console)
    finally:
        store.sweep()
    claim(out, noted)
    size = _write_manifest(manifest, store, {clip.clip_id for clip in bad}, out)
    report = Report(str(manifest.path), noted, len(manifest), made, size, bad)
    content = {**asdict(report), "made_before": len(manifest) - made - len(bad)}
    write_atomically(out / REPORT, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    _show(report, manifest, out, console)
    return report


def plan_reencode(path: Path, out: Path, settings: Settings, run: Run | None = None) -> str:
    """Say what ``reencode`` would do, without doing it: how many clips, and about how many bytes."""
    run = run or Run()
    manifest, store, noted = _prepared(path, out, settings, run)
    claim(out, noted, dry_run=True)
    todo, clips, missing = [], 0, 0
    for source in _sources(manifest):
        left = len(source.clips) - len(done_of(source, store, settings))
        if not source.path.exists():
            missing += left
        elif left:
            clips += left
            todo.append(source)
    sample = random.Random(0).sample(todo, min(SAMPLE, len(todo)))
    survey = run_killable(partial(bytes_of, settings=settings), sample, workers=1, timeout=run.timeout)
    sizes = [size / len(source.clips) for source, size in survey if isinstance(size, int)]
    about = f"about {statistics.mean(sizes) * clips / 2**20:.0f} MiB" if sizes else "of unknown size"
    before = len(manifest) - clips - missing
    gone = f"; {missing} have no file" if missing else ""
    return f"{path}: would make {clips} clips from {len(todo)} sources, {about}; {before} are made already{gone}"


def _prepared(path: Path, out: Path, settings: Settings, run: Run) -> tuple[Manifest, Store, dict[str, Any]]:
    _check(settings, run)
    manifest = read_manifest(path)
    out = out.resolve()
    if out == manifest.path.resolve().parent:
        raise UserError(f"--out {out} is the folder of the manifest, which would be overwritten; give another folder")
    return manifest, Store(out / CLIPS, ".mp4"), {**settings.to_json(), "manifest": str(manifest.path.resolve())}


def _check(settings: Settings, run: Run) -> None:
    limits = (
        ("--short-side", settings.short_side, 2, MAX_SIDE),
        ("--gop", settings.gop, 1, 1000),
        ("--crf", settings.crf, 0, 51),
        ("--workers", 1 if run.workers is None else run.workers, 1, 10_000),
    )
    for name, value, least, most in limits:
        if not least <= value <= most:
            raise UserError(f"{name} must be {least} to {most}, got {value}")
    if settings.short_side % 2:
        raise UserError(f"--short-side must be even, got {settings.short_side}")
    if not (math.isfinite(run.timeout) and run.timeout > 0):
        raise UserError(f"--timeout must be seconds above 0, got {run.timeout:g}")
    if settings.fps is not None and not 0 < Fraction(settings.fps) <= MAX_RATE:
        raise UserError(f"--fps must be above 0 and at most {MAX_RATE}, got {settings.fps}")


def _sources(manifest: Manifest) -> Iterator[Source]:
    """Yield the sources in random order: runs at the same time then seldom work on the same one."""
    table = manifest.table
    rate = np.asarray(pc.fill_null(table.column("fps"), 0.0))
    path = np.asarray(table.column("path").combine_chunks().dictionary_encode().indices)
    order = np.lexsort((rate, path))
    new = (np.diff(path[order]) != 0) | (np.diff(rate[order]) != 0)
    groups = np.split(order, np.flatnonzero(new) + 1)
    random.shuffle(groups)  # unseeded: each run has its own
    pairs = table.column("pairs")
    for rows in groups:
        clips = tuple(manifest.clip(int(row)) for row in rows)
        frames = (pairs[int(row)].values for row in rows)
        labelled = {
            clip.clip_id: tuple(pc.unique(pc.struct_field(found, "frame")).to_pylist())
            for clip, found in zip(clips, frames, strict=True)
            if found is not None and len(found)
        }
        yield Source(clips[0].path, table.column("path")[int(rows[0])].as_py(), clips, labelled)


def _make(
    manifest: Manifest, store: Store, settings: Settings, run: Run, console: Console
) -> tuple[int, tuple[Outcome, ...]]:
    """Do the work, with a progress bar; return how many clips were made, and the bad ones."""
    work = partial(reencode_source, store=store, settings=settings)
    made, bad = 0, []
    with progress(console) as shown:
        bar = shown.add_task("reencode", total=len(manifest))
        jobs = run_jobs(work, _sources(manifest), engine=run.engine, workers=run.workers, timeout=run.timeout)
        for source, result in jobs:
            if isinstance(result, UserError):
                raise result
            outcomes = _after(source, result, store, settings) if isinstance(result, Lost) else result
            made += sum(outcome.made for outcome in outcomes)
            bad += [outcome for outcome in outcomes if outcome.fault]
            shown.update(bar, advance=len(outcomes), description=f"reencode, {len(bad)} bad")
    rows = {clip_id: row for row, clip_id in enumerate(manifest.clip_ids)}
    return made, tuple(sorted(bad, key=lambda clip: rows[clip.clip_id]))


def _after(source: Source, lost: Lost, store: Store, settings: Settings) -> list[Outcome]:
    """Return what became of the clips of a source whose process was killed: some may have been finished."""
    done = done_of(source, store, settings)
    bad = (Outcome(clip.clip_id, fault=lost.why, text=lost.text) for clip in source.clips if clip.clip_id not in done)
    return [*(Outcome(clip_id, made=True) for clip_id in done), *bad]


def _write_manifest(manifest: Manifest, store: Store, bad: set[str], out: Path) -> int:
    """Write the manifest and checksums of what was made; return its bytes. Without any clip nothing is written."""
    kept = manifest.select([row for row, clip_id in enumerate(manifest.clip_ids) if clip_id not in bad])
    if not len(kept):
        return 0
    names = ("path", "num_frames", "fps", "width", "height", "pairs", "tracks")
    chunks: dict[str, list[Any]] = {name: [] for name in names}
    sums, size = [], 0
    for start in range(0, len(kept), BATCH):
        ids = kept.table.column("clip_id").slice(start, BATCH).to_pylist()
        records = [store.load(clip_id) for clip_id in ids]
        paths = [store.path(clip_id).relative_to(store.folder.parent).as_posix() for clip_id in ids]
        made = [Made.of(record.facts) for record in records]
        chunks["path"].append(pa.array(paths))
        chunks["num_frames"].append(pa.array([each.num_frames for each in made]))
        chunks["fps"].append(pa.array([float(each.rate) for each in made]))
        for place, name in enumerate(("width", "height")):
            chunks[name].append(pa.array([each.size[place] for each in made]))
        chunks["pairs"].append(_moved_pairs(kept, start, made))
        chunks["tracks"].append(_moved_tracks(kept, start, made))
        sums += [f"{record.sha256}  {path}\n" for record, path in zip(records, paths, strict=True)]
        size += sum(record.size for record in records)
    table = _replaced(kept.table, {name: pa.chunked_array(each) for name, each in chunks.items()})
    write_manifest(out / MANIFEST, table, list(kept.tasks.values()), out, kept.object_classes)
    write_atomically(out / CHECKSUMS, "".join(sums))
    return size


def _replaced(table: Any, columns: dict[str, Any]) -> Any:
    """Return the rows of a manifest with new columns, whole files in place of times, and the sources as groups.

    Clips of one source stay together by their group; those that have none are given their source as one.
    """
    path, group = table.column("path"), table.column("group").cast(pa.string())
    names, counts = pc.value_counts(path).flatten()
    shared = names.filter(pc.greater(counts, 1))
    columns["group"] = pc.if_else(pc.and_(group.is_null(), pc.is_in(path, shared)), path, group)
    columns["seekable"] = pa.array(np.ones(len(table), bool))
    columns["start"] = columns["end"] = pa.nulls(len(table), pa.float64())
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _moved_pairs(kept: Manifest, start: int, made: Sequence[Made]) -> Any:
    rows = kept.table.column("pairs").slice(start, len(made)).to_pylist()
    moved = [None if pairs is None else move_pairs(pairs, each) for pairs, each in zip(rows, made, strict=True)]
    return pa.array(moved, PAIRS)


def _moved_tracks(kept: Manifest, start: int, made: Sequence[Made]) -> Any:
    valid = kept.table.column("tracks").slice(start, len(made)).is_valid().to_pylist()
    rows = enumerate(zip(valid, made, strict=True), start)
    return move_tracks([(kept.tracks(row), each) if known else None for row, (known, each) in rows])


def _show(report: Report, manifest: Manifest, out: Path, console: Console) -> None:
    lines = [report.summary()]
    lines += [f"{clip.fault}: clip {clip.clip_id!r}: {clip.text}" for clip in report.bad[:SHOWN]]
    if len(report.bad) > SHOWN:
        lines.append(f"… and {len(report.bad) - SHOWN} more")
    left = len(manifest) - len(report.bad)
    lines.append(
        f"{out / MANIFEST}: {left} clips, {report.bytes / 2**20:.1f} MiB" if left else "no clip is left: no manifest"
    )
    if (manifest.path.parent / "detections.parquet").exists():
        lines.append("note: detections.parquet is of the sources; make it anew for the encoded clips")
    lines.append(f"report: {out / REPORT}")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
