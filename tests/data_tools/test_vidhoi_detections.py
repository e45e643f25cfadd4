"""VidHOI's published detections: the form of the real file, its numbering, every fault, and the pairs made of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_tools.importers.json_stream import CHUNK
from data_tools.importers.vidhoi.detections import read_detected_boxes
from data_tools.importers.vidhoi.records import Video
from hoi_train.data.detections_file import read_detections
from hoi_train.data.manifest.problems import Problems
from tests.data_tools.test_vidhoi import annotations, imported, problems_of, real, record

UNDETECTED = [
    ("0016/4006608424", 12, 30),
    ("0017/2810112808", 33, 30),
    ("1000/4925211209", 12, 24),
    ("1103/3441428429", 53, 30),
    ("1110/3455926688", 14, 24),
]
KEY = "0001/11_000002"  # frame_id 000015 of a video of 30 frames a second


def box(tid: int, category: int = 0, corners: Sequence[float] = (1, 2, 30, 40), score: float = 0.9) -> dict[str, Any]:
    return {"image_id": KEY, "bbox": list(corners), "category_id": category, "score": score, "tid": tid}


def detected(folder: Path) -> list[dict[str, Any]]:
    manifest, _ = imported(folder)
    assert manifest.object_classes is not None
    rows: list[dict[str, Any]] = read_detections(
        folder / "out" / "detections.parquet", manifest.object_classes
    ).to_pylist()
    return rows


def test_the_records_of_the_real_file(tmp_path: Path) -> None:
    # as vidor_to_ava-detected_bboxes.ipynb prints them
    name = "0016/4006608424_000013"
    boxes = [
        {"image_id": name, "bbox": [42, 102, 537, 420], "category_id": 0, "score": 0.7028999999999997, "tid": 2},
        {"image_id": name, "bbox": [178, 90, 426, 317], "category_id": 0, "score": 0.46229999999999916, "tid": 9},
    ]
    where = {"video_folder": "0016", "video_id": "4006608424", "middle_frame_timestamp": 12}
    folder = annotations(tmp_path / "a", [record(345, **where)], det_val_frame_annots={name: boxes})
    (row,) = detected(folder)
    assert row["clip_id"] == "0016/4006608424"
    first, second = row["pairs"]
    assert first == {
        **{"frame": 344, "person_id": 2, "object_id": 9, "object_class": "person"},
        **{"person_box": [42, 102, 537, 420], "object_box": [178, 90, 426, 317]},
        **{"person_score": 0.7028999999999997, "object_score": 0.46229999999999916},
    }
    assert (second["person_id"], second["object_id"], second["person_score"]) == (9, 2, first["object_score"])
    assert row["tracks"] is None


@pytest.mark.parametrize(("video", "number", "rate"), UNDETECTED)
def test_key_frames_are_numbered_from_two(test_data: Path, tmp_path: Path, video: str, number: int, rate: int) -> None:
    """The notebook prints the 168 frames without detections by their number, the published list has frame_ids."""
    listed = json.loads((test_data / "vidhoi" / "168_frames_to_remove.json").read_text())
    name, problems, file = f"{video}_{number:06}", Problems(), tmp_path / "det.json"
    file.write_text(json.dumps({name: [box(3) | {"image_id": name}]}))
    found = read_detected_boxes([file], [Video(video, "val", rate)], 3, problems)
    problems.raise_if_any()
    assert f"{video}_{found.frame[0] + 1:06}" in listed  # frame_id counts from 1


def test_every_person_is_paired_with_everything_else(tmp_path: Path) -> None:
    boxes = [box(7, 1, score=0.4), box(0), box(5), box(9, 2, (3, 3, 3, 9))]
    other = "0001/11_000003"
    frames = {
        other: [box(5) | {"image_id": other}],  # a person alone
        KEY: boxes,
        "0001/11_000004": [],
        "0002/99_000002": [box(1) | {"image_id": "0002/99_000002"}],  # of a video without annotation
    }
    folder = annotations(tmp_path / "a", [record(15), record(45)], det_train_frame_annots=frames)
    _, notes = imported(folder)
    (row,) = detected(folder)
    pairs = [(pair["frame"], pair["person_id"], pair["object_id"], pair["object_class"]) for pair in row["pairs"]]
    assert pairs == [(14, 0, 7, "cup"), (14, 0, 5, "person"), (14, 5, 7, "cup"), (14, 5, 0, "person")]
    assert "detections left out, a box without area: 1" in notes
    assert f"detections in 1 videos, 4 pairs: {folder / 'out' / 'detections.parquet'}" in notes


def test_pairs_and_tracks_are_joined(test_data: Path, tmp_path: Path) -> None:
    name = "0087/3830567237"
    key = f"{name}_000002"
    files = {"det_val_trajectories": "det_val_trajectories.sample1.json"}
    folder = real(test_data, tmp_path / "a", **files)
    where = {"video_folder": "0087", "video_id": "3830567237"}
    (folder / "val_frame_annots.json").write_text(json.dumps([record(15, **where)]))
    boxes = [box(tid, category) | {"image_id": key} for tid, category in ((0, 3), (1, 0), (77, 0))]
    (folder / "det_val_frame_annots.json").write_text(json.dumps({key: boxes}))
    (row,) = detected(folder)
    assert [track["track_id"] for track in row["tracks"]] == [*range(10), 77]
    lost = row["tracks"][-1]  # has a box in a key frame, and no trajectory
    assert (lost["start_frame"], lost["boxes"]) == (14, [[1, 2, 30, 40]])
    assert {(pair["person_id"], pair["object_id"]) for pair in row["pairs"]} == {(1, 0), (1, 77), (77, 0), (77, 1)}


def test_videos_of_other_rates(tmp_path: Path) -> None:
    slow = record(12, video_fps=24)
    folder = annotations(tmp_path / "a", [slow], det_train_frame_annots={KEY: [box(0), box(1, 1)]})
    assert {pair["frame"] for pair in detected(folder)[0]["pairs"]} == {11}


FAULTS: Sequence[tuple[Any, str]] = [
    ({"bbox": {"xmin": 1}}, "bbox must be four finite numbers x0, y0, x1, y1, got {'xmin': 1}"),
    ({"bbox": [1, 2, 3]}, "bbox must be four finite numbers x0, y0, x1, y1, got [1, 2, 3]"),
    ({"bbox": [1, 2, 3, 10**400]}, "bbox must be four finite numbers x0, y0, x1, y1, got [1, 2, 3, 1000"),
    ({"category_id": 3}, "category_id must be a whole number from 0 to 2, got 3"),
    ({"category_id": True}, "category_id must be a whole number from 0 to 2, got True"),
    ({"score": 1.01}, "score must lie in 0..1, got 1.01"),
    ({"score": None}, "score must lie in 0..1, got None"),
    ({"tid": -1}, "tid must be a whole number from 0 on, got -1"),
    ({"tid": 2**31}, "tid must be a whole number from 0 on, got 2147483648"),
    ({"image_id": "0001/11_000003"}, "image_id must be that of the key frame, got '0001/11_000003'"),
]


@pytest.mark.parametrize(("changes", "words"), FAULTS)
def test_every_fault_of_a_box_is_said_with_its_place(tmp_path: Path, changes: Any, words: str) -> None:
    frames = {"0002/99_000002": [], KEY: [box(0), {**box(1), **changes}]}
    (line,) = problems_of(annotations(tmp_path / "a", [record()], det_train_frame_annots=frames))
    assert line.startswith(f"det_train_frame_annots.json: record 2 (byte 23): key frame '{KEY}', box 2: {words}")


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ({KEY: 5}, f"key frame '{KEY}': must hold a list of boxes, got 5"),
        ({KEY: [5]}, f"key frame '{KEY}', box 1: must be an object with bbox, category_id, score, tid, got 5"),
        ({KEY: [{"bboxs": [1, 2, 3, 4], "tid": 1}]}, f"key frame '{KEY}', box 1: lacks bbox, category_id, score"),
        ({KEY: [box(1), box(1)]}, f"key frame '{KEY}': tid 1 occurs twice"),
        ({"0001/11": []}, "key frame '0001/11': must be <folder>/<video>_<number> such as 0016/4006608424_000013"),
        ({"0001/11_000001": []}, "key frame '0001/11_000001': must be numbered from 2 on"),
    ],
)
def test_faults_of_key_frames(tmp_path: Path, frames: Any, words: str) -> None:
    (line,) = problems_of(annotations(tmp_path / "a", [record()], det_train_frame_annots=frames))
    assert line == f"det_train_frame_annots.json: record 1 (byte 1): {words}"


def test_a_key_frame_must_not_occur_twice(tmp_path: Path) -> None:
    folder = annotations(tmp_path / "a", [record()])
    (folder / "det_train_frame_annots.json").write_text(f'{{"{KEY}": [], "{KEY}": []}}')
    (line,) = problems_of(folder)
    assert line == f"det_train_frame_annots.json: record 2 (byte 23): key frame '{KEY}' occurs twice"


def test_annotation_is_not_taken_for_detections(test_data: Path, tmp_path: Path) -> None:
    """``val_frame_annots_detectron2.json`` is what the detector was trained on: no scores, and no detections."""
    real(test_data, tmp_path / "a", det_val_frame_annots="val_frame_annots_detectron2.sample10.json")
    folder = annotations(tmp_path / "a", [record()])
    for name in ("obj_categories.json", "pred_categories.json"):
        (folder / name).write_text((test_data / "vidhoi" / name).read_text())
    (line,) = problems_of(folder)
    assert line.startswith("det_val_frame_annots.json: not JSON that holds an object: it begins with '['; detections")
    assert line.endswith('a list of records with "objs", such as val_frame_annots_detectron2.json, is annotation')


def test_detections_of_other_videos_are_said_to_be_none(tmp_path: Path) -> None:
    frames = {"0002/99_000002": []}
    folder = annotations(tmp_path / "a", [record()], det_train_frame_annots=frames)
    _, notes = imported(folder)
    assert any(note.startswith("no pair is detected in any of the videos: ") for note in notes)
    assert not (folder / "out" / "detections.parquet").exists()


def test_a_file_larger_than_the_window(tmp_path: Path) -> None:
    frames = {
        f"0001/11_{k:06}": [box(t, t % 3) | {"image_id": f"0001/11_{k:06}"} for t in range(40)] for k in range(2, 300)
    }
    folder = annotations(tmp_path / "a", [record()], det_train_frame_annots=frames)
    assert (folder / "det_train_frame_annots.json").stat().st_size > CHUNK
    assert len(detected(folder)[0]["pairs"]) == 298 * 14 * 39
