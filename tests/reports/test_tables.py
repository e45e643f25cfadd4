"""Tables of runs, epochs and classes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from hoi_train.core.records import ClassList, EpochStats, Task
from hoi_train.engine.epoch_table import epoch_table
from hoi_train.metrics.metric import Scalar
from hoi_train.reports.runs import ReportError, read_runs
from hoi_train.reports.tables import ComparedRun, class_table, compare, markdown, rows

MakeRun = Callable[..., Path]


def shown(renderable: RenderableType, width: int = 80) -> str:
    console = Console(width=width, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def evaluations(run: Path, split: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == "evaluation" and event["split"] == split]


def row(run: str, **values: float) -> ComparedRun:
    return ComparedRun(run, "verb", 0, "8/8", values, {name: Scalar(name) for name in values})


def test_a_row_is_the_last_evaluation_of_the_split(make_run: MakeRun) -> None:
    run = make_run("ce", tail=0.3)
    (found,) = rows([run])
    scalars = evaluations(run, "test")[-1]["scalars"]
    assert (found.run, found.task, found.epoch, found.classes) == ("ce", "verb", 5, "7/8")
    assert found.values == {
        "top-1": scalars["verb/top1"],
        "macro recall": scalars["verb/recall_macro"],
        "macro precision": scalars["verb/precision_macro"],
        "majority recall": scalars["verb/recall_majority"],
        "majority precision": scalars["verb/precision_majority"],
        "minority recall": scalars["verb/recall_minority"],
        "minority precision": scalars["verb/precision_minority"],
    }


def test_multi_label_tasks_are_compared_by_their_map(make_run: MakeRun) -> None:
    run = make_run("ce", labels=("single", "multi"))
    (found,) = rows([run], task="noun")
    assert list(found.values) == ["mAP", "macro recall", "macro precision", "majority mAP", "minority mAP"]
    assert found.values["mAP"] == evaluations(run, "test")[-1]["scalars"]["noun/map"]
    assert [each.task for each in rows([run])] == ["verb", "noun"]


@pytest.mark.parametrize(("scalar", "pick"), [("recall_macro", max), ("loss", min)])
def test_the_best_epoch_is_the_earliest_with_the_best_value(
    make_run: MakeRun, scalar: str, pick: Callable[[list[float]], float]
) -> None:
    run = make_run("ce")
    values = [event["scalars"][f"verb/{scalar}"] for event in evaluations(run, "val")]
    (found,) = rows([run], split="val", best=scalar)
    assert found.epoch == values.index(pick(values))
    assert rows([run], split="val")[0].epoch == 5


def test_the_best_epoch_is_one_of_the_last_stage(make_run: MakeRun) -> None:
    run = make_run("oltr")
    values = [event["scalars"]["verb/recall_macro"] for event in evaluations(run, "val")]
    worst = values.index(min(values))
    with (run / "events.jsonl").open("a") as log:
        log.write(json.dumps({"event": "stage", "step": 11, "epoch": worst + 1, "stage": 1}) + "\n")
    (found,) = rows([run], split="val", best="recall_macro")
    assert found.epoch == worst + 1 + values[worst + 1 :].index(max(values[worst + 1 :]))
    (least,) = rows([run], split="val", best="loss")
    assert least.epoch > worst


def test_every_table_fits_a_terminal_of_80_columns(make_run: MakeRun, epoch_stats: EpochStats) -> None:
    runs = [make_run("ce", ("single", "multi"), tail=0.3), make_run("cdb_ce", ("single", "multi"), tail=0.8)]
    text = shown(compare(runs)) + shown(epoch_table(epoch_stats)) + shown(class_table(epoch_stats.tasks["verb"]))
    assert "…" not in text
    assert text.count("rec/prec") == 3 + 1 + 3  # no heading is broken or cut
    assert text.split().count("cdb_ce") == 2  # no name is folded


def test_the_comparison_has_one_line_a_run_and_says_how_many_classes_count(make_run: MakeRun) -> None:
    text = shown(compare([make_run("ce", tail=0.3), make_run("cdb_ce", tail=0.8)]))
    assert "verb (7/8 classes), test, in %" in text
    lines = [line.split() for line in text.splitlines() if line.split()[:1] in (["ce"], ["cdb_ce"])]
    assert [(line[0], line[1], len(line)) for line in lines] == [("ce", "6", 6), ("cdb_ce", "6", 6)]


def test_names_with_brackets_and_bars_are_shown_as_they_are(make_run: MakeRun, epoch_stats: EpochStats) -> None:
    run = make_run("a|b [bold]", names=("next_to", "[/red]", "get_on(sth)", "x", "y", "z", "u", "v"))
    assert "a|b [bold]" in shown(compare([run]))
    assert r"| a\|b [bold] |" in markdown(rows([run]))
    stats = epoch_stats.tasks["verb"]
    names = ClassList(("[/red]", "[bold]", *stats.task.classes.names[2:]))
    text = shown(class_table(replace(stats, task=Task("verb", names, "single"))))
    assert "[/red]" in text
    assert "[bold]" in text


def test_the_best_of_each_column_is_bold_and_undefined_values_are_not_available() -> None:
    found = [row("a", x=0.5, y=math.nan, z=0.25), row("b", x=0.75, y=0.1, z=0.25)]
    assert markdown(found).splitlines()[2:] == [
        "| a | 1 | 50.00 | n/a | 25.00 |",
        "| b | 1 | **75.00** | **10.00** | 25.00 |",
    ]


def test_folders_of_one_name_are_told_apart_by_their_paths(make_run: MakeRun) -> None:
    runs = [make_run("seed0/ce"), make_run("seed1/ce"), make_run("focal")]
    assert [run.name for run in read_runs(runs)] == [str(runs[0]), str(runs[1]), "focal"]


def test_the_epoch_table_has_one_line_a_task(epoch_stats: EpochStats) -> None:
    lines = shown(epoch_table(epoch_stats)).splitlines()
    assert lines[0].strip() == "val, in %"
    verb, noun = lines[3].split(), lines[4].split()
    scalars = epoch_stats.tasks["verb"].scalars
    pairs = [
        f"{100 * scalars[f'recall_{g}']:.1f}/{100 * scalars[f'precision_{g}']:.1f}"
        for g in ("macro", "majority", "minority")
    ]
    assert verb == ["4", "verb", "2.000", *(f"{100 * scalars[s]:.1f}" for s in ("top1", "top5", "map")), *pairs, "7/8"]
    assert noun[:5] == ["4", "noun", "2.000", "n/a", "n/a"]
    assert shown(epoch_table(epoch_stats, heading=False)).splitlines() == lines[3:]


def test_top_1_is_left_out_where_no_task_has_one(epoch_stats: EpochStats) -> None:
    assert "top-1" not in shown(epoch_table(replace(epoch_stats, tasks={"noun": epoch_stats.tasks["noun"]})))


def test_the_class_table_puts_frequent_classes_first_and_undefined_values_as_not_available(
    epoch_stats: EpochStats,
) -> None:
    stats = epoch_stats.tasks["verb"]
    lines = [line.split() for line in shown(class_table(stats)).splitlines()][4:]
    found = {line[0]: line[1:] for line in lines if line}
    assert [int(values[1]) for values in found.values()] == sorted(stats.support.tolist(), reverse=True)
    assert found["wipe"] == ["minority", "0", "n/a", "n/a", "n/a", "n/a"]
    assert found["take"][2] == f"{100 * stats.vectors['recall'][0]:.1f}"


def test_what_cannot_be_reported_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("ce", splits=("val",))
    (tmp_path / "fresh").mkdir()
    (tmp_path / "fresh" / "events.jsonl").write_text('{"event": "start", "step": 0}\n')
    refusals: list[tuple[str, Callable[[], object]]] = [
        ("no run directory given", lambda: rows([])),
        ("nowhere is not a run directory: it has no events.jsonl", lambda: rows([tmp_path / "nowhere"])),
        ("fresh: the run has not been evaluated yet", lambda: rows([tmp_path / "fresh"])),
        ("ce: task 'verb' has not been evaluated on 'test', only on: val", lambda: rows([run])),
        ("ce: no task 'verbs', evaluated were: verb; did you mean 'verb'?", lambda: rows([run], task="verbs")),
        (
            "ce: no scalar 'recal_macro'; did you mean 'recall_macro'?",
            lambda: rows([run], split="val", best="recal_macro"),
        ),
    ]
    for message, make in refusals:
        with pytest.raises(ReportError) as refusal:
            make()
        assert message in str(refusal.value)


def test_a_scalar_that_is_never_defined_has_no_best(make_run: MakeRun) -> None:
    run = make_run("ce", counts=(9, 9, 9, 3), names=("a", "b", "c", "d"))  # the only minority class has no sample
    with pytest.raises(ReportError, match="ce: verb/recall_minority on 'val' is n/a in all 6 evaluations"):
        rows([run], split="val", best="recall_minority")
    assert "n/a" in markdown(rows([run]))


def test_label_kinds_that_differ_cannot_share_a_table(make_run: MakeRun) -> None:
    single, multi = make_run("single"), make_run("multi", labels=("multi",))
    log = multi / "events.jsonl"
    log.write_text(log.read_text().replace("noun", "verb"))
    with pytest.raises(ReportError, match="task 'verb' is single-label in some of the runs and multi-label in others"):
        rows([single, multi])
