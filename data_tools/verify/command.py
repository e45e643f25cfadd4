"""Decode every clip of a manifest and say which are bad, which look wrong, and how.

The kinds of faults and warnings are listed in ``records``; one clip is checked by ``clip``, the clips are held against
each other by ``set``, what is known already is kept by ``journal``.

Each clip is decoded in a process that can be killed. Exit code 1 if any clip is bad; warnings (clips that look wrong,
copies between splits) do not change it. A run that was killed goes on; files that have not changed are not read again.
Training leaves the bad clips out with ``data.bad_clips=quarantine data.quarantine=DIR/quarantine.json``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from rich.console import Console

from data_tools.console import progress, say
from data_tools.jobs.killable import WorkerFailure, run_killable
from data_tools.options import check_out, check_work
from data_tools.verify.clip import check_in_worker
from data_tools.verify.journal import Journal
from data_tools.verify.records import BadClip, Checked, Suspect
from data_tools.verify.report import VerifyReport, show_report, write_measured, write_report
from data_tools.verify.set import notes, suspects
from hoi_train.core.records import Clip
from hoi_train.data.manifest import Manifest, read_manifest
from hoi_train.data.pair_places import Places
from hoi_train.data.readers import check_reader


def verify_manifest(
    path: Path,
    out: Path,
    *,
    workers: int | None = None,
    timeout: float = 60.0,
    reader: str = "auto",
    measured: bool = False,
    dry_run: bool = False,
    console: Console | None = None,
) -> VerifyReport | None:
    """Decode every clip and write ``verify.txt``, ``verify.json`` and ``quarantine.json`` below ``out``.

    Args:
        path: the manifest.
        out: folder of the report and of the journal, made if it is not there.
        workers: number of processes; by default as many as there are cores.
        timeout: seconds that one clip may take.
        reader: a name in ``READERS``.
        measured: write a copy of the manifest too, with numbers of frames and rates as measured.
        dry_run: only say how many clips there are to check.
        console: where progress is shown.

    Returns:
        The report; ``None`` of a dry run.
    """
    check_work(workers, timeout)
    workers = workers or os.cpu_count() or 1
    check_out(out, path if measured else None)
    check_reader(reader)
    manifest = read_manifest(path, tracks=False)
    console = console or Console()
    journal = Journal(out, reader)
    earlier = {row: journal.find(clip, _places(manifest, row)) for row, clip in _clips(manifest)}
    found = {row: checked for row, checked in earlier.items() if checked is not None}
    if dry_run:
        todo = len(manifest) - len(found)
        text = f"{path}: {len(manifest)} clips, {len(found)} checked before and not changed since, {todo} to check"
        say(console, text)
        return None
    out.mkdir(parents=True, exist_ok=True)
    known = len(found)
    try:
        _check_others(manifest, journal, found, workers=workers, timeout=timeout, console=console)
    finally:
        journal.close()
    report = _report(manifest, found, reader=reader, timeout=timeout, known=known)
    write_report(report, manifest, out)
    show_report(report, out, console)
    if measured:
        ids = manifest.clip_ids
        copy = write_measured(path, {ids[row]: each.measures for row, each in found.items() if each.measures}, out)
        say(console, f"measured manifest: {copy}")
    return report


def _clips(manifest: Manifest) -> Iterator[tuple[int, Clip]]:
    return ((row, manifest.clip(row)) for row in range(len(manifest)))


def _places(manifest: Manifest, row: int) -> Places:
    return Places.of(manifest.table.column("pairs")[row].values)


def _check_others(
    manifest: Manifest, journal: Journal, found: dict[int, Checked], *, workers: int, timeout: float, console: Console
) -> None:
    """Check the clips of which nothing is known, in killable processes and with a progress bar; add what is found."""
    todo = [row for row in range(len(manifest)) if row not in found]
    rows = {clip_id: row for row, clip_id in enumerate(manifest.clip_ids)}
    bad = sum(each.fault is not None for each in found.values())
    with progress(console) as bar:
        task = bar.add_task(f"verify, {bad} bad", total=len(manifest), completed=len(found))
        clips = ((manifest.clip(row), _places(manifest, row)) for row in todo)
        check = partial(check_in_worker, reader=journal.reader)
        for (clip, _), result in run_killable(check, clips, workers=min(workers, max(len(todo), 1)), timeout=timeout):
            checked = Checked(result.fault, result.text) if isinstance(result, WorkerFailure) else result
            journal.note(clip, checked)
            found[rows[clip.clip_id]] = checked
            bad += checked.fault is not None
            bar.update(task, advance=1, description=f"verify, {bad} bad")


def _report(manifest: Manifest, found: dict[int, Checked], *, reader: str, timeout: float, known: int) -> VerifyReport:
    bad, warned, measured = [], [], {}
    for row, clip in _clips(manifest):
        checked = found[row]
        if checked.fault is not None:
            bad.append(BadClip(clip.clip_id, str(clip.path), clip.split, checked.fault, checked.text))
        if checked.measures is not None:
            measured[row] = clip, checked.measures
        warned += [Suspect(clip.clip_id, str(clip.path), clip.split, *warning) for warning in checked.warnings]
    warned += suspects(manifest, measured)
    rows = {clip_id: row for row, clip_id in enumerate(manifest.clip_ids)}
    return VerifyReport(
        manifest=str(manifest.path),
        reader=reader,
        timeout=timeout,
        clips=len(manifest),
        known=known,
        bad=tuple(bad),
        warnings=tuple(sorted(warned, key=lambda each: rows[each.clip_id])),
        notes=tuple(notes(measured)),
    )
