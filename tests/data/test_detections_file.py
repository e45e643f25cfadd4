"""The file of detections: what is refused, with its row, and how its pairs take the place of the annotated ones."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from hoi_train.data.detections_file import read_detections, write_detections
from hoi_train.data.manifest import ManifestError, read_manifest
from hoi_train.data.pair_dataset import PairDataset
from hoi_train.data.samplers import Item
from hoi_train.data.sampling import AroundKey
from hoi_train.data.transforms import Augment, CenterCrop
from tests.pairs import OBJECTS, PREDICATE, detections_like

PAIR = {
    **{"frame": 2, "person_id": 0, "object_id": 1, "object_class": "cup", "person_score": 0.5, "object_score": 1.0},
    **{"person_box": [1.0, 2.0, 9.0, 9.0], "object_box": [3.0, 3.0, 8.0, 8.0]},
}


@pytest.fixture(scope="module")
def manifest(pair_manifest: Path) -> Path:
    return pair_manifest


def dataset_of(manifest: Path) -> PairDataset:
    transforms = Augment(size=64), CenterCrop(size=64, scale=1.0)
    clips = read_manifest(manifest).split("test")
    return PairDataset(clips, {"predicate": PREDICATE}, transforms, OBJECTS, num_frames=5, plan=AroundKey())


def faults(path: Path, *rows: dict[str, Any]) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        write_detections(path, rows, OBJECTS)
    assert not path.exists()
    return [line.removeprefix(f"{path}, ") for line in str(caught.value).splitlines()]


# --- the file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frame": -1}, "a pair has a negative frame"),
        ({"person_box": [1, 2, 1, 9]}, "person_box of a pair is not [x0, y0, x1, y1] with x0 < x1, y0 < y1"),
        ({"object_box": [1, 2, float("inf"), 9]}, "object_box of a pair is not [x0, y0, x1, y1] with x0 < x1, y0 < y1"),
        ({"object_class": "cub"}, "pairs: object_class: unknown class 'cub'; did you mean 'cup'?"),
        ({"person_score": 1.5}, "person_score of a pair must lie in 0..1"),
        ({"object_score": float("nan")}, "object_score of a pair must lie in 0..1"),
        ({"object_score": None}, "a pair lacks object_score"),
        ({"object_id": None}, "a pair lacks object_id"),
    ],
)
def test_every_fault_is_said_with_its_row(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    sound, bad = {"clip_id": "a", "pairs": [PAIR]}, {"clip_id": "b", "pairs": [PAIR, PAIR | {"frame": 3} | changes]}
    assert faults(tmp_path / "d.parquet", sound, bad) == [f"row 2: {words}"]


def test_what_occurs_twice_and_tracks_that_lack(tmp_path: Path) -> None:
    sound = {"clip_id": "a", "pairs": [PAIR, PAIR | {"frame": 5}]}
    assert faults(tmp_path / "d.parquet", sound, {"clip_id": "b", "pairs": [PAIR, PAIR]}) == [
        "row 2: a pair occurs twice in its frame; give it once"
    ]
    assert faults(tmp_path / "d.parquet", sound, sound) == ["row 2: clip_id 'a' is taken by row 1; ids must be unique"]
    tracks = [{"track_id": 0, "start_frame": 0, "boxes": [[1, 2, 3, 4]]}]
    (line,) = faults(tmp_path / "d.parquet", sound | {"tracks": tracks})
    assert line.startswith("row 1: a pair names a person_id or object_id that has no track")


def test_other_files_are_refused(tmp_path: Path, manifest: Path) -> None:
    (tmp_path / "text.parquet").write_text("[]")
    parquet.write_table(pa.table({"clip_id": ["a"], "pairs": ["x"]}), tmp_path / "odd.parquet")
    for path, words in (
        (tmp_path / "none.parquet", "no such file"),
        (tmp_path, "a folder, not a file"),
        (tmp_path / "text.parquet", "not a readable Parquet file, which detections must be"),
        (
            tmp_path / "odd.parquet",
            "column 'pairs' holds string, it must hold a list of pairs, each with frame, ",
        ),
        (manifest, "unknown column 'path'"),
    ):
        with pytest.raises(ManifestError) as caught:
            read_detections(path, OBJECTS)
        assert words in str(caught.value)


# --- in place of the annotation ------------------------------------------------------------------------------------


def test_the_truth_as_detections_gives_the_same_samples(manifest: Path, tmp_path: Path) -> None:
    dataset = dataset_of(manifest)
    path = write_detections(tmp_path / "d.parquet", detections_like(manifest), OBJECTS)
    detected = dataset.on_detections(read_detections(path, OBJECTS))
    assert len(detected) == len(dataset)
    truth, found = dataset.truth("predicate"), detected.detections()
    for name, column in truth.columns.items():
        assert np.array_equal(column, found.columns[name])
    for index in range(len(dataset)):
        one, other = dataset[Item(index)], detected[Item(index)]
        assert one.clip_id == other.clip_id
        assert all(
            (getattr(one, name) == getattr(other, name)).all() for name in ("video", "boxes", "objects", "pairs")
        )
    assert not detected[Item(0)].targets["predicate"].any()


def test_only_annotated_key_frames_are_taken(manifest: Path, tmp_path: Path) -> None:
    dataset, rows = dataset_of(manifest), detections_like(manifest)
    clips = {row["clip_id"]: row for row in rows}
    clips["test_1"]["pairs"] += [{**pair, "frame": 3} for pair in clips["test_1"]["pairs"][:1]]
    clips["test_2"]["pairs"] = [pair for pair in clips["test_2"]["pairs"] if pair["frame"] == 5]
    unknown = deepcopy(clips["test_1"]) | {"clip_id": "another"}
    rows = [unknown, *(row for row in reversed(rows) if row["clip_id"] != "test_3")]
    path = write_detections(tmp_path / "d.parquet", rows, OBJECTS)
    detected = dataset.on_detections(read_detections(path, OBJECTS))
    assert list(dict.fromkeys(detected.detections().frame_ids.tolist())) == ["test_1@2", "test_1@5", "test_2@5"]
    assert len(detected) == 3
    assert {*detected.detections().frame_ids} < {*dataset.truth("predicate").frame_ids}


def test_without_tracks_boxes_stand_still(manifest: Path, tmp_path: Path) -> None:
    rows = [{**row, "tracks": None} for row in detections_like(manifest)]
    path = write_detections(tmp_path / "d.parquet", rows, OBJECTS)
    sample = dataset_of(manifest).on_detections(read_detections(path, OBJECTS))[Item(0)]
    assert (sample.boxes == sample.boxes[:, :, :1]).all()
