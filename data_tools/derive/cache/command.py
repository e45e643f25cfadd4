"""Make the frame cache of a manifest: all frames of its clips as JPEG at training size, in zip shards, and a manifest.

=================== =======================================================================================
manifest.parquet    the clips that were made, with labels, groups, splits, pairs and tracks; and dataset.json
shards/             00000.zip, 00001.zip …: stored zips, in each one stored zip a clip, in that a JPEG a frame
cache.json          size, quality and checksums, and what became of every clip that is not in the manifest
settings.json       what the folder was made with; other settings are refused
unpacked/           clips whose shard is not written yet
=================== =======================================================================================

Frame i of a cached clip is frame i of the clip. A clip that is made already is not made again unless its source, its
times or its place in the manifest changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from data_tools.console import progress, say
from data_tools.derive.cache.clips import Job, Settings, cache_source
from data_tools.derive.cache.shards import Cache
from data_tools.derive.derived import Made, derived_rows, groups_of, last_labelled, notes_of, rows_by_source
from data_tools.faults import Outcome, beyond_end, lines_of
from data_tools.jobs.killable import Lost, run_killable
from data_tools.jobs.local import claim, key_of, write_json
from data_tools.options import check_out, check_range, check_work
from data_tools.sources import MANIFEST
from hoi_train.core.records import UserError
from hoi_train.data.manifest import Manifest, read_manifest, write_manifest
from hoi_train.data.manifest.manifest import check_place

REPORT = "cache.json"
LEAST_MSE = 1e-6  # equal pictures are said to have 108 dB

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Report:
    """What became of the clips of a manifest.

    Args:
        manifest: its path.
        settings: of the cache.
        clips, made: in the manifest, and made by this run.
        frames, bytes: of the cache.
        source_bytes: of the video that the frames are of.
        psnr: of the JPEG against the scaled frames, in dB: the mean over clips and the lowest clip.
        shards: name, clips, bytes and sha256 of each.
        bad: clips that are not in the cache, in the order of the manifest.
    """

    manifest: str
    settings: dict[str, Any]
    clips: int
    made: int
    frames: int
    bytes: int
    source_bytes: int
    psnr: dict[str, float]
    shards: tuple[dict[str, Any], ...]
    bad: tuple[Outcome, ...]

    def lines(self, out: Path) -> Iterator[str]:
        """Say it in a few lines."""
        yield from lines_of(self.manifest, self.clips, self.made, self.bad)
        if self.shards:
            ratio = f", {self.bytes / self.source_bytes:.2f} times the source" if self.source_bytes else ""
            yield f"{self.frames} frames, {self.bytes / 2**20:.1f} MiB in {len(self.shards)} shards{ratio}"
            yield f"PSNR of the JPEG: {self.psnr['mean']:.1f} dB, lowest clip {self.psnr['lowest']:.1f} dB"
        left = self.clips - len(self.bad)
        yield f"{out / MANIFEST}: {left} clips" if left else "no clip is left: no manifest"
        yield from notes_of(Path(self.manifest))
        yield f"report: {out / REPORT}"


def make_cache(
    path: Path,
    out: Path,
    settings: Settings,
    *,
    workers: int = 1,
    timeout: float = 1800.0,
    console: Console | None = None,
) -> Report:
    """Make every clip that is not in the cache yet, then its shards, manifest and report.

    Args:
        path: the manifest; neither it nor its videos are touched.
        out: folder of the cache, made if it is not there; several runs may share it if their settings are equal.
        settings: what the frames are made to be.
        workers: number of processes.
        timeout: seconds that one source may take, with all its clips.
        console: where progress is shown.

    Raises:
        UserError: the folder was made with other settings, or the disk is full.
    """
    check_work(workers, timeout)
    manifest, cache, noted = _prepared(path, out, settings)
    console = console or Console()
    claim(cache.out, noted, MANIFEST)
    cache.sweep()
    try:
        made, bad = _make(manifest, cache, settings, workers, timeout, console)
    finally:
        cache.sweep()
    with cache.alone():
        _pack(manifest, cache, settings, bad, console)
        contents = _write_manifest(manifest, cache, settings, bad)
        report = Report(
            manifest=str(manifest.path),
            settings=noted,
            clips=len(manifest),
            made=made,
            frames=contents.frames,
            bytes=sum(shard["bytes"] for shard in contents.shards),
            source_bytes=round(contents.source_bytes),
            psnr=contents.psnr(),
            shards=tuple(contents.shards),
            bad=tuple(bad[clip_id] for clip_id in manifest.clip_ids if clip_id in bad),
        )
        write_json(cache.out / REPORT, asdict(report))
    say(console, *report.lines(out))
    return report


def plan_cache(path: Path, out: Path, settings: Settings) -> str:
    """Say what ``make_cache`` would do, without doing it."""
    manifest, cache, noted = _prepared(path, out, settings)
    claim(cache.out, noted, MANIFEST, dry_run=True)
    jobs = list(_jobs(manifest, cache, settings))
    missing = sum(len(job.clips) for job in jobs if not job.exists())
    todo = sum(len(job.clips) for job in jobs) - missing
    gone = f"; {missing} have no file" if missing else ""
    before = len(manifest) - todo - missing
    return f"{path}: would make {todo} clips; {before} are made already{gone}"


def _prepared(path: Path, out: Path, settings: Settings) -> tuple[Manifest, Cache, dict[str, Any]]:
    check_range("--short-side", settings.short_side, 16, 8192)
    check_range("--quality", settings.quality, 1, 100)
    check_range("--shard-clips", settings.shard_clips, 1, 10_000)
    check_out(out, path)
    manifest, noted = read_manifest(path), {**settings.to_json(), "manifest": str(path.resolve())}
    check_place(out / MANIFEST, out, manifest)
    return manifest, Cache(out.resolve(), key_of(noted)), noted


def _shard(row: int, settings: Settings) -> str:
    return f"{row // settings.shard_clips:05}"


def _jobs(manifest: Manifest, cache: Cache, settings: Settings) -> Iterator[Job]:
    """Yield what is to be made, by source."""
    todo = list[int]()
    for _, rows in _rows(manifest, settings):
        facts = _job(manifest, rows, settings).facts(cache, settings)
        todo += [row for row, found in zip(rows, facts, strict=True) if found is None]
    for group in rows_by_source(manifest.table, np.array(todo, np.int64)):
        yield _job(manifest, group, settings)


def _job(manifest: Manifest, rows: Sequence[int], settings: Settings) -> Job:
    labelled = last_labelled(manifest.table, np.array(rows, np.int64))
    return Job(tuple(map(manifest.clip, rows)), tuple(_shard(row, settings) for row in rows), tuple(labelled))


def _make(
    manifest: Manifest, cache: Cache, settings: Settings, workers: int, timeout: float, console: Console
) -> tuple[int, dict[str, Outcome]]:
    """Make the clips, with a progress bar; return how many were made, and the bad ones."""
    work = partial(cache_source, cache=cache, settings=settings)
    made, bad = 0, dict[str, Outcome]()
    with progress(console) as shown:
        bar = shown.add_task("cache", total=len(manifest))
        jobs = list(_jobs(manifest, cache, settings))
        shown.update(bar, advance=len(manifest) - sum(len(job.clips) for job in jobs))
        for job, result in run_killable(work, jobs, workers=workers, timeout=timeout):
            if isinstance(result, UserError):
                raise result
            outcomes = job.after(result, cache, settings) if isinstance(result, Lost) else result
            made += sum(outcome.made for outcome in outcomes)
            bad.update({outcome.clip_id: outcome for outcome in outcomes if outcome.fault})
            shown.update(bar, advance=len(outcomes), description=f"cache, {len(bad)} bad")
    return made, bad


def _pack(manifest: Manifest, cache: Cache, settings: Settings, bad: dict[str, Outcome], console: Console) -> None:
    """Write the shards whose clips changed, and remove what is packed from what is not."""
    with progress(console) as shown:
        bar = shown.add_task("pack", total=math.ceil(len(manifest) / settings.shard_clips))
        for name, rows in _rows(manifest, settings):
            found = _found(_job(manifest, rows, settings), cache, settings, bad)
            if found and found != cache.packed(name):
                cache.pack(name, found)
            shown.update(bar, advance=1)
    left_over = {*cache.clips.folder.glob("*/*.zip")}
    for clip_id in manifest.clip_ids if left_over else ():
        if cache.clips.path(clip_id) in left_over and clip_id not in bad:
            cache.forget(clip_id)


def _rows(manifest: Manifest, settings: Settings) -> Iterator[tuple[str, range]]:
    """Yield the name and rows of each shard."""
    for start in range(0, len(manifest), settings.shard_clips):
        yield _shard(start, settings), range(start, min(start + settings.shard_clips, len(manifest)))


def _found(job: Job, cache: Cache, settings: Settings, bad: dict[str, Outcome]) -> dict[str, Facts]:
    """Return the facts of a shard's clips that are made, by id; note the others as bad."""
    found = dict[str, Facts]()
    for clip, labelled, facts in zip(job.clips, job.labelled, job.facts(cache, settings), strict=True):
        if facts and (fault := beyond_end(clip, [labelled], facts["count"])):  # its pairs changed since it was made
            bad[clip.clip_id] = Outcome(clip.clip_id, False, *fault)
        elif facts:
            found[clip.clip_id] = facts
            bad.pop(clip.clip_id, None)  # another run could read it
        else:
            text = "its source changed while the cache was made; give the same command again"
            bad.setdefault(clip.clip_id, Outcome(clip.clip_id, fault="unreadable", text=text))
    return found


@dataclass
class _Contents:
    """What is in a cache: its shards, frames, bytes of the source, and each clip's mean square error."""

    shards: list[dict[str, Any]] = field(default_factory=list)
    frames: int = 0
    source_bytes: float = 0.0
    errors: list[float] = field(default_factory=list)

    def add(self, facts: Facts) -> None:
        self.frames += facts["count"]
        self.source_bytes += facts["source_bytes"]
        self.errors += [] if facts["mse"] is None else [facts["mse"]]

    def psnr(self) -> dict[str, float]:
        found = [10 * math.log10(255**2 / max(error, LEAST_MSE)) for error in self.errors]
        return {"mean": sum(found) / len(found), "lowest": min(found)} if found else {}


def _write_manifest(manifest: Manifest, cache: Cache, settings: Settings, bad: Mapping[str, Outcome]) -> _Contents:
    """Write the manifest of the cache and say what is in it. Without any clip nothing is written."""
    contents, parts, groups = _Contents(), list[pa.Table](), groups_of(manifest.table)
    for name, rows in _rows(manifest, settings):
        ids = manifest.table.column("clip_id").slice(rows.start, len(rows)).to_pylist()
        places = [row for row, clip_id in zip(rows, ids, strict=True) if clip_id not in bad]
        kept = manifest.select(places)
        if len(kept):
            record = cache.shards.load(name)
            facts = record.facts["clips"]
            known = [facts[clip_id] for clip_id in kept.clip_ids]
            paths = [cache.path(name, clip_id) for clip_id in kept.clip_ids]
            made, fps = [Made.of(each) for each in known], [each["fps"] for each in known]
            parts.append(derived_rows(kept, made, paths=paths, fps=fps, groups=groups.take(pa.array(places))))
            path = cache.shards.path(name).relative_to(cache.out).as_posix()
            contents.shards.append({"path": path, "clips": len(facts), "bytes": record.size, "sha256": record.sha256})
            for each in known:
                contents.add(each)
    if parts:
        table, tasks = pa.concat_tables(parts), list(manifest.tasks.values())
        write_manifest(cache.out / MANIFEST, table, tasks, cache.out, manifest.object_classes)
    return contents
