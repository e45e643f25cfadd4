"""Tracks: where persons and objects are in every frame, as a record and as a column of the manifest."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from hoi_train.core.records import ClassList, Task, Track
from hoi_train.data.manifest import ManifestError, read_manifest, write_manifest
from hoi_train.data.manifest.columns import TRACKS

PREDICATE = Task("predicate", ClassList(("hold",)), "multi", of="pair")
BOXES = [[0.0, 0.0, 5.0, 9.5], [1.0, 0.0, 5.0, 9.0]]
PAIR = {
    "frame": 3,
    "person_id": 0,
    "object_id": 7,
    "person_box": [0.0, 0.0, 5.0, 9.5],
    "object_box": [1.0, 1.0, 3.0, 3.5],
    "object_class": "cup",
    "predicates": ["hold"],
}
ROW: dict[str, Any] = {"clip_id": "a", "path": "a.mp4", "split": "train", "pairs": [PAIR]}


def track(track_id: int, start_frame: int = 2, boxes: Any = BOXES) -> dict[str, Any]:
    return {"track_id": track_id, "start_frame": start_frame, "boxes": boxes}


# --- the record ----------------------------------------------------------------------------------------------------


def test_the_nearest_box_stands_outside_a_track() -> None:
    boxes = torch.tensor(BOXES)
    found = Track(7, 2, boxes).boxes_at(torch.tensor([0, 2, 3, 4, 900, 3]))
    assert found.tolist() == [BOXES[0], BOXES[0], BOXES[1], BOXES[1], BOXES[1], BOXES[1]]
    assert found.dtype == torch.float32


@pytest.mark.parametrize(
    ("start", "boxes", "words"),
    [
        (-1, BOXES, "track 7: start_frame must be at least 0, got -1"),
        (0, torch.zeros(0, 4), r"boxes must be floating \[B >= 1, 4\]"),
        (0, torch.ones(2, 4, dtype=torch.int64), r"boxes must be floating \[B >= 1, 4\], got torch.int64"),
        (0, [[0.0, 0.0, 0.0, 1.0]], "a box is not finite x0 < x1, y0 < y1"),
        (0, [[0.0, 0.0, float("inf"), 1.0]], "a box is not finite x0 < x1, y0 < y1"),
        (0, [[float("nan"), 0.0, 1.0, 1.0]], "a box is not finite x0 < x1, y0 < y1"),
    ],
)
def test_a_track_checks_itself(start: int, boxes: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Track(7, start, torch.as_tensor(boxes))


# --- the column ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_tracks_go_through_both_formats_that_hold_them(tmp_path: Path, suffix: str) -> None:
    rows = [
        {**ROW, "tracks": [track(7), track(0, 0, BOXES[:1])]},
        {**ROW, "clip_id": "b"},
        {**ROW, "clip_id": "c", "pairs": None, "tracks": []},
    ]
    manifest = read_manifest(write_manifest(tmp_path / f"m{suffix}", rows, [PREDICATE], tmp_path))
    first, second = manifest.tracks(0)
    assert (first.track_id, first.start_frame, first.boxes.tolist()) == (7, 2, BOXES)
    assert (second.track_id, second.start_frame, second.boxes.tolist()) == (0, 0, BOXES[:1])
    assert manifest.tracks(1) == manifest.tracks(2) == ()
    assert manifest.select([2, 0]).tracks(1)[0].boxes.tolist() == BOXES
    assert manifest.clip(0).clip_id == "a"  # which does not read the tracks
    again = read_manifest(write_manifest(tmp_path / f"n{suffix}", manifest.table, [PREDICATE], tmp_path))
    assert again.tracks(0)[0].boxes.tolist() == BOXES


def test_track_faults_are_said(tmp_path: Path) -> None:
    write_manifest(tmp_path / "any.jsonl", [ROW], [PREDICATE], tmp_path)
    sound = [track(7), track(0)]
    wrong_box = "a box of a track is not [x0, y0, x1, y1] with x0 < x1, y0 < y1"
    form = "tracks must be a list of tracks, each with track_id, start_frame, boxes, got"
    faults: list[tuple[Any, str]] = [
        ([*sound, track(7)], "two tracks have the same track_id"),
        ([track(7)], "a pair names a person_id or object_id that has no track; a row has all of them or no tracks"),
        ([*sound, track(1, -1)], "a track has a negative start_frame"),
        ([*sound, track(1, 0, [])], "a track has no boxes"),
        ([*sound, track(1, 0, [[0, 0, 1, 1], [0, 0, 1]])], wrong_box),
        ([*sound, track(1, 0, [[0, 0, 1, 1], [0, 2, 1, 2]])], wrong_box),
        (
            [*sound, track(1, 0, [[0, 0, 1, float("nan")]])],
            "not JSON: NaN is not a JSON number; write null or leave it out",
        ),
        ([*sound, track(1, 0, [[0, 0, 1, 1e300]])], wrong_box),  # infinite as float32
        ([*sound, track(1, 0, [None])], wrong_box),
        ([*sound, {"track_id": 1, "boxes": BOXES}], "a track lacks start_frame"),
        ([*sound, track(1, 0, None)], "a track lacks boxes"),
        (5, f"{form} 5"),
        ([5], f"{form} [5]"),
        ([track("x")], f"{form} {[track('x')]!r:.80}"),  # type: ignore[arg-type]
        (sound, ""),
    ]
    lines = [json.dumps({**ROW, "clip_id": str(k), "tracks": tracks}) for k, (tracks, _) in enumerate(faults)]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path / "m.jsonl")
    found = [line.split("m.jsonl, ")[1] for line in str(caught.value).splitlines()]
    assert found == [f"line {k}: {words}" for k, (_, words) in enumerate(faults, 1) if words]


def test_csv_cannot_hold_tracks(tmp_path: Path) -> None:
    rows = [{**ROW, "pairs": None, "tracks": [track(7)]}]
    with pytest.raises(ManifestError, match=r"column 'tracks' cannot be held by csv; use \.parquet or \.jsonl"):
        write_manifest(tmp_path / "m.csv", rows, [PREDICATE], tmp_path)
    with pytest.raises(ValueError, match="a task cannot be called 'tracks'"):
        write_manifest(tmp_path / "m.jsonl", rows, [Task("tracks", ClassList(("a",)), "single")], tmp_path)


def test_object_classes_are_kept_and_checked(tmp_path: Path) -> None:
    classes = ClassList(("person", "cup"))
    path = write_manifest(tmp_path / "m.jsonl", [ROW], [PREDICATE], tmp_path, classes)
    assert read_manifest(path).object_classes == classes
    assert read_manifest(path).split("train").object_classes == classes
    with pytest.raises(ManifestError, match=r"row 1: pairs: object_class: unknown class 'cup'; did you mean 'cups'\?"):
        write_manifest(path, [ROW], [PREDICATE], tmp_path, ClassList(("person", "cups")))
    assert read_manifest(write_manifest(path, [ROW], [PREDICATE], tmp_path)).object_classes is None
    for listed, words in (("cup", "object_classes: should be a valid list"), (["a", "a"], "must be unique")):
        content = json.loads((tmp_path / "dataset.json").read_text()) | {"object_classes": listed}
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        with pytest.raises(ManifestError, match=words):
            read_manifest(path)


def test_many_boxes_open_quickly(tmp_path: Path) -> None:
    videos, tracks, length = 500, 4, 500  # a million boxes; the whole of VidHOI has about twenty of them

    def lists(size: int, values: Any) -> Any:
        return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, size), pa.int32()), values)

    corners = np.tile(np.array([1, 2, 30, 40], np.float32), videos * tracks * length)
    columns = [np.tile(np.arange(tracks), videos), np.zeros(videos * tracks, np.int64)]
    boxes = lists(length, lists(4, pa.array(corners)))
    fields = list(TRACKS.value_type)
    flat = pa.StructArray.from_arrays([*map(pa.array, columns), boxes], fields=fields)
    names = [str(k) for k in range(videos)]
    table = pa.table({"clip_id": names, "path": names, "split": ["train"] * videos, "tracks": lists(tracks, flat)})
    path = write_manifest(tmp_path / "m.parquet", table, [PREDICATE], tmp_path)
    started = time.process_time()
    manifest = read_manifest(path)
    assert time.process_time() - started < 3.0  # 0.15 s on one core of 2024
    assert manifest.table.column("tracks").nbytes < 22 * videos * tracks * length
    started = time.process_time()
    for row in range(100):
        assert len(manifest.tracks(row)) == tracks
    assert time.process_time() - started < 1.0
