"""The tables and plots of a manifest."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread
from rich.console import Console

from data_tools.cli import main
from data_tools.stats.command import show_stats
from data_tools.stats.labels import labels_of, together
from data_tools.stats.tasks import task_facts
from hoi_train.core.records import ClassList, Task
from hoi_train.data.manifest import read_manifest, write_manifest

VERB = Task("verb", ClassList(("put", "take", "[red]odd[/red]", "$never$")), "single")
NOUN = Task("noun", ClassList(("cup", "plate")), "multi")
PREDICATE = Task("predicate", ClassList(("hold", "next to")), "multi", of="pair")
PAIR = {
    "frame": 0,
    "person_id": 0,
    "object_id": 1,
    "person_box": [0, 0, 1, 1],
    "object_box": [0, 0, 1, 1],
    "object_class": "cup",
    "predicates": ["hold"],
}


def row(number: int, split: str, verb: str, nouns: list[str], **more: Any) -> dict[str, Any]:
    return {"clip_id": str(number), "path": f"{number}.mp4", "split": split, "verb": verb, "noun": nouns, **more}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    for number in range(3):
        (tmp_path / f"{number}.mp4").write_bytes(b"x" * 1000 * (number + 1))
    pairs = [PAIR, {**PAIR, "frame": 1}]
    rows = [
        row(0, "train", "take", ["cup"], group="A", start=1.0, end=3.5),
        row(1, "train", "take", ["cup", "plate"], group="B", num_frames=48, fps=24.0, pairs=pairs),
        row(2, "train", "put", [], group="B", end=4.0),
        row(3, "val", "[red]odd[/red]", ["cup"], group="B"),
    ]
    return write_manifest(tmp_path / "m.jsonl", rows, [VERB, NOUN, PREDICATE], tmp_path)


def shown(path: Path, out: Path | None = None) -> str:
    stream = io.StringIO()
    show_stats(path, out, Console(file=stream, width=100))
    return stream.getvalue()


def test_tables_say_what_is_there(path: Path) -> None:
    text = shown(path)
    lines = [[cell.strip() for cell in line.strip("│┃").replace("┃", "│").split("│")] for line in text.splitlines()]
    for cells in (
        ["clips", "3", "1"],
        ["groups (subjects, sources)", "2", "1"],
        ["of them in another split too", "1", "1"],
        ["seconds, min / median / max", "2 / 2.5 / 4", ""],
        ["frames, min / median / max", "48 / 48 / 48", ""],
        ["MB in all", "0.0", ""],
        ["kB a file, min / median / max", "1 / 2 / 3", ""],
        ["files missing on disk", "0", "1"],
        ["frames a second: clips", "24: 1", ""],
        ["1", "take", "2", "0", "0.00"],
        ["0", "put", "1", "0", "0.00"],
        ["2", "[red]odd[/red]", "0", "1", ""],
        ["3", "$never$", "0", "0", ""],
        ["", "all clips", "3", "1", ""],
        ["", "all pairs", "2", "0", ""],
        ["take", "cup", "2"],
        ["cup", "plate", "1"],
    ):
        assert cells in lines
    assert "verb: single-label, 4 classes, imbalance factor 2, Gini 0.5833, 2 classes never in train" in text
    assert "few-shot (fewer than 20): 2, never: 2" in text
    assert "labels a clip: 1.00 on the mean; labels: clips = 0: 1, 1: 2, 2: 1" in text
    assert "shift from train to val: Jensen-Shannon divergence 1 bits (0 alike, 1 disjoint)" in text
    assert "note: " in text
    assert "split val has classes that train never has: [red]odd[/red]" in text


def test_facts_of_a_task(path: Path) -> None:
    manifest = read_manifest(path)
    facts = task_facts(manifest, VERB)
    assert facts.counts == {"train": (1, 2, 0, 0), "val": (0, 0, 1, 0)}
    assert (facts.tail_of, facts.imbalance) == ("train", 2.0)
    assert facts.shift["val"].divergence == 1.0
    predicates = task_facts(manifest, PREDICATE)
    assert predicates.labels_each == (0, 2)
    assert math.isnan(predicates.shift["val"].divergence)


def test_labels_and_what_occurs_together_are_those_of_the_manifest(path: Path) -> None:
    manifest = read_manifest(path)
    multi_hot = manifest.labels("noun").double()
    nouns, verbs = labels_of(manifest, NOUN), labels_of(manifest, VERB)
    assert nouns.multi_hot(0, 4).tolist() == multi_hot.tolist()
    assert nouns.multi_hot(1, 3).tolist() == multi_hot[1:3].tolist()
    assert together(nouns, nouns).tolist() == (multi_hot.T @ multi_hot).tolist()
    assert together(verbs, nouns).tolist() == [[0, 0], [2, 1], [1, 0], [0, 0]]
    pairs = labels_of(manifest, PREDICATE)
    assert (pairs.rows.tolist(), pairs.samples.tolist(), pairs.classes.tolist()) == ([1, 1], [0, 1], [0, 0])


def test_plots_are_written_below_out_only(path: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    shown(path)
    assert sorted(tmp_path.iterdir()) == before
    text = shown(path, tmp_path / "out")
    plots = sorted((tmp_path / "out").iterdir())
    assert [plot.name for plot in plots] == [
        "class_counts_noun.png",
        "class_counts_predicate.png",
        "class_counts_verb.png",
        "lengths.png",
        "shift_noun.png",
        "shift_verb.png",
        "stats.html",
        "stats.json",
        "together_noun.png",
        "together_verb_noun.png",
    ]
    assert all(
        plot.read_bytes().startswith(b"\x89PNG") and plot.stat().st_size > 5000
        for plot in plots
        if plot.suffix == ".png"
    )
    assert all(f"written: {plot}" in text for plot in plots)


def test_the_numbers_as_json(path: Path, tmp_path: Path) -> None:
    assert main(["stats", str(path), "--out", str(tmp_path / "out"), "--probe"]) == 0
    content = json.loads((tmp_path / "out" / "stats.json").read_text())
    verb = content["tasks"]["verb"]
    assert verb["classes"] == list(VERB.classes)
    assert verb["counts"] == {"train": [1, 2, 0, 0], "val": [0, 0, 1, 0]}
    assert verb["shift_from_train"]["val"]["share_ratios"] == [0, 0, None, None]
    assert content["tasks"]["predicate"]["shift_from_train"]["val"]["jensen_shannon_bits"] is None
    assert content["clips"]["train"]["seconds"]["max"] == 4
    assert content["together"] == [
        {"tasks": ["noun", "noun"], "of": "clip", "classes_and_count": [[0, 1, 1]]},
        {"tasks": ["predicate", "predicate"], "of": "pair", "classes_and_count": []},
        {"tasks": ["verb", "noun"], "of": "clip", "classes_and_count": [[1, 0, 2], [1, 1, 1], [2, 0, 1]]},
    ]
    assert list(content["files"]["unreadable"]) == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    assert main(["stats", str(path), "--workers", "0"]) == 2


def test_a_split_without_training_clips_is_shown(tmp_path: Path) -> None:
    made = write_manifest(tmp_path / "m.csv", [row(0, "test", "put", ["cup"])], [VERB, NOUN], tmp_path)
    text = shown(made, tmp_path / "out")
    assert "imbalance factor 1 (of test), Gini 0.75, 3 classes never in test" in text
    assert "no clip is in split train" in text


def test_a_manifest_without_any_label_is_shown(tmp_path: Path) -> None:
    rows = [{"clip_id": split, "path": f"{split}.mp4", "split": split, "noun": []} for split in ("train", "val")]
    made = write_manifest(tmp_path / "m.jsonl", rows, [NOUN, PREDICATE], tmp_path)
    text = shown(made, tmp_path / "out")
    assert "imbalance factor n/a, Gini n/a, 2 classes never in train" in text
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["stats.html", "stats.json"]


def test_many_classes_make_a_taller_plot(tmp_path: Path) -> None:
    heights = []
    for number in (2, 40):
        task = Task("verb", ClassList(tuple(f"class {k}" for k in range(number))), "single")
        rows = [
            {"clip_id": str(k), "path": "a", "split": "train", "verb": f"class {k % number}"} for k in range(3 * number)
        ]
        made = write_manifest(tmp_path / str(number) / "m.csv", rows, [task], tmp_path)
        plot, *_ = show_stats(made, tmp_path / str(number), Console(file=io.StringIO()))
        heights.append(imread(plot).shape[0])
    assert heights[1] > 3 * heights[0]


def test_hundreds_of_classes_are_drawn_by_rank(tmp_path: Path) -> None:
    task = Task("verb", ClassList(tuple(f"class {k}" for k in range(300))), "multi")
    rows = [
        {
            "clip_id": str(k),
            "path": "a",
            "split": ("train", "val")[k % 2],
            "verb": [f"class {k % 300}", f"class {k % 7}"],
        }
        for k in range(300, 900)
        if k % 300 != k % 7
    ]
    made = write_manifest(tmp_path / "m.jsonl", rows, [task], tmp_path)
    files = show_stats(made, tmp_path / "out", Console(file=io.StringIO()))
    assert all(max(imread(file).shape) < 3000 for file in files if file.suffix == ".png")
