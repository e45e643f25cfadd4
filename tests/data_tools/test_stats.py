"""The tables and plots of a manifest."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from data_tools.stats import by_count, class_counts, imbalance, show_stats
from hoi_train.data.manifest import read_manifest, write_manifest
from hoi_train.records import ClassList, Task

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
    rows = [
        row(0, "train", "take", ["cup"], group="A", start=1.0, end=3.5),
        row(1, "train", "take", ["cup", "plate"], group="B", num_frames=48, fps=24.0, pairs=[PAIR, PAIR]),
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
        ["1", "take", "2", "0"],
        ["0", "put", "1", "0"],
        ["2", "[red]odd[/red]", "0", "1"],
        ["3", "$never$", "0", "0"],
        ["", "all clips", "3", "1"],
        ["", "all pairs", "2", "0"],
    ):
        assert cells in lines
    assert "verb: single-label, 4 classes, imbalance factor 2, 2 classes never in train" in text
    assert "note: " in text
    assert "split val has classes that train never has: [red]odd[/red]" in text


def test_counts_order_and_imbalance(path: Path) -> None:
    manifest = read_manifest(path)
    counts = class_counts(manifest, VERB)
    assert counts == {"train": (1, 2, 0, 0), "val": (0, 0, 1, 0)}
    assert by_count(counts) == [1, 0, 2, 3]
    assert imbalance(counts) == 2.0
    assert math.isnan(imbalance({"train": (0, 0)}))
    assert math.isnan(imbalance({"val": (1, 2)}))


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
    ]
    assert all(plot.read_bytes().startswith(b"\x89PNG") and plot.stat().st_size > 5000 for plot in plots)
    assert all(f"plot: {plot}" in text for plot in plots)


def test_a_split_without_training_clips_is_shown(tmp_path: Path) -> None:
    made = write_manifest(tmp_path / "m.csv", [row(0, "test", "put", ["cup"])], [VERB, NOUN], tmp_path)
    text = shown(made, tmp_path / "out")
    assert "imbalance factor nan" in text
    assert "no clip is in split train" in text


def test_many_classes_make_a_taller_plot(tmp_path: Path) -> None:
    from matplotlib.image import imread

    heights = []
    for number in (2, 40):
        task = Task("verb", ClassList(tuple(f"class {k}" for k in range(number))), "single")
        rows = [
            {"clip_id": str(k), "path": "a", "split": "train", "verb": f"class {k % number}"} for k in range(3 * number)
        ]
        made = write_manifest(tmp_path / str(number) / "m.csv", rows, [task], tmp_path)
        (plot,) = show_stats(made, tmp_path / str(number), Console(file=io.StringIO()))
        heights.append(imread(plot).shape[0])
    assert heights[1] > 3 * heights[0]
