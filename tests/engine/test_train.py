"""Whole runs on a small data set: what they leave behind, and that they stop when they should."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml

from hoi_train.config import load_config
from hoi_train.data.manifest import read_manifest, write_manifest
from hoi_train.engine.experiment import assemble
from hoi_train.engine.run import chosen_checkpoint
from hoi_train.engine.train import launch, load_checkpoint
from hoi_train.tracking.events import read_events
from tests.engine.processes import run, run_apart, start, torchrun
from tests.small import make_config
from tests.tracking.offline_run import offline_runs

TWO_TASKS: dict[str, Any] = {
    "tasks": {
        "noun": {
            "loss": {"name": "cb_focal"},
            "groups": {"name": "top_k", "k": 1},
            "head": {"name": "linear", "prior": 0.1},
        }
    }
}


@pytest.fixture(scope="module")
def finished(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two tasks, single- and multi-label, that has come to its end."""
    folder = tmp_path_factory.mktemp("runs")
    config = make_config(folder, manifest, **TWO_TASKS)
    assert run(["train", str(config)], folder / "log") == 0, (folder / "log").read_text()
    return folder / "small-seed3"


def test_every_epoch_is_recorded_with_averages_and_classes(finished: Path) -> None:
    events = read_events(finished / "events.jsonl")
    validations = [row for row in events if row["event"] == "evaluation" and row["split"] == "val"]
    assert [row["epoch"] for row in validations] == [0, 1, 2]
    for row in validations:
        for name in ("loss", "top1", "top5", "recall_macro", "recall_majority", "precision_minority"):
            assert f"verb/{name}" in row["scalars"]
        assert row["scalars"]["noun/map"] is not None
        assert len(row["tasks"]["verb"]["recall"]) == 3
        assert sum(map(sum, row["tasks"]["verb"]["confusion"])) == row["tasks"]["verb"]["num_samples"] == 5
    assert sum(row["event"] == "train" for row in events) == 9
    assert [row["split"] for row in events if row["event"] == "evaluation"][-1] == "test"
    assert (events[0]["event"], events[-1]["event"]) == ("start", "end")
    assert set(events[0]["readers"]) == {"train", "val", "test"}
    assert set(events[0]["readers"]["val"]) == {"pyav"}


def test_the_weights_of_cdb_are_recorded_after_each_validation(finished: Path) -> None:
    events = read_events(finished / "events.jsonl")
    weights = [row for row in events if row["event"] == "weights" and row["task"] == "verb"]
    assert [row["epoch"] for row in weights] == [0, 1, 2]
    assert all(sum(row["values"]) == pytest.approx(3) for row in weights)


def test_the_resolved_configuration_is_kept(finished: Path) -> None:
    kept = yaml.safe_load((finished / "config.yaml").read_text())
    assert kept["data"]["reader"] == "auto"
    assert kept["tasks"]["noun"]["loss"]["beta"] == 0.9999


def test_two_checkpoints_and_the_best_are_kept(finished: Path) -> None:
    steps = sorted(path.name for path in (finished / "checkpoints").iterdir())
    assert steps[-2:] == ["step_00000006", "step_00000009"]
    assert len(steps) <= 3


def test_evaluate_gives_the_numbers_of_training_again(finished: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert run(["evaluate", str(finished), "--split", "val", "--checkpoint", "last"], log) == 0, log.read_text()
    again = json.loads((finished / "evaluation_val.json").read_text())
    events = [row for row in read_events(finished / "events.jsonl") if row["event"] == "evaluation"]
    first = next(row for row in events if row["epoch"] == 2 and row["split"] == "val")
    for name, value in first["scalars"].items():
        if not name.endswith("/loss"):  # CDB's weights have moved on since
            assert again["scalars"][name] == value, name
    assert "pour" in log.read_text()


def test_thresholds_are_fitted_for_the_tasks_of_several_labels(finished: Path, tmp_path: Path) -> None:
    try:
        assert run(["evaluate", str(finished), "--split", "val", "--fit-thresholds"], tmp_path / "log") == 0
        assert list(json.loads((finished / "thresholds.json").read_text())["thresholds"]) == ["noun"]
    finally:
        (finished / "thresholds.json").unlink(missing_ok=True)


def test_a_checkpoint_is_evaluated_in_the_epoch_it_was_saved_in(finished: Path) -> None:
    config = load_config(finished / "config.yaml")
    experiment, chosen = assemble(config), chosen_checkpoint(finished, config, "last")
    for epoch, batch, expected in ((3, 0, 2), (2, 1, 2), (0, 1, 0)):
        saved = replace(chosen, cursor={**chosen.cursor, "epoch": epoch, "batch": batch})
        assert load_checkpoint(experiment, launch(config.training), saved) == expected


@pytest.mark.process
def test_two_ranks_evaluate_as_one_process_does(finished: Path, tmp_path: Path) -> None:
    arguments = [str(finished), "--split", "test"]
    assert run(["evaluate", *arguments], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    one = json.loads((finished / "evaluation_test.json").read_text())
    torchrun(["scripts/evaluate.py", *arguments], tmp_path / "ranks")
    two = json.loads((finished / "evaluation_test.json").read_text())
    assert one["tasks"]["verb"]["confusion"] == two["tasks"]["verb"]["confusion"]
    assert one["scalars"] == pytest.approx(two["scalars"], abs=1e-6, nan_ok=True)


def test_compare_prints_a_table_and_a_plot(finished: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    arguments = ["compare", str(finished), "--task", "verb", "--plot", str(tmp_path / "recall.png")]
    assert run(arguments, log) == 0, log.read_text()
    assert "minority" in log.read_text()
    assert (tmp_path / "recall.png").read_bytes().startswith(b"\x89PNG")


def test_patience_ends_a_run_early(manifest: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, manifest, optimizer={"lr": 1e-12}, training={"epochs": 9, "patience": 2})
    assert run(["train", str(config)], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    events = read_events(tmp_path / "small-seed3" / "events.jsonl")
    end = next(row for row in events if row["event"] == "end")
    last = max(row["epoch"] for row in events if row["event"] == "evaluation" and row["split"] == "val")
    assert last == end["best_epoch"] + 2 < 8


def test_a_value_that_is_not_finite_stops_before_the_weights(manifest: Path, tmp_path: Path) -> None:
    changes = {"optimizer": {"lr": 1e30}, "loss": "cross_entropy", "checkpoints": {"every_steps": 1}}
    config = make_config(tmp_path, manifest, **changes)
    log = tmp_path / "log"
    assert run(["train", str(config)], log) == 2
    text = log.read_text()
    assert "not a finite number, so the weights were left as they were" in text
    assert "train_" in text, "the message names the clips"
    newest = max((tmp_path / "small-seed3" / "checkpoints").iterdir())
    model = torch.load(newest / "model.pt", weights_only=True)
    assert all(value.isfinite().all() for value in model.values())


@pytest.mark.process
def test_a_second_process_is_refused(manifest: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, manifest, training={"epochs": 200})
    first = start(["train", str(config)], tmp_path / "first")
    events = tmp_path / "small-seed3" / "events.jsonl"
    while not (events.exists() and '"train"' in events.read_text()):
        first.join(0.05)
        assert first.exitcode is None, (tmp_path / "first").read_text()
    assert run(["train", str(config)], tmp_path / "second") == 2
    assert f"is being written by process {first.pid}" in (tmp_path / "second").read_text()
    first.kill()
    first.join()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": {"verbs": {}}}, "tasks.verbs: {manifest} has no such task; it has verb, noun; did you mean 'verb'?"),
        (
            {"loss": "bce"},
            "tasks.verb.loss: loss 'bce' does not fit the single-label task 'verb'; give it one of its own",
        ),
        ({"loss": "ldam"}, "tasks.verb.head: loss 'ldam' needs 'cosine', got 'linear'"),
        (
            {"loss": "ldam", "tasks": {"verb": {"head": {"name": "cosine", "scale": 16.0}}}},
            "tasks.verb.head.scale: loss 'ldam' needs 30.0, got 16.0",
        ),
        *(
            (
                {"loss": "ldam", "tasks": {"verb": {"head": "cosine"}}, "method": {"name": name, "epochs": 1}},
                f"method: '{name}' changes the head's logits, and tasks.verb.loss 'ldam' is made for those of the head",
            )
            for name in ("oltr", "lws")
        ),
        (
            {"loss": {"name": "cdb_ce", "from_epoch": 3}},
            "tasks.verb.loss: weights from epoch 3 on (counted from 0) would never be used: the last epoch that trains",
        ),
        (
            {"loss": {"name": "cdb_ce", "from_epoch": 2}, "method": "tau_norm"},
            "weights from epoch 2 on (counted from 0) would never be used: the last epoch that trains is 1",
        ),
        (
            {"loss": {"name": "cdb_ce", "from_epoch": 2}, "training": {"patience": 1}},
            "training.patience: 1 epochs may end the run before epoch 2, with which the weights of tasks.verb.loss",
        ),
        (
            {"data": {"sampling": {"name": "class_balanced", "task": "verbs"}}},
            "data.sampling.task: no task 'verbs'; this run has verb; did you mean 'verb'?",
        ),
        ({"tasks": {"verb": {"groups": {"k": 3}}}}, "tasks.verb.groups: groups rule top_k: k = 3 of 3 classes"),
        (
            {"checkpoints": {"monitor": "verb/loss", "mode": "max"}},
            "checkpoints.mode: 'max' keeps the largest verb/loss, which is the worst; leave it out",
        ),
        (
            {"checkpoints": {"monitor": "verb/recall_macro", "mode": "min"}},
            "checkpoints.mode: 'min' keeps the least verb/recall_macro, which is the worst; leave it out",
        ),
        ({"optimizer": {"nesterov": True, "momentum": 0.0}}, "optimizer: Nesterov momentum requires a momentum"),
        ({"checkpoints": {"monitor": "verb/recal"}}, "checkpoints.monitor: 'verb/recal' is not measured"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(
    changes: dict[str, Any], message: str, manifest: Path, tmp_path: Path
) -> None:
    config = make_config(tmp_path, manifest, **changes)
    assert run(["config", "check", str(config)], tmp_path / "log") == 2
    assert message.format(manifest=manifest) in (tmp_path / "log").read_text()


def test_a_backbone_that_cannot_be_built_is_refused(manifest: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, manifest, model={"backbone": {"width": 0.001}})
    assert run(["train", str(config)], tmp_path / "log") == 2
    assert "model.backbone: width 0.001 leaves a layer without channels" in (tmp_path / "log").read_text()
    assert not (tmp_path / "small-seed3").exists()


def test_a_task_without_a_label_is_refused(manifest: Path, tmp_path: Path) -> None:
    clips = read_manifest(manifest)
    nothing = pa.array([[]] * len(clips), pa.list_(pa.int32()))
    table = clips.table.set_column(clips.table.column_names.index("noun"), "noun", nothing)
    unlabelled = write_manifest(tmp_path / "unlabelled.parquet", table, list(clips.tasks.values()), root=clips.root)
    changes = {"tasks": {"noun": {"groups": {"name": "top_k", "k": 1}}}, "loss": "bce"}
    raw = yaml.safe_load(make_config(tmp_path, unlabelled, **changes).read_text())
    del raw["tasks"]["verb"]
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(raw))
    assert run(["train", str(tmp_path / "small.yaml")], tmp_path / "log") == 2
    assert f"tasks.noun: {unlabelled} has no label of it in the split 'train'" in (tmp_path / "log").read_text()


def test_the_same_seed_makes_the_same_weights(manifest: Path, tmp_path: Path) -> None:
    config = load_config(make_config(tmp_path, manifest))
    before = torch.get_rng_state()
    one, two = (assemble(config).model.state_dict() for _ in range(2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    torch.set_rng_state(before)


@pytest.mark.process
def test_the_offline_run_of_a_training_is_read_back(manifest: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, manifest, wandb={"mode": "offline"})
    assert run_apart(["train", str(config)], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    (mirrored,) = offline_runs(tmp_path / "small-seed3")
    events = read_events(tmp_path / "small-seed3" / "events.jsonl")
    losses = [row["scalars"]["loss"] for row in events if row["event"] == "train"]
    assert [row["train/loss"] for row in mirrored.history if "train/loss" in row] == losses
    recalls = [row["val/verb/recall_macro"] for row in mirrored.history if "val/verb/recall_macro" in row]
    kept = [row["scalars"]["verb/recall_macro"] for row in events if row["event"] == "evaluation"]
    assert recalls == kept[:3]
    assert mirrored.config["loss"]["name"] == "cdb_ce"
    assert mirrored.axes["train/*"] == "step"
    assert mirrored.of("run")[0]["run_id"] == (tmp_path / "small-seed3" / "wandb_id").read_text()


@pytest.mark.process
def test_two_ranks_set_the_classifier_and_are_resumed_by_one_command(manifest: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, manifest, method="ncm", training={"batch_size": 2, "epochs": 3})
    torchrun(["scripts/train.py", config], tmp_path / "first")
    events = read_events(tmp_path / "small-seed3" / "events.jsonl")
    assert [row["step"] for row in events if row["event"] == "train"] == [1, 2, 3, 4, 5, 6]
    validated = [row["epoch"] for row in events if row["event"] == "evaluation" and row["split"] == "val"]
    assert validated == [0, 1, 2], "the last epoch trains nothing"
    newest = max((tmp_path / "small-seed3" / "checkpoints").iterdir())
    assert torch.load(newest / "model.pt", weights_only=True)["heads.verb.fitted"]
    assert events[-1]["event"] == "end"
    assert "is finished" in torchrun(["scripts/train.py", config], tmp_path / "again")
