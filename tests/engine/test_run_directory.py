"""What a run directory is asked later: with data that changed, files that were damaged, and weights that are gone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from hoi_train.tracking.events import read_events
from tests.engine.processes import run, torchrun
from tests.small import make_config

SPLIT_NOUN: dict[str, Any] = {
    "loss": "bce",
    "groups": {"name": "top_k", "k": 1},
    "head": {"name": "split", "first": [1]},
}


@pytest.fixture(scope="module")
def data(manifest: Path) -> Path:
    return manifest.parent


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a configuration and of its run, which is at its end: moving average, float64, starting weights."""
    folder = tmp_path_factory.mktemp("trained")
    first = make_config(folder / "first", data / "manifest.parquet", training={"epochs": 1})
    assert run(["train", str(first)], folder / "log") == 0, (folder / "log").read_text()
    newest = max((folder / "first/small-seed3/checkpoints").iterdir())
    shutil.copy(newest / "model.pt", folder / "start.pt")
    config = make_config(
        folder,
        data / "manifest.parquet",
        tasks={"noun": SPLIT_NOUN},
        model={"weights": str(folder / "start.pt")},
        training={"epochs": 2, "ema_decay": 0.5, "precision": "64-true"},
    )
    assert run(["train", str(config)], folder / "log") == 0, (folder / "log").read_text()
    assert "tensors loaded" in (folder / "log").read_text()
    return folder


@pytest.fixture
def copied(trained: Path, data: Path, tmp_path: Path) -> Path:
    """The same with its data in another folder, without the starting weights; it may be changed."""
    shutil.copytree(data, tmp_path / "data")
    shutil.copytree(trained / "small-seed3", tmp_path / "small-seed3")
    for path in (tmp_path / "small-seed3/config.yaml", tmp_path / "small-seed3/events.jsonl"):
        path.write_text(
            path.read_text().replace(str(data), str(tmp_path / "data")).replace(str(trained), str(tmp_path))
        )
    return tmp_path


def unfinished(folder: Path) -> Path:
    """Take the end of a run off its record; return the configuration it kept."""
    events = folder / "small-seed3/events.jsonl"
    events.write_text("".join(line + "\n" for line in events.read_text().splitlines() if '"event": "end"' not in line))
    shutil.copy(folder / "small-seed3/config.yaml", folder / "again.yaml")
    return folder / "again.yaml"


def refused(arguments: list[str], folder: Path) -> str:
    assert run(arguments, folder / "log") == 2
    text = (folder / "log").read_text()
    assert "Traceback" not in text
    return text


def test_a_moving_average_evaluates_later_as_in_training(copied: Path) -> None:
    arguments = ["evaluate", str(copied / "small-seed3"), "--split", "val", "--checkpoint", "last"]
    assert run(arguments, copied / "log") == 0, (copied / "log").read_text()
    again = json.loads((copied / "small-seed3/evaluation_val.json").read_text())["scalars"]
    events = read_events(copied / "small-seed3/events.jsonl")
    then = [row for row in events if row["event"] == "evaluation" and row["split"] == "val"][-1]["scalars"]
    assert then["noun/loss"] == pytest.approx(again["noun/loss"], rel=1e-12)
    assert {key: value for key, value in then.items() if key != "verb/loss"} == pytest.approx(
        {key: value for key, value in again.items() if key != "verb/loss"}, rel=1e-12, nan_ok=True
    )


def test_the_starting_weights_are_needed_only_at_the_start(copied: Path) -> None:
    config = unfinished(copied)
    assert not (copied / "start.pt").exists()
    assert run(["train", str(config)], copied / "log") == 0, (copied / "log").read_text()
    assert "resumed" in (copied / "log").read_text()
    shutil.rmtree(copied / "small-seed3")
    assert "start.pt is not there" in refused(["config", "check", str(config)], copied)
    assert "start.pt does not exist" in refused(["train", str(config)], copied)
    assert not (copied / "small-seed3").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tasks: tasks["verb"]["classes"].reverse(), "classes"),
        (lambda tasks: tasks["verb"]["classes"].append("wipe"), "class counts, classes"),
    ],
)
def test_other_classes_than_those_trained_are_refused(change: Any, words: str, copied: Path) -> None:
    path = copied / "data/dataset.json"
    content = json.loads(path.read_text())
    change(content["tasks"])
    path.write_text(json.dumps(content))
    text = refused(["evaluate", str(copied / "small-seed3")], copied)
    assert f"has changed since {copied / 'small-seed3'} began, in: classes" in text
    text = refused(["train", str(unfinished(copied))], copied)
    assert f"began, in: {words}" in text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", "a: [", "config.yaml: damaged, not readable as YAML"),
        ("config.yaml", "- a", "config.yaml: damaged, it must hold keys and values, got list"),
        ("events.jsonl", "{\n{}\n", "events.jsonl, line 1: not JSON"),
        ("thresholds.json", "{", "thresholds.json: damaged (JSONError: not JSON: Expecting"),
        ("thresholds.json", '{"checkpoint": "CHOSEN", "thresholds": {"noun": {"cup": 0.5}}}', "(KeyError: 'plate')"),
        ("thresholds.json", "[]", "fit the thresholds again (--fit-thresholds), or remove the file"),
    ],
)
def test_damaged_files_are_named(name: str, content: str, message: str, copied: Path) -> None:
    folder, config = copied / "small-seed3", unfinished(copied)
    chosen = max((folder / "checkpoints").iterdir()).name
    (folder / name).write_text(content.replace("CHOSEN", chosen))
    assert message in refused(["evaluate", str(folder), "--checkpoint", "last"], copied)
    if name != "thresholds.json":
        assert message in refused(["train", str(config)], copied)
    if name == "events.jsonl":
        assert message in refused(["compare", str(folder)], copied)


@pytest.mark.process
def test_the_loss_of_several_ranks_is_the_mean_of_theirs(data: Path, tmp_path: Path) -> None:
    """Two ranks see at a step what one process sees in two halves; without dropout their losses are the halves'."""
    head: Mapping[str, Any] = {"verb": {"head": {"dropout": 0.0}}}
    same = {"tasks": head, "loss": "cross_entropy", "data": {"train": {"name": "augment", "size": 32, "flip": 0.0}}}
    losses = []
    for name, ranks, accumulate in (("one", 1, 2), ("two", 2, 1)):
        training = {"epochs": 1, "batch_size": 2, "accumulate": accumulate}
        config = make_config(tmp_path / name, data / "manifest.parquet", **same, training=training)
        torchrun(["scripts/train.py", config], tmp_path / f"{name}.log", ranks=ranks)
        events = read_events(tmp_path / name / "small-seed3/events.jsonl")
        losses.append(next(row["scalars"]["loss"] for row in events if row["event"] == "train"))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_moving_average_starts_another_run(trained: Path, data: Path, tmp_path: Path) -> None:
    newest = max((trained / "small-seed3/checkpoints").iterdir())
    assert "n_averaged" in torch.load(newest / "average.pt", weights_only=True)
    config = make_config(
        tmp_path,
        data / "manifest.parquet",
        tasks={"noun": SPLIT_NOUN},
        model={"weights": str(newest / "average.pt")},
        training={"epochs": 1},
    )
    assert run(["train", str(config)], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert "initial values kept" not in (tmp_path / "log").read_text()
