"""Derive clips from a manifest and write the manifest of the results: the steps that all derived forms share.

The steps: check the output folder, group the clips by source, make them in processes that may hang or crash, write
manifest and report. A ``ClipMaker`` makes the file of a clip; a ``DerivedForm`` turns the files into manifest rows.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from data_tools.console import progress, say
from data_tools.derive.mapping import ClipMapping, derived_rows, groups_of, notes_of, rows_by_source
from data_tools.derive.source import ClipMaker, Source, SourceClip, found_of, make_clips
from data_tools.faults import Outcome, lines_of
from data_tools.jobs.killable import WorkerFailure
from data_tools.jobs.local import Engine, claim, run_jobs, write_json
from data_tools.options import check_out, check_work
from data_tools.sources import MANIFEST
from hoi_train.core.disk import write_whole
from hoi_train.core.records import UserError
from hoi_train.data.manifest import Manifest, read_manifest
from hoi_train.data.manifest.manifest import check_place


@dataclass(frozen=True)
class Work:
    """How the work is distributed; the result does not depend on it.

    Args:
        workers: processes, or concurrent tasks on a Ray cluster; by default one per core.
        timeout: seconds per source file with all its clips.
        engine: on this machine, or on a Ray cluster.
    """

    workers: int | None = None
    timeout: float = 1800.0
    engine: Engine = "local"


@dataclass(frozen=True)
class DeriveReport:
    """The result of deriving the clips of a manifest.

    Args:
        manifest: path of the source manifest.
        settings: settings of the output folder.
        clips, made: number of clips in the manifest, and of those made by this run.
        contents: summary by the form, such as ``bytes``.
        bad: clips that are not in the result, in the order of the manifest.
    """

    manifest: str
    settings: Mapping[str, Any]
    clips: int
    made: int
    contents: Mapping[str, Any]
    bad: tuple[Outcome, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON, with ``contents`` merged into the other fields."""
        found = asdict(self)
        contents = found.pop("contents")
        return {**found, **contents, "made_before": self.clips - self.made - len(self.bad)}


class DerivedClip(NamedTuple):
    """A finished clip: its mapping, its path in the new manifest and its frames per second, if known."""

    mapping: ClipMapping
    path: str
    fps: float | None


class DerivedForm(ABC):
    """An output format of derived clips.

    Args:
        out: folder of the result, absolute.
        maker: makes the clips.
    """

    name: ClassVar[str]  # of the command
    report: ClassVar[str]  # name of the report's file

    def __init__(self, out: Path, maker: ClipMaker) -> None:
        self.out, self.maker = out, maker

    @abstractmethod
    def check(self) -> None:
        """Raise ``UserError`` for settings out of range."""

    @abstractmethod
    def batches(self, manifest: Manifest) -> Iterator[range]:
        """Yield the rows of the manifest in batches, mapped one at a time."""

    @abstractmethod
    def derived(self, kept: Manifest, batch: range) -> list[DerivedClip]:
        """Return the derived clips of a batch, and add them to the summary in ``contents``."""

    @abstractmethod
    def contents(self) -> dict[str, Any]:
        """Return the report's summary of all batches."""

    @abstractmethod
    def lines(self, contents: Mapping[str, Any]) -> Iterator[str]:
        """Yield the terminal's lines for the summary."""

    def estimate(self, sources: Sequence[Source], clips: int, timeout: float) -> str:
        """Return the estimated size of the clips to make, as text for a dry run."""
        return ""

    def exclusive(self) -> AbstractContextManager[None]:
        """Return the lock under which files are completed and the manifest is written."""
        return nullcontext()

    def finish(self, manifest: Manifest, bad: dict[str, Outcome], console: Console) -> dict[str, Outcome]:
        """Complete the files after all clips are made, and return the final bad clips."""
        return bad

    def sidecars(self) -> dict[str, str]:
        """Return the text of the files beside the manifest by name."""
        return {}

    def sweep(self) -> None:
        """Remove partial files of killed runs."""
        self.maker.store.sweep()


def derive(
    path: Path, form: DerivedForm, work: Work, console: Console, *, dry_run: bool = False
) -> DeriveReport | None:
    """Make the missing clips of a manifest, then write the new manifest and the report.

    Args:
        path: the manifest; neither it nor its videos are changed.
        form: output format; its folder is created, and runs with equal settings may share it.
        work: number of processes, timeout and engine.
        console: where progress is shown.
        dry_run: only print what there is to make.

    Returns:
        The report; ``None`` for a dry run.

    Raises:
        UserError: the folder was made with other settings, labels cannot be kept, or the disk is full.
    """
    manifest, settings = _checked_manifest(path, form, work)
    claim(form.out, settings, MANIFEST, dry_run=dry_run)
    if dry_run:
        say(console, _dry_run_line(manifest, path, form, work))
        return None
    form.maker.store.folder.mkdir(exist_ok=True)
    form.sweep()
    try:
        made, bad = _make(manifest, form, work, console)
    finally:
        form.sweep()
    claim(form.out, settings, MANIFEST)
    with form.exclusive():
        bad = form.finish(manifest, bad, console)
        _write_manifest(manifest, form, bad)
        ordered = tuple(bad[clip_id] for clip_id in manifest.clip_ids if clip_id in bad)
        report = DeriveReport(str(manifest.path), settings, len(manifest), made, form.contents(), ordered)
        write_json(form.out / form.report, report.to_json())
    say(console, *_report_lines(report, form))
    return report


def _dry_run_line(manifest: Manifest, path: Path, form: DerivedForm, work: Work) -> str:
    """Return the line that a dry run prints: clips to make, made already and without a file."""
    todo, clips, missing = [], 0, 0
    for source in sources_of(manifest):
        left = sum(facts is None for _, facts in found_of(source, form.maker))
        if not source.exists():
            missing += left
        elif left:
            clips += left
            todo.append(source)
    about, before = form.estimate(todo, clips, work.timeout), len(manifest) - clips - missing
    gone = f"; {missing} have no file" if missing else ""
    return f"{path}: would make {clips} clips from {len(todo)} sources{about}; {before} are made already{gone}"


def sources_of(manifest: Manifest) -> Iterator[Source]:
    """Yield the sources of a manifest with their clips, in random order."""
    for rows in rows_by_source(manifest.table, np.arange(len(manifest))):
        yield source_at(manifest, rows)


def source_at(manifest: Manifest, rows: Sequence[int]) -> Source:
    """Return a source with those of its clips that are in the given rows."""
    table = manifest.table
    clips = tuple(SourceClip(manifest.clip(row), row, _labelled(table.column("pairs")[row].values)) for row in rows)
    return Source(clips[0].clip.path, table.column("path")[rows[0]].as_py(), clips)


def _labelled(pairs: Any) -> tuple[int, ...]:
    return () if pairs is None else tuple(pc.unique(pc.struct_field(pairs, "frame")).to_pylist())


def _checked_manifest(path: Path, form: DerivedForm, work: Work) -> tuple[Manifest, dict[str, Any]]:
    check_work(work.workers, work.timeout)
    form.check()
    check_out(form.out, path)
    manifest = read_manifest(path)
    check_place(form.out / MANIFEST, form.out, manifest)
    return manifest, {**form.maker.settings, "manifest": str(path.resolve())}


def _make(manifest: Manifest, form: DerivedForm, work: Work, console: Console) -> tuple[int, dict[str, Outcome]]:
    """Make the clips with a progress bar; return the number made and the bad ones by clip id."""
    made, bad = 0, dict[str, Outcome]()
    with progress(console) as shown:
        bar = shown.add_task(form.name, total=len(manifest))
        make = partial(make_clips, maker=form.maker)
        jobs = run_jobs(make, sources_of(manifest), engine=work.engine, workers=work.workers, timeout=work.timeout)
        for source, result in jobs:
            if isinstance(result, UserError):
                raise result
            outcomes = _recovered(source, result, form.maker) if isinstance(result, WorkerFailure) else result
            made += sum(outcome.made for outcome in outcomes)
            bad.update({outcome.clip_id: outcome for outcome in outcomes if outcome.fault})
            shown.update(bar, advance=len(outcomes), description=f"{form.name}, {len(bad)} bad")
    return made, bad


def _recovered(source: Source, failure: WorkerFailure, maker: ClipMaker) -> list[Outcome]:
    """Return the outcomes of a source whose process died; some of its clips may be finished."""
    return [
        Outcome(each.clip.clip_id, made=True)
        if facts
        else Outcome(each.clip.clip_id, fault=failure.fault, text=failure.text)
        for each, facts in found_of(source, maker)
    ]


def _write_manifest(manifest: Manifest, form: DerivedForm, bad: Mapping[str, Outcome]) -> None:
    """Write the new manifest and its sidecar files; write nothing if no clip is left."""
    parts, groups, ids = [], groups_of(manifest.table), manifest.table.column("clip_id")
    for batch in form.batches(manifest):
        names = ids.slice(batch.start, len(batch)).to_pylist()
        rows = [row for row, clip_id in zip(batch, names, strict=True) if clip_id not in bad]
        if rows:
            kept = manifest.select(rows)
            mappings, paths, rates = zip(*form.derived(kept, batch), strict=True)
            parts.append(derived_rows(kept, mappings, paths=paths, fps=rates, groups=groups.take(pa.array(rows))))
    if parts:
        replace(manifest, table=pa.concat_tables(parts), root=form.out).write(form.out / MANIFEST)
        for name, text in form.sidecars().items():
            write_whole(form.out / name, text)


def _report_lines(report: DeriveReport, form: DerivedForm) -> Iterator[str]:
    """Yield the terminal's summary of a report."""
    yield from lines_of(report.manifest, report.clips, report.made, report.bad)
    yield from form.lines(report.contents)
    left = report.clips - len(report.bad)
    yield f"{form.out / MANIFEST}: {left} clips" if left else "no clip is left: no manifest"
    yield from notes_of(Path(report.manifest))
    yield f"report: {form.out / form.report}"


def sample_of(sources: Sequence[Source], most: int) -> list[Source]:
    """Return a fixed random sample of at most ``most`` sources."""
    return random.Random(0).sample(list(sources), min(most, len(sources)))
