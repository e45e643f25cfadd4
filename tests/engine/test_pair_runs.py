"""Whole runs on human-object pairs: learning, evaluation, resuming, ranks, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hoi_train.cli import main
from hoi_train.data.detections_file import write_detections
from hoi_train.data.manifest import read_manifest, write_manifest
from hoi_train.metrics import METRICS
from hoi_train.metrics.metric import PairMetric
from hoi_train.tracking.events import read_events
from tests.engine.processes import run, torchrun
from tests.engine.test_resume import assert_identical, final_state
from tests.pairs import OBJECTS, detections_like, make_pair_data
from tests.small import make_config, make_data

PAIR_NUMBERS = {name for line in METRICS.values() if isinstance(line, PairMetric) for name in line.numbers}


@pytest.fixture(scope="module")
def manifest(pair_manifest: Path) -> Path:
    return pair_manifest


def pair_config(folder: Path, manifest: Path, **changes: Any) -> Path:
    path = make_config(folder, manifest)
    raw = yaml.safe_load(path.read_text())
    raw["tasks"] = {"predicate": {"groups": {"name": "top_k", "k": 1}}}
    raw["data"] |= {"plan": "around_key", "num_frames": 4}
    raw["data"]["train"] |= {"scale": [0.9, 1.0], "flip": 0.0}
    raw["data"]["evaluation"] |= {"scale": 1.0}
    raw["model"] = {
        "backbone": {"name": "tiny_resnext3d", "cardinality": 2, "strides": [1, 2, 1, 1]},
        "pooling": {"name": "roi", "features": 32, "along": "trajectory"},
    }
    raw |= {"loss": "bce", "optimizer": {"name": "adamw", "lr": 0.005}}
    for section, values in changes.items():
        raw[section] = {**raw[section], **values} if isinstance(raw.get(section), dict) else values
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.fixture(scope="module")
def finished(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has come to its end."""
    folder = tmp_path_factory.mktemp("runs")
    config = pair_config(folder, manifest, training={"epochs": 16})
    assert run(["train", str(config)], folder / "log") == 0, (folder / "log").read_text()
    return folder / "small-seed3"


def scalars_of(folder: Path, epoch: int) -> dict[str, float]:
    rows = [row for row in read_events(folder / "events.jsonl") if row["event"] == "evaluation"]
    found: dict[str, float] = next(row for row in rows if row["split"] == "val" and row["epoch"] == epoch)["scalars"]
    return found


def test_it_learns_and_every_protocol_is_named(finished: Path) -> None:
    losses = [row["scalars"]["loss"] for row in read_events(finished / "events.jsonl") if row["event"] == "train"]
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
    last = scalars_of(finished, 15)
    assert 0 < last["predicate/vidhoi_map"] < last["predicate/per_triplet_map"] <= 1
    assert last["predicate/vidhoi_classes"] == last["predicate/vidhoi_classes_rare"] > 0  # nothing occurs 25 times
    assert 0 < last["predicate/person_top5_recall"] <= 1


def test_every_pair_counts_once(finished: Path) -> None:
    rows = [row for row in read_events(finished / "events.jsonl") if row["event"] == "evaluation"]
    pairs = {row["split"]: row["tasks"]["predicate"]["num_samples"] for row in rows}
    assert pairs == {"val": 2 * (2 + 1 + 2 + 1), "test": 2 * (2 + 1 + 2)}


def test_fitted_thresholds_are_kept_and_used(finished: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    plain, fitted = ["evaluate", str(finished), "--split", "val"], ["--fit-thresholds"]
    results = []
    for arguments in (plain, plain + fitted, plain):
        assert run(arguments, log) == 0, log.read_text()
        results.append(json.loads((finished / "evaluation_val.json").read_text())["scalars"])
    before, with_them, after = results
    assert with_them["predicate/f1_macro"] >= before["predicate/f1_macro"]
    assert after == with_them
    kept = json.loads((finished / "thresholds.json").read_text())["thresholds"]["predicate"]
    assert list(kept) == ["left_of", "right_of", "moves", "idle"]
    assert run([*plain, "--checkpoint", "last"], log) == 0
    (finished / "thresholds.json").unlink()


@pytest.mark.process
def test_two_ranks_evaluate_as_one_process_does(finished: Path, tmp_path: Path) -> None:
    arguments, results = [str(finished), "--split", "test"], []
    assert run(["evaluate", *arguments], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    results.append(json.loads((finished / "evaluation_test.json").read_text())["scalars"])
    torchrun(["scripts/evaluate.py", *arguments], tmp_path / "ranks")
    results.append(json.loads((finished / "evaluation_test.json").read_text())["scalars"])
    assert results[0] == pytest.approx(results[1], abs=1e-6, nan_ok=True)


# --- the boxes of a detector ---------------------------------------------------------------------------------------


def protocols(finished: Path, *arguments: str) -> dict[str, float]:
    """Evaluate on test and return what the protocols say, without the numbers that detected boxes do not have."""
    assert main(["evaluate", str(finished), *arguments]) == 0
    name = "evaluation_test_detected.json" if "--boxes" in arguments else "evaluation_test.json"
    scalars = json.loads((finished / name).read_text())["scalars"]
    return {key: value for key, value in scalars.items() if key.split("/")[1] in PAIR_NUMBERS}


def detected(finished: Path, file: Path, rows: list[dict[str, Any]]) -> dict[str, float]:
    return protocols(finished, "--boxes", str(write_detections(file, rows, OBJECTS)))


def test_perfect_detections_give_the_numbers_of_the_oracle(
    finished: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    oracle = protocols(finished)
    assert "predicate, test, oracle boxes: mAP in %" in capsys.readouterr().out
    kept = (finished / "evaluation_test.json").read_bytes()
    perfect = detected(finished, tmp_path / "detections.parquet", detections_like(manifest))
    assert perfect == oracle
    assert len(perfect) == len(PAIR_NUMBERS)
    shown = capsys.readouterr().out
    assert "predicate, test, detected boxes: mAP in %" in shown
    assert "predicate, test, detected boxes, person top 5 in %: recall" in shown
    assert "oracle" not in shown
    assert (finished / "evaluation_test.json").read_bytes() == kept
    assert json.loads(kept)["boxes"] == "oracle"
    said = json.loads((finished / "evaluation_test_detected.json").read_text())
    assert (said["boxes"], said["key_frames"], said["key_frames_without_detections"]) == ("detected", 6, 0)


def test_worse_detections_give_lower_numbers(finished: Path, manifest: Path, tmp_path: Path) -> None:
    def moved(pixels: float, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for pair in (pair for row in rows for pair in row["pairs"] or ()):
            pair["object_box"] = [corner + pixels for corner in pair["object_box"]]
        return rows

    file, names = tmp_path / "detections.parquet", ("vidhoi_map", "per_triplet_map", "person_top5_f1")
    perfect, near, far = (detected(finished, file, moved(by, detections_like(manifest))) for by in (0, 1, 4))
    assert near == perfect  # a pixel of 10, both ways: an IoU of 0.68, and the network looks at the tracks
    for name in names:
        assert perfect[f"predicate/{name}"] > far[f"predicate/{name}"] == 0  # an IoU of 0.22
    rows = detections_like(manifest)
    for row in rows:
        row["pairs"] = [pair for pair in row["pairs"] or () if pair["frame"] == 2]
    lost = detected(finished, file, rows)
    said = json.loads((finished / "evaluation_test_detected.json").read_text())
    assert said["key_frames_without_detections"] == 3
    for name in names:
        assert 0 < lost[f"predicate/{name}"] < perfect[f"predicate/{name}"]
    assert lost["predicate/vidhoi_classes"] == perfect["predicate/vidhoi_classes"]  # what is missed is asked for


def test_a_false_pair_counts_by_its_score(finished: Path, manifest: Path, tmp_path: Path) -> None:
    found = []
    for score in (0.01, 1.0):
        rows = detections_like(manifest, score=0.5)
        for row in rows:
            false = [{**pair, "object_id": 9, "object_box": [0, 0, 4, 4]} for pair in row["pairs"] or ()]
            ids = {(pair["frame"], pair["person_id"]): pair for pair in false}.values()  # one a frame
            row["pairs"] = [*(row["pairs"] or ()), *(pair | {"object_score": score} for pair in ids)]
            row["tracks"] += [{**row["tracks"][1], "track_id": 9}]
        found.append(detected(finished, tmp_path / "detections.parquet", rows)["predicate/per_triplet_map"])
    unsure, sure = found
    assert unsure > sure


def test_what_cannot_be_evaluated_with_detected_boxes(
    finished: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = detections_like(manifest)
    for row in rows:
        row["pairs"] = [{**pair, "frame": 7} for pair in (row["pairs"] or ())[:1]]
    elsewhere = write_detections(tmp_path / "elsewhere.parquet", rows, OBJECTS)
    for arguments, words in (
        (["--boxes", str(elsewhere)], "no pair was detected in the 6 key frames that "),
        (["--boxes", str(tmp_path / "none.parquet")], "none.parquet: no such file"),
        (["--boxes", str(elsewhere), "--fit-thresholds"], "--fit-thresholds: thresholds are fitted with the annotated"),
    ):
        assert main(["evaluate", str(finished), *arguments]) == 2
        assert words in capsys.readouterr().err
    config = make_config(tmp_path, make_data(tmp_path), training={"epochs": 1})
    assert run(["train", str(config)], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    assert main(["evaluate", str(tmp_path / "small-seed3"), "--boxes", str(elsewhere)]) == 2
    assert "labels whole clips; leave it out" in capsys.readouterr().err


# --- going on, and what is refused ---------------------------------------------------------------------------------


def test_a_run_that_was_cut_short_ends_with_the_same_weights(manifest: Path, tmp_path: Path) -> None:
    for name in ("whole", "cut"):
        config = pair_config(tmp_path / name, manifest, training={"epochs": 2, "batch_size": 3})
        log = tmp_path / name / "log"
        assert run(["train", str(config)], log) == 0, log.read_text()
    folder = tmp_path / "cut" / "small-seed3"
    steps = sorted((folder / "checkpoints").iterdir())
    for step in steps[1:]:
        for file in step.iterdir():
            file.unlink()
        step.rmdir()
    lines = (folder / "events.jsonl").read_text().splitlines(keepends=True)
    (folder / "events.jsonl").write_text("".join(line for line in lines if '"end"' not in line))
    assert run(["train", str(tmp_path / "cut" / "small.yaml")], log) == 0, log.read_text()
    assert "resumed" in log.read_text()
    assert_identical(final_state(tmp_path / "whole" / "small-seed3"), final_state(folder))


def test_batches_without_any_pair_train(manifest: Path, tmp_path: Path) -> None:
    train = {"name": "augment", "size": 32, "scale": [0.1, 0.1]}  # hardly a pair stays in the view
    raw = yaml.safe_load(pair_config(tmp_path, manifest, training={"epochs": 1, "batch_size": 2}).read_text())
    raw["data"]["train"] = train
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(raw))
    assert run(["train", str(tmp_path / "small.yaml")], tmp_path / "log") == 0, (tmp_path / "log").read_text()
    state = final_state(tmp_path / "small-seed3")["model.pt"]
    assert all(torch.isfinite(value).all() for value in state.values())


@pytest.mark.parametrize("method", [{"name": name, "epochs": 1} for name in ("crt", "lws")])
def test_methods_of_the_classifier_take_pairs_as_samples(method: Any, manifest: Path, tmp_path: Path) -> None:
    config = pair_config(tmp_path, manifest, method=method, training={"epochs": 2})
    assert run(["train", str(config)], tmp_path / "log") == 0, (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"pooling": "mean"}}, "model.pooling: predicate labels human-object pairs, but the pooling gives"),
        (
            {"tasks": {"predicate": {"head": {"name": "split", "first": [9]}, "groups": {"name": "top_k", "k": 1}}}},
            "tasks.predicate.head: first: [9] are no class ids; those of the task are 0 to 3",
        ),
        ({"data": {"mixing": "mixup"}}, "data.mixing: 'mixup' mixes clips, which tears their pairs apart"),
        ({"method": "l2rw"}, "method.l2rw: weights whole clips, and these tasks are of pairs"),
        ({"checkpoints": {"monitor": "predicate/vidhoi_mpa"}}, "checkpoints.monitor: 'predicate/vidhoi_mpa' is not"),
    ],
)
def test_what_does_not_fit_pairs_is_refused(changes: Any, message: str, manifest: Path, tmp_path: Path) -> None:
    config = pair_config(tmp_path, manifest, **changes)
    assert run(["config", "check", str(config)], tmp_path / "log") == 2
    assert message in (tmp_path / "log").read_text()


def test_classes_of_objects_are_needed(tmp_path: Path) -> None:
    manifest = make_pair_data(tmp_path)
    described = json.loads((manifest.parent / "dataset.json").read_text())
    del described["object_classes"]
    (manifest.parent / "dataset.json").write_text(json.dumps(described))
    assert run(["config", "check", str(pair_config(tmp_path, manifest))], tmp_path / "log") == 2
    assert "dataset.json lists no object_classes, which pairs need" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("nothing", [None, []])
def test_a_training_split_without_pairs_is_refused(nothing: Any, manifest: Path, tmp_path: Path) -> None:
    clips = read_manifest(manifest)
    rows = [
        {**row, "path": str(clips.root / row["path"]), "pairs": nothing if row["split"] == "train" else row["pairs"]}
        for row in clips.table.to_pylist()
    ]
    tasks = list(clips.tasks.values())
    lacking = write_manifest(tmp_path / "manifest.parquet", rows, tasks, clips.root, clips.object_classes)
    assert run(["train", str(pair_config(tmp_path, lacking))], tmp_path / "log") == 2
    assert "tasks.predicate:" in (tmp_path / "log").read_text()
    assert "has no pairs in the split 'train'" in (tmp_path / "log").read_text()


def test_clips_cannot_be_pooled_as_pairs(tmp_path: Path) -> None:
    config = make_config(tmp_path, make_data(tmp_path), model={"pooling": {"name": "roi", "objects": False}})
    assert run(["config", "check", str(config)], tmp_path / "log") == 2
    assert "model.pooling: verb labels whole clips" in (tmp_path / "log").read_text()
