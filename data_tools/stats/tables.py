"""The statistics of a manifest as rows of text, and as tables in the terminal; the page shows the same rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from rich.markup import escape
from rich.table import Table

from data_tools.stats.clips import ClipFacts
from data_tools.stats.numbers import FEW, MANY, by_count
from data_tools.stats.probe import ProbeFacts
from data_tools.stats.tasks import TaskFacts, Together
from hoi_train.core.records import Split

Rows = list[list[str]]

SHOWN = 10  # entries of a list that a cell or table shows


def clip_rows(facts: Mapping[Split, ClipFacts]) -> Rows:
    """Return what is known of the clips, a row a fact and a cell a split; rows without any content are left out."""
    cells: dict[str, Callable[[ClipFacts], str]] = {
        "clips": lambda of: f"{of.clips:,}",
        "files": lambda of: f"{of.files:,}" if of.files != of.clips else "",
        "groups (subjects, sources)": lambda of: f"{of.groups:,}" if of.groups else "",
        "  of them in another split too": lambda of: f"{of.shared_groups:,}" if of.groups else "",
        "seconds, min / median / max": lambda of: _spread(of.seconds),
        "frames, min / median / max": lambda of: _spread(of.frames),
        "frames a second: clips": lambda of: listed(of.fps),
        "MB in all": lambda of: f"{of.total_bytes / 1e6:,.1f}" if of.file_bytes else "",
        "kB a file, min / median / max": lambda of: _spread(of.file_bytes, 1e3),
        "files missing on disk": lambda of: f"{of.missing:,}",
    }
    rows = [[name, *(cell(of) for of in facts.values())] for name, cell in cells.items()]
    return [row for row in rows if any(row[1:])]


def probe_rows(facts: ProbeFacts) -> Rows:
    """Return what the headers of the files say, a row a fact."""
    rows = [
        ["files read", f"{facts.files:,}"],
        ["files unreadable", f"{len(facts.unreadable):,}"],
        ["width × height: files", listed(facts.sizes)],
        ["short side, min / median / max", _spread(facts.short_side)],
        ["frames a second: files", listed(facts.fps)],
        ["seconds, min / median / max", _spread(facts.seconds)],
        ["codec: files", listed(facts.codecs)],
    ]
    return [row for row in rows if row[1]]


def unreadable_lines(facts: ProbeFacts) -> list[str]:
    """Say which headers cannot be read and why, the first ``SHOWN`` of them."""
    lines = [f"unreadable: {path}: {why}" for path, why in facts.unreadable.items()]
    return lines[:SHOWN] + ([f"… and {len(lines) - SHOWN} more unreadable files"] if len(lines) > SHOWN else [])


def task_line(facts: TaskFacts) -> str:
    """Describe a task and its tail in a line."""
    task, shots = facts.task, facts.shots
    absent = f", {shots['none']} classes never in {facts.tail_of}" if shots["none"] else ""
    return (
        f"{task.name}: {task.labels}-label, {task.num_classes} classes, imbalance factor {number(facts.imbalance)}"
        f"{'' if facts.tail_of == 'train' else f' (of {facts.tail_of})'}, Gini {number(facts.gini)}{absent}"
    )


def task_lines(facts: TaskFacts) -> list[str]:
    """Say the other facts of a task, a sentence each."""
    shots, of = facts.shots, facts.task.of
    lines = [
        f"many-shot (more than {MANY} {of}s in {facts.tail_of}): {shots['many']} classes, medium-shot: "
        f"{shots['medium']}, few-shot (fewer than {FEW}): {shots['few']}, never: {shots['none']}"
    ]
    if facts.task.labels == "multi" and any(facts.labels_each):
        each = listed({str(k): count for k, count in enumerate(facts.labels_each) if count})
        lines.append(f"labels a {of}: {facts.mean_labels:.2f} on the mean; labels: {of}s = {each}")
    lines += [
        f"shift from train to {split}: Jensen-Shannon divergence {number(shift.divergence)} bits (0 alike, 1 disjoint)"
        for split, shift in facts.shift.items()
    ]
    return lines


def class_header(facts: TaskFacts) -> list[str]:
    """Return the columns of ``class_rows``."""
    return ["id", "class", *facts.counts, *(f"{split}/train" for split in facts.shift)]


def class_rows(facts: TaskFacts) -> Rows:
    """Return the counts of a task's classes, the most frequent first, and their share in val and test over train's."""
    return [
        [
            str(class_id),
            facts.task.classes.names[class_id],
            *(f"{of[class_id]:,}" for of in facts.counts.values()),
            *(_ratio(float(shift.ratios[class_id])) for shift in facts.shift.values()),
        ]
        for class_id in by_count(facts.counts)
    ]


def total_row(facts: TaskFacts) -> list[str]:
    """Return the last row of the classes: the samples of each split."""
    return [
        "",
        f"all {facts.task.of}s",
        *(f"{total:,}" for total in facts.samples.values()),
        *("" for _ in facts.shift),
    ]


def together_title(found: Together) -> str:
    """Name a co-occurrence."""
    if found.one is found.other:
        return f"{found.one.name}: classes of the same {found.one.of}"
    return f"{found.one.name} and {found.other.name} of the same {found.one.of}"


def together_rows(found: Together) -> Rows:
    """Return the classes that occur together most often, and how often."""
    return [[one, other, f"{count:,}"] for one, other, count in found.most_frequent(SHOWN)]


def table(columns: Sequence[str], rows: Rows, texts: int, last: Sequence[str] = (), title: str | None = None) -> Table:
    """Return a table for the terminal.

    Args:
        columns: headings.
        rows: cells, plain text.
        texts: the last of the columns from the left that hold text; the others are aligned to the right.
        last: a row below a line.
        title: stands above.
    """
    made = Table(title=title and escape(title), title_justify="left")
    for place, column in enumerate(columns):
        made.add_column(escape(column), justify="left" if place <= texts and column != "id" else "right")
    for row in rows:
        made.add_row(*map(escape, row))
    if last:
        made.add_section()
        made.add_row(*map(escape, last))
    return made


def number(value: float) -> str:
    """Return a number with four digits, or ``n/a``."""
    return "n/a" if math.isnan(value) else f"{value:.4g}"


def listed(counts: Mapping[str, int]) -> str:
    """Return counts by name in a line, the first ``SHOWN`` of them."""
    more = f", … {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    return ", ".join(f"{name}: {count:,}" for name, count in list(counts.items())[:SHOWN]) + more


def _ratio(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _spread(of: Mapping[str, float] | None, unit: float = 1.0) -> str:
    if of is None:
        return ""
    shown = (of[name] / unit for name in ("min", "median", "max"))
    return " / ".join(f"{value:,.0f}" if value >= 100 else f"{value:.3g}" for value in shown)
