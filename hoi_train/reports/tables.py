"""Tables for the terminal and the README: runs side by side, one task's classes.

Values are in percent, epochs are counted from 1, as the progress bar counts them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from hoi_train.core.records import EpochStats, Split, TaskStats
from hoi_train.engine.epoch_table import NOT_AVAILABLE, column_headings, percent, shown_value
from hoi_train.metrics import class_vectors, shown
from hoi_train.metrics.metric import Scalar
from hoi_train.reports.runs import check_label_kinds, read_runs, shared_tasks


@dataclass(frozen=True)
class ComparedRun:
    """One run's result on one task.

    Args:
        run: name of the run.
        task: name of the task.
        epoch: the epoch evaluated, from 0.
        classes: how many classes had samples and were averaged, of how many, such as ``7/8``.
        values: the numbers compared, by the heading of their column; nan where undefined.
        scalars: how each of them reads, by the same headings.
    """

    run: str
    task: str
    epoch: int
    classes: str
    values: Mapping[str, float]
    scalars: Mapping[str, Scalar]


def rows(
    run_dirs: Sequence[Path], *, task: str | None = None, split: Split = "test", best: str | None = None
) -> list[ComparedRun]:
    """Collect the results of runs, task by task, in the order of ``run_dirs``.

    Args:
        run_dirs: directories with an ``events.jsonl``.
        task: one task; every task of the runs when left out.
        split: which evaluations to look at.
        best: scalar whose best evaluation is taken, such as ``recall_macro``; the last evaluation when left out.

    Raises:
        ReportError: a directory is not a run, or has no such task, split or scalar.
    """
    runs = read_runs(run_dirs)
    found: list[ComparedRun] = []
    for name in shared_tasks(runs, task):
        evaluations = {
            run.name: run.evaluation(name, split, best) for run in runs if task is not None or name in run.tasks()
        }
        check_label_kinds(name, (each.tasks[name] for each in evaluations.values()))
        found += _compared(name, evaluations)
    return found


def compare(
    run_dirs: Sequence[Path], *, task: str | None = None, split: Split = "test", best: str | None = None
) -> Group:
    """Return one table a task with one row a run, the best value of each column bold; arguments as of :func:`rows`."""
    found = _by_task(rows(run_dirs, task=task, split=split, best=best))
    return Group(*(_compare_table(name, split, of_task) for name, of_task in found.items()))


def markdown(found: Sequence[ComparedRun]) -> str:
    """Return the rows as Markdown tables, one a task, the best value of each column bold.

    >>> top1 = {"top-1": Scalar("top-1")}
    >>> ce = ComparedRun("ce", "verb", 9, "7/8", {"top-1": 0.5}, top1)
    >>> print(markdown([ce, ComparedRun("cdb", "verb", 9, "7/8", {"top-1": 0.6}, top1)]))
    | verb (7/8 classes) | epoch | top-1 |
    |---|---|---|
    | ce | 10 | 50.00 |
    | cdb | 10 | **60.00** |
    """
    return "\n\n".join(_markdown_table(task, of_task) for task, of_task in _by_task(found).items())


def class_table(stats: TaskStats) -> Table:
    """Return one line a class, the one with most samples in the evaluated split first."""
    table = Table(title=Text(f"{stats.task.name}, per class, in %"), box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("class", overflow="fold")
    table.add_column("group")
    headings = class_vectors(stats)
    for heading in ("samples", *headings.values()):
        table.add_column(heading, justify="right")
    support = stats.support.tolist()
    vectors = [stats.vectors[name].tolist() for name in headings]
    for i in sorted(range(stats.task.num_classes), key=lambda i: (-support[i], i)):
        groups = ", ".join(group for group, ids in stats.groups.items() if i in ids)
        shares = (percent(vector[i], 1) for vector in vectors)
        table.add_row(Text(stats.task.classes.names[i]), groups, str(support[i]), *shares)
    return table


def _compare_table(task: str, split: str, found: Sequence[ComparedRun]) -> Table:
    title = Text(f"{_heading(task, found)}, {split}, in %")
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, title_justify="left")
    table.add_column("run", overflow="fold")
    table.add_column("epoch", justify="right")
    columns = column_headings(found[0].scalars)
    for label in columns:
        table.add_column(label, justify="right", no_wrap=True)
    for row, marks in zip(found, _best(found), strict=True):
        shares = {heading: Text(share, "bold" if heading in marks else "") for heading, share in _shares(row).items()}
        cells = (Text("/").join(shares[heading] for heading in headings) for headings in columns.values())
        table.add_row(Text(row.run), str(row.epoch + 1), *cells)
    return table


def _markdown_table(task: str, found: Sequence[ComparedRun]) -> str:
    lines = [(_heading(task, found), "epoch", *found[0].values)]
    for row, marks in zip(found, _best(found), strict=True):
        cells = (f"**{share}**" if heading in marks else share for heading, share in _shares(row).items())
        lines.append((row.run, str(row.epoch + 1), *cells))
    text = ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]
    return "\n".join([text[0], "|---" * len(lines[0]) + "|", *text[1:]])


def _compared(task: str, evaluations: Mapping[str, EpochStats]) -> list[ComparedRun]:
    of_runs = {run: evaluation.tasks[task] for run, evaluation in evaluations.items()}
    numbers = shown(of_runs.values(), "compare")
    ordered = [name for names in column_headings(numbers).values() for name in names]
    scalars = {numbers[name].title: numbers[name] for name in ordered}
    return [
        ComparedRun(
            run,
            task,
            evaluations[run].epoch,
            f"{stats.scalars['classes_counted']:.0f}/{stats.task.num_classes}",
            {numbers[name].title: stats.scalars.get(name, math.nan) for name in ordered},
            scalars,
        )
        for run, stats in of_runs.items()
    ]


def _shares(row: ComparedRun) -> dict[str, str]:
    return {heading: shown_value(value, row.scalars[heading], 2) for heading, value in row.values.items()}


def _heading(task: str, found: Sequence[ComparedRun]) -> str:
    return f"{task} ({', '.join(dict.fromkeys(row.classes for row in found))} classes)"


def _by_task(found: Sequence[ComparedRun]) -> dict[str, list[ComparedRun]]:
    tasks: dict[str, list[ComparedRun]] = {}
    for row in found:
        tasks.setdefault(row.task, []).append(row)
    return tasks


def _best(found: Sequence[ComparedRun]) -> list[set[str]]:
    """Return for each row the headings where no other row is better as shown; none where all are alike."""
    marks: list[set[str]] = [set() for _ in found]
    shares = [_shares(row) for row in found]
    for heading, scalar in found[0].scalars.items():
        texts = [of_row[heading] for of_row in shares]
        defined = [float(text) for text in texts if text != NOT_AVAILABLE]
        if len(set(texts)) == 1 or scalar.direction is None:
            continue
        best = max(defined) if scalar.direction == "max" else min(defined)
        for mark, text in zip(marks, texts, strict=True):
            if text != NOT_AVAILABLE and float(text) == best:
                mark.add(heading)
    return marks
