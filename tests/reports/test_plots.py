"""Plots of runs, read back as pixels."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from hoi_train.core.palette import CYCLE, SHADE
from hoi_train.metrics.pairs import GROUPS as TRIPLET_GROUPS
from hoi_train.metrics.pairs import PROTOCOLS, triplet_names
from hoi_train.reports.plots import MARKERS, history, per_class_recall
from hoi_train.reports.runs import ReportError
from tests.reports.conftest import VERBS

MakeRun = Callable[..., Path]


def pixels(path: Path, colour: str) -> np.ndarray:
    """Return where the image has a colour, bool [H, W]."""
    return (np.abs(imread(path)[..., :3] - to_rgb(colour)) < 1 / 255).all(-1)


def test_recall_is_drawn_for_every_run_and_the_majority_is_shaded(make_run: MakeRun, tmp_path: Path) -> None:
    path = tmp_path / "plots" / "recall.png"  # the folder is made
    per_class_recall([make_run("ce", tail=0.3), make_run("cdb_ce", tail=0.8)], path)
    assert [pixels(path, colour).any() for colour in CYCLE[:3]] == [True, True, False]
    # Three classes of eight are the majority, and they are on top.
    shaded = np.flatnonzero(pixels(path, SHADE).sum(1) > 200)
    assert shaded.max() < imread(path).shape[0] / 2


def test_a_better_recall_is_drawn_further_right(make_run: MakeRun, tmp_path: Path) -> None:
    path = tmp_path / "recall.png"
    per_class_recall([make_run("hopeless", tail=-5.0), make_run("perfect", tail=5.0)], path)
    lowest_rows = slice(imread(path).shape[0] * 2 // 3, None)  # minority classes only, no legend
    rightmost = [np.flatnonzero(pixels(path, colour)[lowest_rows].any(0)).max() for colour in CYCLE[:2]]
    width = imread(path).shape[1]
    assert rightmost[0] < 0.2 * width
    assert rightmost[1] > 0.9 * width


def test_there_is_a_panel_for_every_task_and_room_for_every_class(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("ce", labels=("single", "multi"))
    many = make_run("many", names=tuple(f"class {i}" for i in range(50)), counts=tuple(range(52, 2, -1)))
    heights = {}
    for name, runs, task in (("one", [run], "verb"), ("both", [run], None), ("many", [many], None)):
        per_class_recall(runs, tmp_path / "plot.png", task=task)
        heights[name] = imread(tmp_path / "plot.png").shape[0]
    assert heights["both"] > 1.6 * heights["one"]
    assert heights["many"] > 50 * 30  # pixels a class


def test_history_shows_every_run(make_run: MakeRun, tmp_path: Path) -> None:
    path = tmp_path / "history.png"
    history([make_run("ce", epochs=30), make_run("cdb_ce", tail=0.5, epochs=30)], path)
    assert [pixels(path, colour).any() for colour in CYCLE[:3]] == [True, True, False]
    history([make_run("multi", labels=("multi",), epochs=1)], path)  # one epoch is a point, not an empty panel
    assert pixels(path, CYCLE[0]).sum() > 6 * 20


def test_history_of_pairs_has_the_protocols_of_vidhoi(make_run: MakeRun, tmp_path: Path) -> None:
    path, plain = tmp_path / "history.png", make_run("plain", labels=("multi",))
    history([plain], path)
    height = imread(path).shape[0]
    pairs = [make_run(name, labels=("multi",)) for name in ("bce", "asl")]
    for run, gain in zip(pairs, (0.02, 0.04), strict=True):
        lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
        lines[0] |= {"labels": {"noun": "multi"}, "of": {"noun": "pair"}, "classes": {"noun": list(VERBS)}}
        scalars = [triplet_names(protocol, group)[0] for protocol in PROTOCOLS for group in TRIPLET_GROUPS]
        for line in lines:
            if line["event"] == "evaluation":
                for scalar in scalars:
                    line["scalars"][f"noun/{scalar}"] = None if "rare" in scalar else 0.2 + gain * line["epoch"]
        (run / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    history(pairs, path)
    assert imread(path).shape[0] == 2 * height
    # The second line of panels is VidHOI's, the third that of the triplets.
    panels = [pixels(path, colour)[height // 2 : 3 * height // 2].any(1) for colour in CYCLE[:2]]
    assert all(of_run[: height // 2].any() and of_run[height // 2 :].any() for of_run in panels)
    history([plain, *pairs], path)  # a run without them has no curve there
    assert imread(path).shape[0] == 2 * height


def test_names_are_text_not_markup(make_run: MakeRun, tmp_path: Path) -> None:
    names = ("$x$", "$\\frac{", "_hidden", "a_b", "next to/on", "(sth)", "%", "&")
    per_class_recall([make_run("_run $1$", names=names)], tmp_path / "plot.png")
    history([make_run("_run $1$", names=names)], tmp_path / "history.png")
    per_class_recall([make_run("run", names=names)], tmp_path / "other.png")
    assert (tmp_path / "plot.png").read_bytes() != (tmp_path / "other.png").read_bytes()  # the legend has the name


def test_no_two_of_many_runs_look_alike() -> None:
    looks = {(CYCLE[i % len(CYCLE)], MARKERS[i % len(MARKERS)]) for i in range(42)}
    assert len(looks) == 42


def test_what_cannot_be_drawn_together_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    run, both = make_run("ce"), make_run("both", labels=("single", "multi"))
    multi = make_run("multi", labels=("multi",))
    (multi / "events.jsonl").write_text((multi / "events.jsonl").read_text().replace("noun", "verb"))
    uncounted = make_run("uncounted")
    log = uncounted / "events.jsonl"
    log.write_text(log.read_text().replace('"class_counts"', '"other"'))
    others = {
        "classes": make_run("named", names=tuple("abcdefgh")),
        "groups": make_run("grouped", majority=4),
        "training counts": make_run("counted", counts=(121, 90, 60, 40, 20, 10, 5, 3)),
    }
    for what, other in others.items():
        with pytest.raises(ReportError, match=f"ce and {other.name} have different {what} of task 'verb'"):
            per_class_recall([run, other], path)
    with pytest.raises(ReportError, match="uncounted: the start record has no class_counts of task 'verb'"):
        per_class_recall([uncounted], path)
    with pytest.raises(ReportError, match="the runs have several tasks, name one of them: verb, noun"):
        history([both], path)
    with pytest.raises(ReportError, match="task 'verb' is single-label in some of the runs and multi-label in others"):
        history([run, multi], path)
    assert not path.exists()


@pytest.mark.process
def test_heavy_libraries_wait_for_their_use_and_pyplot_is_never_loaded(make_run: MakeRun, tmp_path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
import hoi_train.metrics.gather, hoi_train.metrics.groups, hoi_train.reports.tables
from hoi_train.reports.plots import per_class_recall
early = {{"matplotlib", "torchmetrics", "torchvision"}} & set(sys.modules)
assert not early, early
per_class_recall([Path({str(make_run("ce"))!r})], Path({str(tmp_path / "plot.png")!r}))
assert "matplotlib.pyplot" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
