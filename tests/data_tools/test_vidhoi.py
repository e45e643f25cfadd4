"""VidHOI: real excerpts, every published trap, every fault of the files, and the size of the real thing."""

from __future__ import annotations

import json
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from data_tools.importers.vidhoi.classes import OBJECTS, PREDICATES
from hoi_train.core.records import UserError
from hoi_train.data.detections_file import read_detections
from hoi_train.data.manifest import Manifest, ManifestError, read_manifest
from hoi_train.data.manifest.problems import LISTED
from tests.conftest import ROOT
from tests.data_tools.importing import import_with
from tests.videos import encode

ALL: Mapping[str, Any] = {"val_fraction": 0.0, "keep_missing": True}
CATEGORIES = {"obj_categories.json": ["person", "cup", "dog"], "pred_categories.json": ["watch", "hold", "next_to"]}
BOX = {"xmin": 1, "ymin": 2, "xmax": 30, "ymax": 40}
OTHER = {"xmin": 5, "ymin": 6, "xmax": 50, "ymax": 60}


def record(frame: int = 15, action: int = 0, **changes: Any) -> dict[str, Any]:
    made = {
        **{"video_folder": "0001", "video_id": "11", "frame_id": f"{frame:06}", "video_fps": 30},
        **{"height": 90, "width": 160, "middle_frame_timestamp": frame // 30 + 1, "person_box": BOX},
        **{"object_box": OTHER, "person_id": 4, "object_id": 7, "object_class": 1, "action_class": action},
    }
    return {**made, **changes}


def annotations(folder: Path, train: Any, **others: Any) -> Path:
    """Write a folder of annotation files; ``val_trajectories={…}`` writes val_trajectories.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**CATEGORIES, "train_frame_annots.json": train}.items():
        (folder / name).write_text(json.dumps(content))
    for name, content in others.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def imported(folder: Path, options: Mapping[str, Any] = ALL, **more: Any) -> tuple[Manifest, tuple[str, ...]]:
    made = import_with("vidhoi", folder, folder / "out", annotations=folder, **options, **more)
    return read_manifest(made.path), made.notes


def real(test_data: Path, folder: Path, **files: str) -> Path:
    """Copy real files, ``train_frame_annots=…sample100.json`` under the name that the real one has."""
    folder.mkdir()
    for name in ("obj_categories.json", "pred_categories.json", "pred_split_categories.json"):
        shutil.copy(test_data / "vidhoi" / name, folder / name)
    for name, source in files.items():
        shutil.copy(test_data / "vidhoi" / source, folder / f"{name}.json")
    return folder


def problems_of(folder: Path, **more: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        imported(folder, **more)
    assert not (folder / "out").exists()
    return [line.removeprefix(f"{folder}/") for line in str(caught.value).splitlines()]


# --- the real excerpts ---------------------------------------------------------------------------------------------


def test_the_real_records_become_multi_label_pairs_of_two_videos(test_data: Path, tmp_path: Path) -> None:
    folder = real(test_data, tmp_path / "a", train_frame_annots="train_frame_annots.sample100.json")
    manifest, _ = imported(folder)
    assert manifest.clip_ids == ("0085/7002697331", "0085/6885773487")
    assert manifest.object_classes == OBJECTS
    assert manifest.tasks["predicate"].classes == PREDICATES
    assert manifest.tasks["predicate"].of == "pair"
    records = json.loads((folder / "train_frame_annots.json").read_text())
    expected: dict[Any, set[str]] = {}
    for r in records:
        key = (f"{r['video_folder']}/{r['video_id']}", int(r["frame_id"]) - 1, r["person_id"], r["object_id"])
        expected.setdefault(key, set()).add(PREDICATES.names[r["action_class"]])
    found = {
        (name, pair.frame, pair.person_id, pair.object_id): {*pair.predicates}
        for row, name in enumerate(manifest.clip_ids)
        for pair in manifest.pairs(row)
    }
    assert found == expected
    assert manifest.counts("predicate").num_samples == len(expected) == 75
    assert sum(manifest.counts("predicate").positives) == 100
    first = manifest.pairs(0)[0]
    # "000015" is frame 14; two persons are a pair in which the object is a person
    assert (first.frame, first.person_id, first.object_id, first.object_class) == (14, 0, 1, "person")
    assert (first.person_box, first.object_box) == ((425, 125, 463, 214), (384, 118, 407, 206))
    assert {pair.frame % 30 for row in range(2) for pair in manifest.pairs(row)} == {14}


def test_the_built_in_classes_are_the_published_ones(test_data: Path) -> None:
    for file, classes in (("obj_categories.json", OBJECTS), ("pred_categories.json", PREDICATES)):
        assert list(classes) == json.loads((test_data / "vidhoi" / file).read_text())


def test_the_real_trajectories_and_detections(test_data: Path, tmp_path: Path) -> None:
    files = {
        "val_trajectories": "val_trajectories.sample1.json",
        "det_val_trajectories": "det_val_trajectories.sample1.json",
    }
    folder = real(test_data, tmp_path / "a", **files)
    raw = json.loads((folder / "val_trajectories.json").read_text())["0087/3830567237"]
    where = {"video_folder": "0087", "video_id": "3830567237", "width": 640, "height": 480}
    ids = {"person_id": 0, "object_id": 4, "object_class": 11}
    boxes = [next(box["bbox"] for box in raw[464] if box["tid"] == tid) for tid in (0, 4)]
    one = record(465, **where, **ids, person_box=boxes[0], object_box=boxes[1])
    (folder / "val_frame_annots.json").write_text(json.dumps([one]))
    manifest, notes = imported(folder)
    tracks = {track.track_id: track for track in manifest.tracks(0)}
    assert {*tracks} == {0, 4}  # the others have no pair, so their class is not known
    assert (tracks[0].start_frame, len(tracks[0].boxes)) == (0, 686)  # from 0 to 685; then the video has empty frames
    assert (tracks[4].start_frame, len(tracks[4].boxes)) == (442, 163)
    for frame, frame_boxes in enumerate(raw):
        for box in frame_boxes:
            if box["tid"] in tracks:
                expected = [box["bbox"][corner] for corner in ("xmin", "ymin", "xmax", "ymax")]
                assert tracks[box["tid"]].boxes_at(torch.tensor([frame]))[0].tolist() == expected
    pair = manifest.pairs(0)[0]
    assert tuple(tracks[4].boxes_at(torch.tensor([pair.frame]))[0].tolist()) == pair.object_box
    (detected,) = read_detections(folder / "out" / "detections.parquet", OBJECTS).to_pylist()
    assert detected["clip_id"] == "0087/3830567237"
    assert [track["track_id"] for track in detected["tracks"]] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert not detected["pairs"]
    assert f"detections in 1 videos, 0 pairs: {folder / 'out' / 'detections.parquet'}" in notes
    assert any("have no classes and scores, which det_val_frame_annots.json has: no pairs" in note for note in notes)
    for name in ("det_val_trajectories.json", "val_trajectories.json"):
        (folder / name).unlink()
    manifest, _ = imported(folder)  # an earlier import leaves no detections behind
    assert manifest.tracks(0) == ()
    assert not (folder / "out" / "detections.parquet").exists()


def test_the_168_frames_are_read_and_left_out(test_data: Path, tmp_path: Path) -> None:
    listed = test_data / "vidhoi" / "168_frames_to_remove.json"
    where = {"video_folder": "1000", "video_id": "4925211209", "video_fps": 24}
    out = record(156, **where, middle_frame_timestamp=7)  # frame_id 156 is listed; 155, the number from 0, is not
    kept = record(60, **where, middle_frame_timestamp=3)
    folder = annotations(tmp_path / "a", [], val_frame_annots=[out, kept])
    (folder / "train_frame_annots.json").unlink()
    manifest, notes = imported(folder, leave_out=listed)
    assert [pair.frame for pair in manifest.pairs(0)] == [59]
    assert "records left out, of the frames to leave out: 1" in notes
    assert "frames to leave out that no record is of: 167" in notes
    shutil.copy(listed, folder / listed.name)
    manifest, notes = imported(folder)
    assert len(manifest.pairs(0)) == 2
    assert any("give it to --leave-out" in note for note in notes)


def test_the_older_schema_is_recognised(test_data: Path, tmp_path: Path) -> None:
    folder = real(test_data, tmp_path / "a", val_frame_annots="val_frame_annots_detectron2.sample10.json")
    (line,) = problems_of(folder)
    assert line.startswith(
        "val_frame_annots.json: record 1 (byte 2): this is the older schema with one record per frame"
    )


# --- traps ---------------------------------------------------------------------------------------------------------


def test_what_no_pair_can_be_made_of_is_counted_and_left_out(tmp_path: Path) -> None:
    flat = {**BOX, "xmax": 1}
    records = [
        record(15, 2),
        record(15, 0),
        record(15, 2),  # again
        record(15, 1, person_box=OTHER),  # another box for the same pair
        record(45, person_box=flat),
        record(45, object_id=4),
        record(45, object_box={**OTHER, "xmin": 160, "xmax": 180}),
        record(45, object_id=9, object_class=0),
        record(46, object_id=9),  # no key frame
    ]
    manifest, notes = imported(annotations(tmp_path / "a", records))
    pairs = manifest.pairs(0)
    assert [(pair.frame, pair.object_id, pair.predicates) for pair in pairs] == [
        (14, 7, ("watch", "hold", "next_to")),
        (44, 9, ("watch",)),
        (45, 9, ("watch",)),
    ]
    assert pairs[0].person_box == (1, 2, 30, 40)
    assert {
        "records left out, a box without area: 1",
        "records left out, a box outside the picture: 1",
        "records left out, person and object are the same track: 1",
        "records that repeat a predicate of a pair, counted once: 1",
        "records with another box or object class than the first of their pair, which counts: 1",
        "records not at a key frame, or with another middle_frame_timestamp than it has: 1",
    } <= {*notes}


def test_missing_boxes_of_a_track_repeat_the_previous_one(tmp_path: Path) -> None:
    def box(tid: int, x: int, width: int = 10) -> dict[str, Any]:
        return {"tid": tid, "bbox": {"xmin": x, "ymin": 0, "xmax": x + width, "ymax": 9}, "generated": 0}

    frames = [[] for _ in range(20)]  # type: list[list[Any]]
    frames[2], frames[3], frames[4] = [box(4, 2), box(4, 77)], [box(9, 5)], [box(4, 4, 0)]
    frames[6] = [box(4, 6)]
    folder = annotations(tmp_path / "a", [record(15)], train_trajectories={"0001/11": frames, "0001/99": "not wanted"})
    manifest, _ = imported(folder)
    tracks = {track.track_id: track for track in manifest.tracks(0)}
    assert {*tracks} == {4, 7}
    assert tracks[4].start_frame == 2
    assert tracks[4].boxes[:, 0].tolist() == [2, 2, 2, 2, *[6] * 8, 1]  # the pair's own box at frame 14
    assert (tracks[7].start_frame, tracks[7].boxes.tolist()) == (14, [[5, 6, 50, 60]])


def test_videos_on_disk_are_taken_and_the_others_counted(tmp_path: Path) -> None:
    records = [record(15, video_id=name) for name in ("11", "12", "13", "14")]
    frames = {name: [[] for _ in range(20)] for name in ("0001/11", "0001/13", "0001/14")}
    folder = annotations(tmp_path / "a", records, train_trajectories=frames)
    (folder / "0001").mkdir()
    (folder / "0001" / "11.mp4").write_bytes(b"x")
    for name, count in (("13", 20), ("14", 24)):  # the second as extracted with another rate
        (folder / "0001" / name).mkdir()
        for number in range(count):
            (folder / "0001" / name / f"{name}_{number + 1:06}.jpg").write_bytes(b"x")
    manifest, notes = imported(folder, {"val_fraction": 0.0})
    assert manifest.clip_ids == ("0001/11", "0001/13")
    clips = [manifest.clip(row) for row in range(2)]
    assert [clip.path for clip in clips] == [folder / "0001" / "11.mp4", folder / "0001" / "13"]
    assert [(clip.num_frames, clip.fps, clip.group) for clip in clips] == [
        (None, None, "0001/11"),
        (20, 30.0, "0001/13"),
    ]
    assert notes[0].startswith("clips not on disk: 2 (2 train)")
    assert notes[1].startswith("frame folders left out that hold another number of images than was annotated: 1, such")
    assert "such as 0001/14 with 24 images for 20 frames; a folder must hold every frame of its video" in notes[1]
    with pytest.raises(
        UserError, match=r"none of the 4 annotated clips is below .*; looked for files such as .*11\.mp4"
    ):
        import_with("vidhoi", tmp_path, folder / "out", annotations=folder)


def test_stretches_have_the_times_of_the_file_itself(tmp_path: Path) -> None:
    # a file of 15 frames a second is annotated as 24: frame 35 is shown at 2.33 s, not at 1.46 s
    frames = {"video_fps": 24}
    records = [record(12, 1, **frames), record(36, 0, **frames), record(36, 1, **frames), record(60, 2, **frames)]
    records += [record(900, 2, **frames), record(12, video_id="12", **frames)]
    folder = annotations(tmp_path / "a", records)
    (folder / "0001").mkdir()
    encode(folder / "0001" / "11.mp4", 60, times=range(0, 60 * 1024, 1024))
    (folder / "0001" / "12.mp4").write_bytes(b"no video")
    manifest, notes = imported(folder, {"level": "clip", "segment": 1.0, "val_fraction": 0.0})
    clips = [manifest.clip(row) for row in range(len(manifest))]
    assert [(clip.start, clip.end, clip.labels["predicate"]) for clip in clips] == [
        (0.0, 1.0, (1,)),
        (2.0, 3.0, (0, 1)),
        (3.0, None, (2,)),  # the file ends within it
    ]
    assert {clip.group for clip in clips} == {"0001/11"}
    assert manifest.tasks["predicate"].of == "clip"
    assert "videos left out that cannot be read: 1" in notes
    assert any(note.startswith("the first video that cannot be read: clip '0001/12'") for note in notes)
    assert "records left out, of frames after the end of the file: 1" in notes


# --- splits --------------------------------------------------------------------------------------------------------


def test_whole_videos_are_held_out_and_the_draw_is_stable(tmp_path: Path) -> None:
    train = [record(frame, video_id=str(k)) for k in range(100, 150) for frame in (15, 45)]
    val = [record(video_id="9", video_folder="0002")]
    folder = annotations(tmp_path / "a", train, val_frame_annots=val)

    def of(split: str, **options: Any) -> set[str]:
        manifest, _ = imported(folder, {"keep_missing": True, **options})
        groups = {s: {*manifest.split(s).table.column("group").to_pylist()} for s in ("train", "val", "test")}  # type: ignore[arg-type]
        assert not groups["train"] & (groups["val"] | groups["test"])
        return groups[split]

    drawn = of("val")
    assert len(drawn) == 5  # a tenth
    assert of("test") == {"0002/9"}
    assert of("val", level="clip") == drawn
    assert drawn < of("val", val_fraction=0.3)
    assert of("val", seed=1) != drawn
    assert of("val", official_val="val") == {"0002/9"}
    assert of("test", official_val="val") == set()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"segment": 0.0}, "--segment must be seconds above 0, got 0"),
        ({"segment": float("nan")}, "--segment must be seconds above 0, got nan"),
        ({"val_fraction": 1.0}, "--val-fraction must be at least 0 and below 1, got 1"),
        ({"val_fraction": 0.1, "official_val": "val"}, "give one"),
    ],
)
def test_options_are_checked(tmp_path: Path, options: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        imported(tmp_path, options)


# --- faults --------------------------------------------------------------------------------------------------------

WHOLE = "a whole number from 0 on"
FAULTS: Sequence[tuple[Any, str]] = [
    ({"frame_id": 15}, 'frame_id must be the number of a frame from 1 as text such as "000015", got 15'),
    ({"frame_id": "000000"}, "frame_id must be the number of a frame from 1 as text such as \"000015\", got '000000'"),
    ({"frame_id": "²"}, "frame_id must be the number of a frame from 1 as text such as \"000015\", got '²'"),
    ({"frame_id": ["x"]}, "frame_id must be the number of a frame from 1 as text such as \"000015\", got ['x']"),
    ({"video_folder": ".."}, "video_folder must be text of letters, digits, '_' and '-', got '..'"),
    ({"video_id": "a/../b"}, "video_id must be text of letters, digits, '_' and '-', got 'a/../b'"),
    ({"video_id": 11}, "video_id must be text of letters, digits, '_' and '-', got 11"),
    (
        {"video_fps": 29.97},
        "video_fps must be a whole number from 1 to 999, the same in all records of a video, got 29.97",
    ),
    ({"video_fps": 24}, "video_fps must be a whole number from 1 to 999, the same in all records of a video, got 24"),
    ({"width": 0}, "width must be a whole number of pixels, the same in all records of a video, got 0"),
    ({"height": 91}, "height must be a whole number of pixels, the same in all records of a video, got 91"),
    ({"person_id": -1}, f"person_id must be {WHOLE}, got -1"),
    ({"person_id": True}, f"person_id must be {WHOLE}, got True"),
    ({"object_id": 2**70}, f"object_id must be {WHOLE}, got {2**70}"),
    ({"object_class": 3}, "object_class must be a whole number from 0 to 2, got 3"),
    ({"action_class": "1"}, "action_class must be a whole number from 0 to 2, got '1'"),
    (
        {"person_box": [1, 2, 3, 4]},
        "person_box must be an object with the finite numbers xmin, ymin, xmax, ymax, got [1, ",
    ),
    ({"object_box": {**BOX, "xmax": None}}, "object_box must be an object with the finite numbers xmin, ymin, xmax, "),
    (
        {"object_box": {**BOX, "xmax": 10**400}},
        "object_box must be an object with the finite numbers xmin, ymin, xmax, ",
    ),
]


def test_every_fault_of_a_record_is_said_with_its_place(tmp_path: Path) -> None:
    misspelt = record(frame_idx="000015")
    del misspelt["frame_id"]
    records = [record(), *(record(**changes) for changes, _ in FAULTS), [1], misspelt, record()]
    folder = annotations(tmp_path / "a", records)
    found = problems_of(folder)
    text = (folder / "train_frame_annots.json").read_bytes()
    for number, ((_, words), line) in enumerate(zip(FAULTS, found, strict=False), 2):
        place, _, rest = line.partition("): ")
        assert place.startswith(f"train_frame_annots.json: record {number} (byte ")
        assert text[int(place.rsplit(" ", 1)[1]) :].startswith(b'{"video_folder"')
        assert rest.startswith(words)
    assert found[len(FAULTS)].endswith(", person_box, object_box, got [1]")
    assert found[len(FAULTS) + 1].endswith("): lacks frame_id; did you mean 'frame_idx'?")
    assert len(found) == len(FAULTS) + 2


def test_nan_ends_the_reading_of_a_file(tmp_path: Path) -> None:
    (line,) = problems_of(annotations(tmp_path / "a", [record(object_box={**BOX, "xmax": float("nan")}), record()]))
    assert (
        line
        == "train_frame_annots.json: record 1 (byte 1): not JSON: NaN is not a JSON number; write null or leave it out"
    )


def test_bad_records_are_listed_up_to_a_limit_and_counted(tmp_path: Path) -> None:
    found = problems_of(annotations(tmp_path / "a", [record(action_class=9)] * 400))
    assert len(found) == LISTED + 1
    assert found[-1] == f"… and {400 - LISTED} more"


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"train_frame_annots": []}, "train_frame_annots.json: no records: the list is empty"),
        ({"train_frame_annots": {}}, "train_frame_annots.json: not JSON that holds an array: it begins with '{'"),
        (
            {"val_frame_annots": [record()]},
            "video_folder must be of a video that is in one file only, 0001/11 is in train",
        ),
        ({"obj_categories": ["cup"]}, "obj_categories.json: no class 'person'"),
        ({"obj_categories": ["person", "person"]}, "obj_categories.json: class names must be unique"),
        ({"pred_categories": {"a": 1}}, "pred_categories.json: must be the list of class names in their order"),
        ({"list": 5}, 'list.json: must be a list such as ["1000/4925211209_000156"], got 5'),
        ({"list": ["../x/y_000001"]}, "list.json: entry 1: must be <folder>/<video>_<frame from 1>"),
        ({"train_trajectories": []}, "train_trajectories.json: not JSON that holds an object: it begins with '['"),
        ({"train_trajectories": {"0001/11": 5}}, "record 1 (byte 1): video '0001/11': frame 0 must be a list of boxes"),
        ({"train_trajectories": {"0001/11": [[], [{}]]}}, "frame 1: a box must be an object with tid and bbox"),
        ({"train_trajectories": {"0001/11": [[{"tid": "a", "bbox": BOX}]]}}, "frame 0: tid must be a whole number"),
        (
            {"train_trajectories": {"0001/11": [[{"tid": 1, "bbox": {**BOX, "xmin": "a"}}]]}},
            "frame 0: xmin, ymin, xmax, ymax must be numbers, got ('a', 2, 30, 40)",
        ),
    ],
)
def test_faults_of_the_files(tmp_path: Path, others: Mapping[str, Any], words: str) -> None:
    folder = annotations(tmp_path / "a", [record()], **others)
    more = {"leave_out": folder / "list.json"} if "list" in others else {}
    assert any(words in line for line in problems_of(folder, **more))


def test_folders_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--annotations: .*none is not a folder"):
        import_with("vidhoi", tmp_path, tmp_path / "out", annotations=tmp_path / "none")
    with pytest.raises(ManifestError, match=r"neither train_frame_annots\.json nor val_frame_annots\.json is there"):
        imported(tmp_path)
    folder = annotations(tmp_path / "a", [record()])
    with pytest.raises(UserError, match="none is not a folder; it must be that of the videos"):
        import_with("vidhoi", tmp_path / "none", tmp_path / "out", annotations=folder)


def test_mutated_files_never_escape_as_other_errors(test_data: Path, tmp_path: Path) -> None:
    """R15 in small: whatever is done to a file, it is read or refused."""
    sound = json.dumps(json.loads((test_data / "vidhoi" / "train_frame_annots.sample100.json").read_text())[:3])
    folder = real(test_data, tmp_path / "a", train_frame_annots="train_frame_annots.sample100.json")
    (folder / "val_trajectories.json").write_text("{}")
    draw, refused = random.Random(0), 0
    for _ in range(150):
        data = bytearray(sound.encode())
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(data))
            data[place : place + draw.randint(0, 4)] = bytes(
                draw.choices(b'",:{}[]019.-e\xff\\nu', k=draw.randint(0, 4))
            )
        (folder / "train_frame_annots.json").write_bytes(data)
        try:
            imported(folder)
        except (ManifestError, UserError):
            refused += 1
    assert 75 < refused < 150


# --- size ----------------------------------------------------------------------------------------------------------


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    ("count", "frames", "seconds", "gibibytes"),
    [
        (20_000, 0, 20, 1.2),
        (4_380, 900, 20, 1.0),
        pytest.param(*(1_393_976, 0, 60, 2.0), marks=[pytest.mark.campaign, pytest.mark.timeout(900)]),
        pytest.param(*(1_393_976, 900, 400, 2.0), marks=[pytest.mark.campaign, pytest.mark.timeout(1800)]),
    ],
)
def test_the_whole_of_vidhoi_fits(tmp_path: Path, count: int, frames: int, seconds: float, gibibytes: float) -> None:
    """As many records as the train part has, in videos as long as its are: time on one core, and peak memory.

    With ``frames``, trajectories of 4 tracks in so many frames of every video: 23 million boxes in all.
    """
    folder = annotations(tmp_path / "a", [])
    draw = random.Random(0)
    with (folder / "train_frame_annots.json").open("w") as stream:
        for number in range(count):
            video, place = divmod(number, VIDEO)
            person, box = place % 4, drawn_box(draw)
            where = {"video_folder": f"{video % 1200:04}", "video_id": f"{2_400_000_000 + video}"}
            where |= {"width": 640, "height": 480}
            ids = {"person_id": person, "object_id": (person + 1 + place % 3) % 4, "object_class": place % 3}
            one = record(15 + 30 * (place // 9), draw.randrange(3), **where, **ids, person_box=box, object_box=box)
            stream.write(("[" if number == 0 else ", ") + json.dumps(one))
        stream.write("]")
    videos = -(-count // VIDEO)
    if frames:
        write_trajectories(folder / "train_trajectories.json", videos, frames, draw)
    command = ["vidhoi", "--annotations", folder, "--videos", folder, "--out", tmp_path / "out", "--keep-missing"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = [sys.executable, "-c", PEAK, *map(str, command)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < seconds
    assert float(done.stderr) < gibibytes
    assert f"{videos} clips" in done.stdout
    if frames:
        manifest = read_manifest(tmp_path / "out" / "manifest.parquet").select(range(1))
        assert [(track.start_frame, len(track.boxes)) for track in manifest.tracks(0)] == [(0, frames)] * 4


VIDEO = 219  # records of a video


def drawn_box(draw: random.Random) -> dict[str, int]:
    x, y = draw.randrange(500), draw.randrange(300)
    return {"xmin": x, "ymin": y, "xmax": x + 40, "ymax": y + 50}


def write_trajectories(file: Path, videos: int, frames: int, draw: random.Random) -> None:
    """Write 4 boxes for every frame of every video; the frames are drawn from a thousand."""
    known = [
        json.dumps([{"tid": tid, "bbox": drawn_box(draw), "generated": 1, "tracker": "kcf"} for tid in range(4)])
        for _ in range(1000)
    ]
    with file.open("w") as stream:
        for video in range(videos):
            text = ", ".join(draw.choices(known, k=frames))
            stream.write(", " if video else "{")
            stream.write(f'"{video % 1200:04}/{2_400_000_000 + video}": [{text}]')
        stream.write("}")


PEAK = """
import sys
from data_tools.cli import main
from tests.memory import peak_gib
assert main(sys.argv[1:]) == 0
print(peak_gib(), file=sys.stderr)
"""
