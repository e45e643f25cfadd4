"""The statistics of VidHOI: what the published histograms say comes out of the functions that the tool uses."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_tools.cli import main
from data_tools.importers.vidhoi.classes import PREDICATES, Classes, read_groups
from data_tools.importers.vidhoi.statistics import (
    count_predicates,
    make_report,
    rare_triplets,
    show_statistics,
    unseen_triplets,
)
from hoi_train.data.manifest.problems import ManifestError, Problems


@pytest.fixture(scope="module")
def histograms(test_data: Path) -> dict[str, dict[str, int]]:
    """Instances by triplet class of both official parts; the train one was divided once more where it comes from."""
    files = {
        name: json.loads((test_data / "vidhoi" / f"dataset_info_{name}.json").read_text()) for name in ("train", "val")
    }
    train = Counter(files["train"]["triplet_train_hist"]) + Counter(files["train"]["triplet_val_hist"])
    return {"train": dict(train), "val": files["val"]["triplet_val_hist"]}


@pytest.fixture(scope="module")
def report(histograms: dict[str, dict[str, int]], test_data: Path) -> dict[str, Any]:
    problems = Problems()
    groups = read_groups(test_data / "vidhoi", PREDICATES, problems)
    problems.raise_if_any()
    return make_report(histograms, Classes(), groups)


def test_triplets_and_rare_classes_are_the_published_ones(report: dict[str, Any]) -> None:
    train, val = report["parts"]["train"], report["parts"]["val"]
    assert (train["num_triplets"], val["num_triplets"]) == (1_393_976, 155_538)
    assert (val["num_triplet_classes"], val["num_rare"]) == (557, 315)
    assert len(report["val_never_in_train"]) == 42
    assert [name for name, count in val["predicates"].items() if not count] == ["smell"]


def test_rare_means_fewer_than_25(histograms: dict[str, dict[str, int]]) -> None:
    rare, common = rare_triplets(histograms["val"])
    assert (len(rare), len(common)) == (315, 242)
    assert max(histograms["val"][name] for name in rare) <= 24
    assert min(histograms["val"][name] for name in common) >= 25
    assert not unseen_triplets(histograms["val"], histograms["val"])


def test_predicates_and_groups_agree_with_the_other_files(
    report: dict[str, Any], histograms: dict[str, dict[str, int]], test_data: Path
) -> None:
    with (test_data / "vidhoi" / "predicate_counts.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    for part, column in (("train", "train_all_1393976"), ("val", "val_155538")):
        assert report["parts"][part]["predicates"] == {row["predicate"]: int(row[column]) for row in rows}
    weights = json.loads((test_data / "vidhoi" / "class_weight_val.json").read_text())
    counted = count_predicates(histograms["val"], weights["interaction_classes"])
    assert list(counted.values()) == weights["interaction_val_hist"]
    assert {name: len(members) for name, members in report["groups"].items()} == {
        "spatial": 8,
        "action": 42,
        "temporal": 25,
    }
    assert report["groups"]["spatial"] == [row["predicate"] for row in rows if row["group"] == "spatial"]
    val = report["parts"]["val"]["groups"]
    assert val["spatial"] + val["action"] == 155_538


def test_the_command_counts_the_real_records(
    test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("obj_categories.json", "pred_categories.json", "pred_split_categories.json"):
        (tmp_path / name).write_bytes((test_data / "vidhoi" / name).read_bytes())
    records = (test_data / "vidhoi" / "train_frame_annots.sample100.json").read_bytes()
    (tmp_path / "train_frame_annots.json").write_bytes(records)
    assert main(["vidhoi-stats", "--annotations", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    line = "train: 100 triplets of 10 classes, 9 of them rare; 75 pairs in 19 key frames of 2 videos"
    assert capsys.readouterr().out.splitlines()[0] == line
    report = json.loads((tmp_path / "out" / "vidhoi_statistics.json").read_text())
    assert report["val_never_in_train"] is None
    numbers = report["parts"]["train"]
    assert sum(numbers["triplets"].values()) == sum(numbers["predicates"].values()) == 100
    objects = json.loads((tmp_path / "obj_categories.json").read_text())
    expected = Counter(
        f"person-{PREDICATES.names[r['action_class']]}-{objects[r['object_class']]}" for r in json.loads(records)
    )
    assert numbers["triplets"] == expected
    (tmp_path / "pred_split_categories.json").write_text('{"spatial": [50]}')
    with pytest.raises(ManifestError, match="'spatial' must be a list of predicate ids below 50"):
        show_statistics(tmp_path, tmp_path / "out")
