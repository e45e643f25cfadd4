"""What is in a manifest: class counts, groups, lengths and sizes, as tables in the terminal and as a plot a task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hoi_train.data.manifest import Manifest, read_manifest
from hoi_train.records import SPLITS, Split, Task

Numbers = NDArray[np.float64]
Counts = Mapping[Split, tuple[int, ...]]


def show_stats(path: Path, out: Path | None = None, console: Console | None = None) -> list[Path]:
    """Print the tables of a manifest; below ``out`` write ``class_counts_<task>.png`` for each task.

    Returns:
        The plots written.
    """
    manifest = read_manifest(path)
    console = console or Console()
    _say(console, f"{manifest.path}: {len(manifest):,} clips")
    console.print(clip_table(manifest))
    for task in manifest.tasks.values():
        _say(console, f"\n{task_line(manifest, task)}")
        console.print(class_table(manifest, task))
    for warning in manifest.warnings:
        _say(console, f"note: {warning}")
    return _plots(manifest, out, console) if out else []


def class_counts(manifest: Manifest, task: Task) -> Counts:
    """Return how often each class occurs in each split that has clips."""
    views = {split: manifest.split(split) for split in SPLITS}
    return {split: view.counts(task.name).positives for split, view in views.items() if len(view)}


def by_count(counts: Counts) -> list[int]:
    """Return class ids, the most frequent in the first split (train, if there is one) first; of equals the lower id."""
    first = next(iter(counts.values()))
    return sorted(range(len(first)), key=lambda class_id: (-first[class_id], class_id))


def imbalance(counts: Counts) -> float:
    """Return the imbalance factor: the count of the most frequent class over that of the rarest, in train.

    Classes that train never has are left out; nan if it has none at all.
    """
    present = [count for count in counts.get("train", ()) if count]
    return max(present) / min(present) if present else float("nan")


def task_line(manifest: Manifest, task: Task) -> str:
    """Describe a task and its imbalance in a line."""
    counts = class_counts(manifest, task)
    absent = sum(not count for count in counts.get("train", ()))
    never = f", {absent} classes never in train" if absent else ""
    return (
        f"{task.name}: {task.labels}-label, {task.num_classes} classes, imbalance factor {imbalance(counts):.4g}{never}"
    )


def class_table(manifest: Manifest, task: Task) -> Table:
    """Return the counts of a task's classes, the most frequent in train first."""
    counts = class_counts(manifest, task)
    table = _table(["id", "class", *counts], texts=("class",))
    for class_id in by_count(counts):
        cells = (f"{of[class_id]:,}" for of in counts.values())
        table.add_row(str(class_id), escape(task.classes.names[class_id]), *cells)
    table.add_section()
    totals = (manifest.split(split).counts(task.name).num_samples for split in counts)
    table.add_row("", f"all {task.of}s", *(f"{total:,}" for total in totals))
    return table


def clip_table(manifest: Manifest) -> Table:
    """Return what is known of the clips themselves, a column a split; lines without any content are left out."""
    views = {split: view for split in SPLITS if len(view := manifest.split(split))}
    groups, shared = _group_counts(views)
    on_disk = [list(_sizes(view)) for view in views.values()]
    sizes = [np.array([size for size in of if size is not None], np.float64) for of in on_disk]
    table = _table(["", *views], texts=("",))
    for name, cells in (
        ("clips", [f"{len(view):,}" for view in views.values()]),
        ("groups (subjects, sources)", groups),
        ("  of them in another split too", shared),
        ("seconds, min / median / max", [_spread(_seconds(view)) for view in views.values()]),
        ("frames, min / median / max", [_spread(_column(view, "num_frames")) for view in views.values()]),
        ("MB in all", [f"{of.sum() / 1e6:,.1f}" if len(of) else "" for of in sizes]),
        ("kB a file, min / median / max", [_spread(of / 1e3) for of in sizes]),
        ("files missing on disk", [f"{of.count(None):,}" for of in on_disk]),
    ):
        if any(cells):
            table.add_row(name, *cells)
    return table


def _plots(manifest: Manifest, out: Path, console: Console) -> list[Path]:
    from data_tools.plots import plot_class_counts

    out.mkdir(parents=True, exist_ok=True)
    files = []
    for task in manifest.tasks.values():
        counts = class_counts(manifest, task)
        files.append(out / f"class_counts_{task.name}.png")
        plot_class_counts(files[-1], task, counts, by_count(counts), task_line(manifest, task))
        _say(console, f"plot: {files[-1]}")
    return files


def _say(console: Console, text: str) -> None:
    """Print a line as it is, whatever brackets are in its names."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _table(columns: Sequence[str], texts: Sequence[str]) -> Table:
    table = Table()
    for column in columns:
        table.add_column(column, justify="left" if column in texts else "right")
    return table


def _group_counts(views: Mapping[Split, Manifest]) -> tuple[list[str], list[str]]:
    """Return for each split how many groups it has, and how many of them other splits have too."""
    columns = {split: pc.drop_null(view.table.column("group").cast("string")) for split, view in views.items()}
    groups = {split: set(pc.unique(column).to_pylist()) for split, column in columns.items()}
    if not any(groups.values()):
        return [], []
    others = {split: set().union(*(of for other, of in groups.items() if other != split)) for split in groups}
    shared = (own & others[split] for split, own in groups.items())
    return [f"{len(own):,}" for own in groups.values()], [f"{len(both):,}" for both in shared]


def _column(view: Manifest, name: str) -> Numbers:
    return np.asarray(pc.drop_null(view.table.column(name)), np.float64)


def _seconds(view: Manifest) -> Numbers:
    """Return the lengths that the manifest itself tells: from start and end, or from frames and their rate."""
    table = view.table
    stretch = pc.subtract(table.column("end"), pc.fill_null(table.column("start"), 0.0))
    frames = pc.divide(table.column("num_frames").cast("float64"), table.column("fps"))
    return np.asarray(pc.drop_null(pc.coalesce(stretch, frames)), np.float64)


def _spread(values: Numbers) -> str:
    if not len(values):
        return ""
    shown = (float(values.min()), float(np.median(values)), float(values.max()))
    return " / ".join(f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in shown)


def _sizes(view: Manifest) -> Iterator[int | None]:
    """Yield the bytes of each different file or frame folder, ``None`` if it is missing."""
    for path in dict.fromkeys(view.table.column("path").to_pylist()):
        place = view.root / path
        try:
            files = list(place.iterdir()) if place.is_dir() else [place]
            yield sum(file.stat().st_size for file in files)
        except OSError:
            yield None
