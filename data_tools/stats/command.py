"""What is in a manifest: class counts and the length of the tail, what occurs together, groups, lengths, sizes, shift.

Tables in the terminal; below ``--out`` a PNG a plot, ``stats.json`` with all numbers, and ``stats.html``, one page with
everything in it that needs nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from data_tools.console import say
from data_tools.jobs.local import write_json
from data_tools.options import MAX_WORKERS, check_out, check_range
from data_tools.stats.clips import ClipFacts, clip_facts
from data_tools.stats.probe import ProbeFacts, probe_files
from data_tools.stats.tables import (
    class_header,
    class_rows,
    clip_rows,
    probe_rows,
    table,
    task_line,
    task_lines,
    together_rows,
    together_title,
    total_row,
    unreadable_lines,
)
from data_tools.stats.tasks import TaskFacts, Together, all_together, task_facts
from hoi_train.core.disk import write_whole
from hoi_train.core.records import Split
from hoi_train.core.strict_json import finite
from hoi_train.data.manifest import Manifest, read_manifest

REPORT, PAGE = "stats.json", "stats.html"


@dataclass(frozen=True)
class Statistics:
    """All there is to say of a manifest.

    Args:
        manifest: which.
        clips: of each split that has any.
        tasks: in the order of the manifest.
        together: what occurs together.
        probe: what the files' headers say, if they were read.
    """

    manifest: Manifest
    clips: Mapping[Split, ClipFacts]
    tasks: tuple[TaskFacts, ...]
    together: tuple[Together, ...]
    probe: ProbeFacts | None


def show_stats(
    path: Path, out: Path | None = None, console: Console | None = None, *, probe: bool = False, workers: int = 1
) -> list[Path]:
    """Print the tables of a manifest; below ``out`` write plots, numbers and the page.

    Args:
        path: the manifest.
        out: folder of the report, made if it is not there.
        console: where the tables are shown.
        probe: read the headers of the files, too.
        workers: processes that do so.

    Returns:
        The files written.
    """
    check_range("--workers", workers, 1, MAX_WORKERS)
    if out is not None:
        check_out(out)
    manifest = read_manifest(path, tracks=False)
    console = console or Console()
    found = Statistics(
        manifest,
        clip_facts(manifest),
        tuple(task_facts(manifest, task) for task in manifest.tasks.values()),
        tuple(all_together(manifest)),
        probe_files(manifest, workers, console) if probe else None,
    )
    _show(found, console)
    written = _write(found, out) if out else []
    say(console, *(f"written: {file}" for file in written))
    return written


def as_json(found: Statistics) -> dict[str, Any]:
    """Return all numbers as plain JSON values; what is undefined is null."""
    clips = {split: asdict(of) for split, of in found.clips.items()}
    for of in clips.values():
        del of["lengths"]
    return {
        "manifest": str(found.manifest.path),
        "clips": clips,
        "tasks": {of.task.name: _task_json(of) for of in found.tasks},
        "together": [
            {"tasks": [of.one.name, of.other.name], "of": of.one.of, "classes_and_count": of.entries().tolist()}
            for of in found.together
        ],
        "files": found.probe and asdict(found.probe),
        "notes": list(found.manifest.warnings),
    }


def _task_json(facts: TaskFacts) -> dict[str, Any]:
    return {
        "labels": facts.task.labels,
        "of": facts.task.of,
        "classes": list(facts.task.classes),
        "counts": facts.counts,
        "samples": facts.samples,
        "tail_of": facts.tail_of,
        "imbalance_factor": finite(facts.imbalance),
        "gini": finite(facts.gini),
        "shots": facts.shots,
        "samples_by_number_of_labels": facts.labels_each,
        "shift_from_train": {
            split: {
                "jensen_shannon_bits": finite(shift.divergence),
                "share_ratios": finite(shift.ratios.tolist()),
            }
            for split, shift in facts.shift.items()
        },
    }


def _show(found: Statistics, console: Console) -> None:
    say(console, f"{found.manifest.path}: {len(found.manifest):,} clips")
    console.print(table(["", *found.clips], clip_rows(found.clips), 0))
    if found.probe:
        console.print(table(["headers of the files", ""], probe_rows(found.probe), 1))
        say(console, *unreadable_lines(found.probe))
    for facts in found.tasks:
        say(console, f"\n{task_line(facts)}")
        console.print(table(class_header(facts), class_rows(facts), 1, total_row(facts)))
        say(console, *task_lines(facts))
    for together in found.together:
        if rows := together_rows(together):
            say(console, f"\n{together_title(together)}, the most frequent:")
            console.print(table([together.one.name, together.other.name, f"{together.one.of}s"], rows, 1))
    say(console, *(f"note: {warning}" for warning in found.manifest.warnings))


def _write(found: Statistics, out: Path) -> list[Path]:
    from data_tools.stats.page import Picture, page

    out.mkdir(parents=True, exist_ok=True)
    pictures = [Picture((out / f"{name}.png"), alt) for name, alt in _draw(found, out).items()]
    write_json(out / REPORT, as_json(found), indent=None)
    write_whole(out / PAGE, page(found, pictures))
    return [*(picture.file for picture in pictures), out / REPORT, out / PAGE]


def _draw(found: Statistics, out: Path) -> dict[str, str]:
    """Draw the plots; return for each its name and what it shows in words."""
    from data_tools.stats.plots import plot_class_counts, plot_lengths, plot_shift, plot_together

    shown: dict[str, str] = {}
    lengths = {split: of.lengths for split, of in found.clips.items() if len(of.lengths)}
    if lengths:
        plot_lengths(out / "lengths.png", lengths)
        shown["lengths"] = "Histogram of the lengths of the clips of each split; the table above has the spread"
    for facts in found.tasks:
        name = facts.task.name
        if any(map(any, facts.counts.values())):
            plot_class_counts(out / f"class_counts_{name}.png", facts, task_line(facts))
            shown[f"class_counts_{name}"] = f"Class counts. {task_line(facts)}; the table below has all numbers"
        if any(math.isfinite(shift.divergence) for shift in facts.shift.values()):
            plot_shift(out / f"shift_{name}.png", facts, f"{name}: shares of classes in train and elsewhere")
            shown[f"shift_{name}"] = f"Shares of the classes of {name} in val and test over those in train"
    for together in found.together:
        name = "_".join(dict.fromkeys((together.one.name, together.other.name)))
        if together_rows(together):
            plot_together(out / f"together_{name}.png", together, together_title(together))
            shown[f"together_{name}"] = f"Map of how often classes occur together. {together_title(together)}"
    return shown
