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

import random
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from data_tools.console import progress, say
from data_tools.derive.derived import Made, derived_rows, groups_of, notes_of, rows_by_source
from data_tools.derive.rates import MAX_RATE
from data_tools.derive.reencode.source import MAX_SIDE, Settings, Source, bytes_of, done_of, reencode_source
from data_tools.faults import Outcome, lines_of
from data_tools.jobs.killable import Lost, run_killable
from data_tools.jobs.local import Engine, Store, claim, run_jobs, write_json
from data_tools.options import check_out, check_range, check_work
from data_tools.sources import MANIFEST
from hoi_train.core.disk import write_whole
from hoi_train.core.records import UserError
from hoi_train.data.manifest import Manifest, read_manifest, write_manifest
from hoi_train.data.manifest.manifest import check_place

CLIPS, REPORT, CHECKSUMS = "clips", "reencode.json", "SHA256SUMS"
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

    def lines(self, out: Path) -> Iterator[str]:
        """Say it in a few lines."""
        yield from lines_of(self.manifest, self.clips, self.made, self.bad)
        left = self.clips - len(self.bad)
        size = f"{self.bytes / 2**20:.1f} MiB"
        yield f"{out / MANIFEST}: {left} clips, {size}" if left else "no clip is left: no manifest"
        yield from notes_of(Path(self.manifest))
        yield f"report: {out / REPORT}"


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
    claim(out, noted, MANIFEST)
    store.folder.mkdir(exist_ok=True)
    store.sweep()
    try:
        made, bad = _make(manifest, store, settings, run, console)
    finally:
        store.sweep()
    claim(out, noted, MANIFEST)
    size = _write_manifest(manifest, store, {clip.clip_id for clip in bad}, out)
    report = Report(str(manifest.path), noted, len(manifest), made, size, bad)
    content = {**asdict(report), "made_before": len(manifest) - made - len(bad)}
    write_json(out / REPORT, content)
    say(console, *report.lines(out))
    return report


def plan_reencode(path: Path, out: Path, settings: Settings, run: Run | None = None) -> str:
    """Say what ``reencode`` would do, without doing it: how many clips, and about how many bytes."""
    run = run or Run()
    manifest, store, noted = _prepared(path, out, settings, run)
    claim(out, noted, MANIFEST, dry_run=True)
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
    check_work(run.workers, run.timeout)
    _check(settings)
    check_out(out, path)
    manifest = read_manifest(path)
    check_place(out / MANIFEST, out, manifest)
    return manifest, Store(out.resolve() / CLIPS, ".mp4"), {**settings.to_json(), "manifest": str(path.resolve())}


def _check(settings: Settings) -> None:
    check_range("--short-side", settings.short_side, 2, MAX_SIDE)
    check_range("--gop", settings.gop, 1, 1000)
    check_range("--crf", settings.crf, 0, 51)
    if settings.short_side % 2:
        raise UserError(f"--short-side must be even, got {settings.short_side}")
    if settings.fps is not None and not 0 < Fraction(settings.fps) <= MAX_RATE:
        raise UserError(f"--fps must be above 0 and at most {MAX_RATE}, got {settings.fps}")


def _sources(manifest: Manifest) -> Iterator[Source]:
    table = manifest.table
    pairs = table.column("pairs")
    for rows in rows_by_source(table, np.arange(len(manifest))):
        clips = tuple(map(manifest.clip, rows))
        frames = (pairs[row].values for row in rows)
        labelled = {
            clip.clip_id: tuple(pc.unique(pc.struct_field(found, "frame")).to_pylist())
            for clip, found in zip(clips, frames, strict=True)
            if found is not None and len(found)
        }
        yield Source(clips[0].path, table.column("path")[rows[0]].as_py(), clips, labelled)


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
    groups, left = groups_of(manifest.table), [k for k, clip_id in enumerate(manifest.clip_ids) if clip_id not in bad]
    parts, sums, size = [], [], 0
    for start in range(0, len(left), BATCH):
        rows = left[start : start + BATCH]
        kept = manifest.select(rows)
        records = [store.load(clip_id) for clip_id in kept.clip_ids]
        paths = [store.path(clip_id).relative_to(store.folder.parent).as_posix() for clip_id in kept.clip_ids]
        made = [Made.of(record.facts) for record in records]
        rates = [float(each.rate) for each in made]
        parts.append(derived_rows(kept, made, paths=paths, fps=rates, groups=groups.take(pa.array(rows))))
        sums += [f"{record.sha256}  {path}\n" for record, path in zip(records, paths, strict=True)]
        size += sum(record.size for record in records)
    if parts:
        tasks = list(manifest.tasks.values())
        write_manifest(out / MANIFEST, pa.concat_tables(parts), tasks, out, manifest.object_classes)
        write_whole(out / CHECKSUMS, "".join(sums))
    return size
