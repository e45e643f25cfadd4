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

from hoi_train.core.records import Split, TaskStats
from hoi_train.engine.epoch_table import NOT_AVAILABLE, PAIR_COLUMNS, of_pairs, percent
from hoi_train.reports.runs import Evaluation, Run, check_label_kinds, read_runs, shared_tasks

SINGLE_LABEL_COLUMNS = {
    "top-1": "top1",
    "macro recall": "recall_macro",
    "macro precision": "precision_macro",
    "majority recall": "recall_majority",
    "majority precision": "precision_majority",
    "minority recall": "recall_minority",
    "minority precision": "precision_minority",
}
MULTI_LABEL_COLUMNS = {
    "mAP": "map",
    "majority mAP": "map_majority",
    "minority mAP": "map_minority",
    "macro recall": "recall_macro",
    "macro precision": "precision_macro",
}


@dataclass(frozen=True)
class Row:
    """One run's result on one task.

    Args:
        run: name of the run.
        task: name of the task.
        epoch: the epoch evaluated, from 0.
        classes: how many classes had samples and were averaged, of how many, such as ``7/8``.
        values: shares in 0..1 by column heading; nan where undefined.
    """

    run: str
    task: str
    epoch: int
    classes: str
    values: Mapping[str, float]


def rows(
    run_dirs: Sequence[Path], *, task: str | None = None, split: Split = "test", best: str | None = None
) -> list[Row]:
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
    found: list[Row] = []
    for name in shared_tasks(runs, task):
        evaluations = {
            run: run.evaluation(name, split, best) for run in runs if task is not None or name in run.tasks()
        }
        check_label_kinds(name, evaluations.values())
        found += [_row(run, name, evaluation) for run, evaluation in evaluations.items()]
    return found


def compare(
    run_dirs: Sequence[Path], *, task: str | None = None, split: Split = "test", best: str | None = None
) -> Group:
    """Return one table a task with one row a run, the best value of each column bold; arguments as of :func:`rows`."""
    found = _by_task(rows(run_dirs, task=task, split=split, best=best))
    return Group(*(_compare_table(name, split, of_task) for name, of_task in found.items()))


def markdown(found: Sequence[Row]) -> str:
    """Return the rows as Markdown tables, one a task, the best value of each column bold.

    >>> print(markdown([Row("ce", "verb", 9, "7/8", {"top-1": 0.5}), Row("cdb", "verb", 9, "7/8", {"top-1": 0.6})]))
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
    for heading in ("samples", "recall", "precision", "F1", "AP"):
        table.add_column(heading, justify="right")
    group_of = {class_id: group for group, ids in stats.groups.items() for class_id in ids}
    support = stats.support.tolist()
    vectors = [stats.vectors[name].tolist() for name in ("recall", "precision", "f1", "ap")]
    for i in sorted(range(stats.task.num_classes), key=lambda i: (-support[i], i)):
        shares = (percent(vector[i], 1) for vector in vectors)
        table.add_row(Text(stats.task.classes.names[i]), group_of.get(i, ""), str(support[i]), *shares)
    return table


def _compare_table(task: str, split: str, found: Sequence[Row]) -> Table:
    title = Text(f"{_heading(task, found)}, {split}, in %")
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, title_justify="left")
    table.add_column("run", overflow="fold")
    table.add_column("epoch", justify="right")
    columns: dict[str, list[str]] = {}
    for heading in found[0].values:
        columns.setdefault(heading.removesuffix(" recall").removesuffix(" precision"), []).append(heading)
    for group, headings in columns.items():
        label = group.replace(" ", "\n") if len(headings) == 1 else f"{group}\nrec/prec"
        table.add_column(label, justify="right", no_wrap=True)
    for row, marks in zip(found, _best(found), strict=True):
        shares = {h: Text(percent(value, 2), "bold" if h in marks else "") for h, value in row.values.items()}
        cells = (Text("/").join(shares[heading] for heading in headings) for headings in columns.values())
        table.add_row(Text(row.run), str(row.epoch + 1), *cells)
    return table


def _markdown_table(task: str, found: Sequence[Row]) -> str:
    lines = [(_heading(task, found), "epoch", *found[0].values)]
    for row, marks in zip(found, _best(found), strict=True):
        shares = {heading: percent(value, 2) for heading, value in row.values.items()}
        cells = (f"**{share}**" if heading in marks else share for heading, share in shares.items())
        lines.append((row.run, str(row.epoch + 1), *cells))
    text = ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]
    return "\n".join([text[0], "|---" * len(lines[0]) + "|", *text[1:]])


def _row(run: Run, task: str, evaluation: Evaluation) -> Row:
    columns = SINGLE_LABEL_COLUMNS if evaluation.single_label else MULTI_LABEL_COLUMNS
    if of_pairs(evaluation.scalars):
        columns = {**columns, **PAIR_COLUMNS}
    values = {heading: evaluation.scalars.get(scalar, math.nan) for heading, scalar in columns.items()}
    classes = f"{evaluation.scalars['classes_counted']:.0f}/{len(evaluation.classes)}"
    return Row(run.name, task, evaluation.epoch, classes, values)


def _heading(task: str, found: Sequence[Row]) -> str:
    return f"{task} ({', '.join(dict.fromkeys(row.classes for row in found))} classes)"


def _by_task(found: Sequence[Row]) -> dict[str, list[Row]]:
    tasks: dict[str, list[Row]] = {}
    for row in found:
        tasks.setdefault(row.task, []).append(row)
    return tasks


def _best(found: Sequence[Row]) -> list[set[str]]:
    """Return for each row the headings where no other row is better; none where all are alike."""
    marks: list[set[str]] = [set() for _ in found]
    for heading in found[0].values:
        shown = [percent(row.values[heading], 2) for row in found]
        defined = [float(share) for share in shown if share != NOT_AVAILABLE]
        if len(set(shown)) > 1:
            for mark, share in zip(marks, shown, strict=True):
                if share != NOT_AVAILABLE and float(share) == max(defined):
                    mark.add(heading)
    return marks
