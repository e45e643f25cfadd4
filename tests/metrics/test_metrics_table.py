"""``METRICS`` is the one place of a metric: names, tables, curves and the monitor's mode follow from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console, RenderableType

from hoi_train.core.records import ClassGroups, ClassList, EpochStats, LabelKind, Task, TaskStats, recorded_tasks
from hoi_train.engine.epoch_table import epoch_table
from hoi_train.metrics import (
    METRICS,
    class_vectors,
    default_monitor,
    direction_of,
    scalar_names,
    scalars_of,
    shown,
    task_stats,
)
from hoi_train.metrics.metric import BOTH, SINGLE, PerClassMetric, Scalar, ScalarMetric, Shown
from hoi_train.metrics.rows import EvaluatedRows
from hoi_train.reports.tables import class_table, compare, rows
from hoi_train.tracking.events import EventLog

NAMES = ("take", "put", "open", "cut", "pour", "stir", "wipe")
FOUR: ClassGroups = {"many": (0, 1), "medium": (2,), "few": (3, 4), "named_by_list": (4, 5)}  # groups may overlap


def measured(labels: LabelKind, groups: ClassGroups = FOUR, seed: int = 0) -> TaskStats:
    draw = torch.Generator().manual_seed(seed)
    target = torch.randint(6, (60,), generator=draw)  # no row of the last class
    truth = torch.nn.functional.one_hot(target, 7)
    logits = torch.randn(60, 7, generator=draw) + truth
    task = Task("verb", ClassList(NAMES), labels)
    return task_stats(task, logits, target if labels == "single" else truth, groups, loss=1.25)


def text(renderable: RenderableType) -> str:
    console = Console(width=200, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def recall_at_2(rows: EvaluatedRows) -> torch.Tensor:
    hits = (rows.logits.topk(2).indices == rows.target[:, None]).any(1)
    found = torch.stack([hits[rows.truth[:, i]].double().mean() for i in range(rows.task.num_classes)])
    return found.masked_fill(rows.support == 0, math.nan)


RECALL_AT_2 = PerClassMetric(
    "recall_at_2",
    recall_at_2,
    "recall@2",
    "r@2",
    labels=SINGLE,
    shown={"epoch": Shown(SINGLE, SINGLE), "compare": Shown(SINGLE), "curves": Shown(SINGLE)},
)
ERROR = ScalarMetric(
    "error",
    lambda rows: {"error": 1 - float((rows.logits.argmax(1) == rows.target).double().mean())},
    {"error": Scalar("error", direction="min", places=frozenset({"compare"}))},
    labels=SINGLE,
)


@pytest.fixture
def two_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table with a line for a vector and a line for a number of which less is better."""
    for metric in (RECALL_AT_2, ERROR):
        monkeypatch.setitem(METRICS, metric.name, metric)


def write_run(folder: Path, *stats: TaskStats, labels: bool = True) -> Path:
    log = EventLog(folder / "events.jsonl")
    task = stats[0].task
    kinds = {"classes": {"verb": list(task.classes)}, "labels": {"verb": task.labels}, "of": {"verb": task.of}}
    log.write({"event": "start", "step": 0, "class_counts": {"verb": [9] * 7}, **(kinds if labels else {})})
    for epoch, each in enumerate(stats):
        log.write({"event": "evaluation", "step": epoch, **EpochStats(epoch, "test", {"verb": each}).to_json()})
    log.close()
    return folder


@pytest.mark.parametrize("labels", ["single", "multi"])
def test_what_is_measured_is_what_is_named(labels: LabelKind) -> None:
    stats = measured(labels)
    assert set(scalar_names(stats.task, FOUR)) == set(stats.scalars)
    assert default_monitor(stats.task).removeprefix("verb/") in stats.scalars
    assert {name: vector.dtype for name, vector in stats.vectors.items()} == dict.fromkeys(
        ("recall", "precision", "f1", "ap"), torch.float64
    )
    for name, scalar in scalars_of(stats.task, FOUR).items():
        assert direction_of(name) == (scalar.direction or "max"), name


def test_averages_over_any_number_of_groups() -> None:
    stats = measured("single")
    for vector, average in (("recall", "recall"), ("precision", "precision"), ("f1", "f1"), ("ap", "map")):
        for group, ids in FOUR.items():
            values = [v for v in stats.vectors[vector][list(ids)].tolist() if not math.isnan(v)]
            assert stats.scalars[f"{average}_{group}"] == math.fsum(values) / len(values)
    assert [stats.scalars[f"classes_counted_{group}"] for group in FOUR] == [2, 1, 2, 2]


def test_groups_of_any_number_are_in_every_table(tmp_path: Path) -> None:
    stats = measured("single")
    found = text(epoch_table(EpochStats(0, "val", {"verb": stats})))
    headings = found.splitlines()[1].split()
    assert headings == ["macro", "many", "medium", "few", "named_by_list", "classes"]
    pair = f"{100 * stats.scalars['recall_few']:.1f}/{100 * stats.scalars['precision_few']:.1f}"
    assert pair in found.splitlines()[3]
    of_class = {line.split()[0]: line for line in text(class_table(stats)).splitlines()[4:] if line.strip()}
    assert "few, named_by_list" in of_class["pour"]
    assert "few, named_by_list" not in of_class["cut"]
    (row,) = rows([write_run(tmp_path / "run", stats)])
    assert row.values["medium recall"] == stats.scalars["recall_medium"]
    assert len(row.values) == 1 + 2 * 5


def test_a_new_metric_is_one_line(two_more: None, tmp_path: Path) -> None:
    first, second = measured("single", seed=1), measured("single", seed=2)
    expected = recall_at_2(EvaluatedRows(first.task, torch.eye(7), torch.arange(7)))
    assert expected.tolist() == [1.0] * 7
    assert first.scalars["recall_at_2_macro"] == pytest.approx(
        math.fsum(first.vectors["recall_at_2"][:6].tolist()) / 6, abs=1e-15
    )
    assert {"recall_at_2_few", "error"} <= set(scalar_names(first.task, FOUR))
    assert "recall_at_2_macro" not in scalar_names(Task("noun", ClassList(NAMES), "multi"), FOUR)
    assert (direction_of("error"), direction_of("recall_at_2_macro"), direction_of("recall_at_2_few")) == (
        "min",
        "max",
        "max",
    )
    assert class_vectors(first)["recall_at_2"] == "recall@2"
    assert "rec/prec/r@2" in text(epoch_table(EpochStats(0, "val", {"verb": first})))
    runs = [write_run(tmp_path / "a", first), write_run(tmp_path / "b", second)]
    compared = rows(runs)
    assert [row.values["error"] for row in compared] == [first.scalars["error"], second.scalars["error"]]
    assert compared[0].values["macro recall@2"] == first.scalars["recall_at_2_macro"]
    assert "recall@2" in text(class_table(first))
    assert "error" in text(compare(runs))
    assert shown([first], "curves")["recall_at_2_macro"].title == "macro recall@2"


def test_the_least_error_is_the_best(two_more: None, tmp_path: Path) -> None:
    stats = [measured("single", seed=seed) for seed in range(4)]
    errors = [each.scalars["error"] for each in stats]
    (row,) = rows([write_run(tmp_path / "run", *stats)], best="error")
    assert row.epoch == errors.index(min(errors))
    assert min(errors) < max(errors)


def test_less_is_bold_where_less_is_better(two_more: None, tmp_path: Path) -> None:
    from hoi_train.reports.tables import markdown

    stats = {name: measured("single", seed=seed) for name, seed in (("a", 1), ("b", 2))}
    errors = {name: each.scalars["error"] for name, each in stats.items()}
    table = markdown(rows([write_run(tmp_path / name, each) for name, each in stats.items()]))
    least = min(errors, key=lambda name: errors[name])
    assert f"**{100 * errors[least]:.2f}**" in table
    assert f"**{100 * max(errors.values()):.2f}**" not in table


@pytest.mark.parametrize("labels", ["single", "multi"])
def test_a_record_is_read_back_as_it_was(labels: LabelKind) -> None:
    stats = EpochStats(3, "val", {"verb": measured(labels)})
    back = EpochStats.from_json(stats.to_json(), {"verb": stats.tasks["verb"].task})
    mine, theirs = stats.tasks["verb"], back.tasks["verb"]
    assert (back.epoch, back.split, theirs.task, theirs.num_samples) == (3, "val", mine.task, 60)
    assert (theirs.groups, list(theirs.scalars)) == (mine.groups, list(mine.scalars))
    assert back.to_json() == stats.to_json()
    for name, vector in mine.vectors.items():
        torch.testing.assert_close(theirs.vectors[name], vector, rtol=0, atol=0, equal_nan=True)
    assert theirs.confusion is None if mine.confusion is None else torch.equal(theirs.confusion, mine.confusion)
    assert theirs.support.tolist() == mine.support.tolist()


def test_a_record_says_the_label_kind_and_an_old_one_lets_it_be_seen() -> None:
    start = {"classes": {"a": ["x", "y"]}, "labels": {"a": "multi"}, "of": {"a": "pair"}}
    assert recorded_tasks(start) == {"a": Task("a", ClassList(("x", "y")), "multi", "pair")}
    assert recorded_tasks({"class_counts": {"a": [1]}}) == {}
    for labels in ("single", "multi"):
        record = EpochStats(0, "val", {"verb": measured(labels)}).to_json()
        assert EpochStats.from_json(record, {}).tasks["verb"].task == Task("verb", ClassList(NAMES), labels)


def test_the_recorded_kind_decides_whatever_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A multi-label task with a metric called top1 is still one."""
    top1 = ScalarMetric("top1", lambda rows: {"top1": 0.5}, {"top1": Scalar("top-1")}, labels=BOTH)
    monkeypatch.setitem(METRICS, "top1", top1)
    (row,) = rows([write_run(tmp_path / "run", measured("multi"))])
    assert list(row.values)[:2] == ["mAP", "macro recall"]


REFUSALS: list[tuple[Callable[[TaskStats], object], str]] = [
    (lambda stats: measured("single", {"few": (7,)}), r"group 'few' has class ids \(7,\), allowed 0..6"),
    (
        lambda stats: TaskStats(stats.task, 1, stats.support, {"recall": torch.zeros(3)}, {}),
        r"verb/recall must be \[7\], got torch.Size\(\[3\]\)",
    ),
]


@pytest.mark.parametrize(("make", "message"), REFUSALS)
def test_what_does_not_fit_the_classes_is_refused(make: Callable[[TaskStats], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(measured("single"))
