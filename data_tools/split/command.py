"""Divide a manifest into train, val and test anew: groups stay whole, and every class keeps its share in each split.

All classes of all tasks count at once, of clips and of pairs. A class should have a sample in every split; where it has
too few, train comes first. What could not be had is said in ``split.json``. A minimum that is demanded goes before the
sizes of the splits; the manifest is written even where it is not reached, and the exit code says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_tools.console import first_of, progress, say
from data_tools.jobs.local import write_json
from data_tools.options import check_out
from data_tools.split.report import (
    ClassShares,
    SplitReport,
    class_shares,
    mean_deviation,
    size_table,
    unmet_minimums,
)
from data_tools.split.search import Wanted, find_division
from data_tools.split.units import GroupBy, Indices, Units, units_of
from hoi_train.core.randomness import seed_of
from hoi_train.core.records import SPLITS, Split, UserError
from hoi_train.data.manifest import Manifest, read_manifest
from hoi_train.data.manifest.quarantine import leave_out, read_quarantine

REPORT = "split.json"
SHOWN = 20  # classes below the minimum shown in the terminal; the report has them all
UNIT_WORDS = {"group": "group", "path": "file", "none": "clip"}

Fractions = list[tuple[Split, float]]


def split_manifest(
    path: Path,
    out: Path,
    *,
    val: float = 0.15,
    test: float = 0.15,
    group_by: GroupBy = "group",
    min_per_class: int | None = None,
    seed: int = 0,
    quarantine: Path | None = None,
    dry_run: bool = False,
    console: Console | None = None,
) -> SplitReport:
    """Write the manifest with a new column ``split``, and ``split.json``, below ``out``.

    Args:
        path: the manifest.
        out: folder of the result, made if it is not there; not the manifest's own.
        val: fraction of the clips; 0 makes no such split.
        test: fraction of the clips; 0 makes no such split, and the rest is train.
        group_by: what stays whole: what has the same ``group`` (clips without one: the same file), the same ``path``,
            or nothing but the clip.
        min_per_class: samples that each class must have in each split; one is wished for if not given.
        seed: another one finds another division.
        quarantine: a list of ``hoi-data verify``, whose clips the new manifest leaves out.
        dry_run: say what would come out, write nothing.
        console: where it is shown.

    Raises:
        UserError: fractions that cannot be, fewer groups than splits, or a quarantine of other clips.
    """
    fractions = _fractions(val, test)
    if min_per_class is not None and min_per_class < 1:
        raise UserError(f"--min-per-class must be at least 1, got {min_per_class}")
    check_out(out, path)
    manifest, notes = read_manifest(path), list[str]()
    if quarantine is not None:
        bad = read_quarantine(quarantine, manifest)
        manifest, _ = leave_out(manifest, bad, quarantine)
        if not len(manifest):
            raise UserError(f"{quarantine} lists every clip of {path}; nothing is left to divide")
        notes.append(f"left out, listed in {quarantine}: {len(bad):,} of {len(bad) + len(manifest):,} clips")
    units = units_of(manifest, group_by)
    _check_enough(units, fractions, group_by, manifest)
    wanted = Wanted(np.array([share for _, share in fractions]), min_per_class or 1, min_per_class is not None)
    console = console or Console()
    with progress(console) as bar:
        task = bar.add_task(f"split, {len(units.names):,} {UNIT_WORDS[group_by]}s", total=100)
        places = find_division(
            units, wanted, seed_of(seed, "split") % 2**32, lambda done: bar.update(task, completed=round(100 * done))
        )
    notes += _notes(manifest, units, fractions, group_by)
    report = _report(manifest, units, places, fractions, wanted, group_by, seed, notes)
    if not dry_run:
        names = pa.array([split for split, _ in fractions]).take(pa.array(places[units.of_row]))
        _write(manifest, names, report, out)
    _show(report, None if dry_run else out / path.name, console)
    return report


def _fractions(val: float, test: float) -> Fractions:
    for name, share in (("--val", val), ("--test", test)):
        if not (math.isfinite(share) and 0 <= share < 1):
            raise UserError(f"{name} must be a fraction from 0 to below 1, got {share:g}")
    if val + test > 1 - 1e-9:
        raise UserError(f"--val {val:g} and --test {test:g} leave nothing for train; their sum must be below 1")
    if val + test == 0:
        raise UserError("--val and --test are both 0: there is nothing to divide; give one of them")
    shares = dict(zip(SPLITS, (1 - val - test, val, test), strict=True))
    return [(split, share) for split, share in shares.items() if share > 0]


def _check_enough(units: Units, fractions: Fractions, group_by: GroupBy, manifest: Manifest) -> None:
    if len(units.names) < len(fractions):
        kind = UNIT_WORDS[group_by]
        hint = "" if group_by == "none" else "; --group path or --group none make smaller ones"
        raise UserError(
            f"{manifest.path}: {len(units.names)} {kind}{'s' if len(units.names) > 1 else ''} for {len(fractions)} "
            f"splits ({', '.join(units.names)!s:.80}); each split needs one of its own{hint}"
        )


def _report(
    manifest: Manifest,
    units: Units,
    places: Indices,
    fractions: Fractions,
    wanted: Wanted,
    group_by: GroupBy,
    seed: int,
    notes: list[str],
) -> SplitReport:
    tasks, splits = list(manifest.tasks.values()), [split for split, _ in fractions]
    shares = class_shares(units, places, tasks, len(splits))
    classes = {
        task.name: tuple(
            ClassShares(name, tuple(shares[task.name][:, k].tolist())) for k, name in enumerate(task.classes)
        )
        for task in tasks
    }
    deviations = {name: mean_deviation(counts, wanted.fractions.tolist()) for name, counts in shares.items()}
    unmet = unmet_minimums(units, places, tasks, splits, wanted.minimum, UNIT_WORDS[group_by])
    return SplitReport(
        str(manifest.path),
        seed,
        group_by,
        wanted.minimum if wanted.demanded else None,
        size_table(units, places, fractions),
        classes,
        deviations,
        tuple(unmet),
        tuple(notes),
    )


def _notes(manifest: Manifest, units: Units, fractions: Fractions, group_by: GroupBy) -> Iterator[str]:
    alone = manifest.table.column("group").null_count
    if group_by == "group" and alone:
        which = "no clip has a group" if alone == len(manifest) else f"{alone:,} clips have no group"
        yield f"{which}; clips of the same file were kept together"
    if group_by == "none":
        yield "clips were divided one by one: the same person, place or file can be in several splits"
    sizes = np.bincount(units.of_row)
    largest, smallest = int(sizes.argmax()), min(fractions, key=lambda each: each[1])
    if sizes[largest] > smallest[1] * len(manifest):
        yield (
            f"{UNIT_WORDS[group_by]} {units.names[largest]!r:.60} has {sizes[largest] / len(manifest):.1%} of the "
            f"clips, more than split {smallest[0]} should have ({smallest[1]:.1%})"
        )


def _write(manifest: Manifest, splits: pa.Array, report: SplitReport, out: Path) -> None:
    manifest.with_columns({"split": splits}).write(out / manifest.path.name)
    write_json(out / REPORT, asdict(report))


def _show(report: SplitReport, written: Path | None, console: Console) -> None:
    table = Table()
    kinds = [] if report.group_by == "none" else [f"{UNIT_WORDS[report.group_by]}s"]
    for column in ("split", "clips", "share", "wanted", *kinds):
        table.add_column(column, justify="left" if column == "split" else "right")
    for size in report.sizes:
        groups = [f"{size.groups:,}" for _ in kinds]
        table.add_row(size.split, f"{size.clips:,}", f"{size.share:.1%}", f"{size.wanted:.1%}", *groups)
    console.print(table)
    for task, deviation in report.deviations.items():
        console.print(f"{escape(task)}: shares of classes are {deviation:.2f} points off on the mean", highlight=False)
    lines = []
    for (task, name), found in groupby(report.unmet, key=lambda one: (one.task, one.name)):
        *_, last = each = list(found)
        had = ", ".join(f"{one.split} has {one.samples}" for one in each)
        lines.append(f"{task} {name}: at least {last.wanted} wanted, {had}: {last.reason}")
    done = f"written: {written}, {written.parent / REPORT}" if written else "dry run: nothing was written"
    say(console, *first_of(lines, SHOWN), *(f"note: {note}" for note in report.notes), done)
