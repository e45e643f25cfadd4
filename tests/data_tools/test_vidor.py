"""VidOR's own annotation gives what VidHOI's files, made from it, give."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from data_tools.importers.vidhoi.classes import OBJECTS, PREDICATES
from data_tools.importers.vidor import key_frame_rate, key_frames
from hoi_train.data.manifest import Manifest, ManifestError, read_manifest
from tests.data_tools.importing import import_with

ALL: Mapping[str, Any] = {"val_fraction": 0.0, "keep_missing": True}
FRAMES = 100


def box(tid: int, frame: int) -> dict[str, Any]:
    corners = {"xmin": tid * 10 + frame, "ymin": frame, "xmax": tid * 10 + frame + 30, "ymax": frame + 40}
    return {"tid": tid, "bbox": corners, "generated": 1, "tracker": "kcf"}


def relation(subject: int, thing: int, predicate: str, begin: int, end: int) -> dict[str, Any]:
    return {"subject_tid": subject, "object_tid": thing, "predicate": predicate, "begin_fid": begin, "end_fid": end}


def video() -> dict[str, Any]:
    """A child (0), an adult (1), a dog (2) and a cup (3), which has no box from frame 40 to 49."""
    categories = ("child", "adult", "dog", "cup")
    return {
        "video_id": "11",
        "fps": 29.97002997002997,
        "frame_count": FRAMES,
        "width": 640,
        "height": 360,
        "subject/objects": [{"tid": tid, "category": category} for tid, category in enumerate(categories)],
        "trajectories": [
            [box(tid, frame) for tid in range(4) if tid != 3 or not 40 <= frame < 50] for frame in range(FRAMES)
        ],
        "relation_instances": [
            relation(0, 3, "hold", 14, 15),  # begin is in it
            relation(0, 3, "watch", 0, 14),  # end is not
            relation(0, 1, "next_to", 0, 60),
            relation(1, 3, "watch", 30, 60),
            relation(0, 1, "watch", 40, 60),
            relation(2, 0, "watch", 0, 100),  # a dog is no person
        ],
    }


def annotation(folder: Path, content: Any, part: str = "training", name: str = "11") -> Path:
    (folder / part / "0001").mkdir(parents=True, exist_ok=True)
    (folder / part / "0001" / f"{name}.json").write_text(json.dumps(content))
    return folder


def imported(folder: Path, name: str = "vidor", **more: Any) -> Manifest:
    return read_manifest(import_with(name, folder, folder / "out", annotations=folder, **ALL, **more).path)


def test_relations_of_persons_in_key_frames_become_pairs(tmp_path: Path) -> None:
    folder = annotation(tmp_path, video())
    annotation(tmp_path, video(), "validation", "12")
    manifest = imported(folder)
    assert manifest.clip_ids == ("0001/11", "0001/12")
    assert [manifest.clip(row).split for row in range(2)] == ["train", "test"]
    assert (manifest.object_classes, manifest.tasks["predicate"].classes) == (OBJECTS, PREDICATES)
    found = [(p.frame, p.person_id, p.object_id, p.object_class, p.predicates) for p in manifest.pairs(0)]
    assert found == [
        (14, 0, 1, "person", ("next_to",)),
        (14, 0, 3, "cup", ("hold",)),
        (44, 0, 1, "person", ("watch", "next_to")),
        (44, 1, 3, "cup", ("watch",)),
    ]
    assert manifest.pairs(0)[1].object_box == (44, 14, 74, 54)
    assert manifest.pairs(0)[3].object_box == (69, 39, 99, 79)  # that of frame 39, the last before the gap
    tracks = {track.track_id: track for track in manifest.tracks(0)}
    assert {*tracks} == {0, 1, 3}  # the dog has no pair
    assert {len(track.boxes) for track in tracks.values()} == {FRAMES}
    assert tracks[3].boxes[45].tolist() == [69, 39, 99, 79]


def test_stretches_of_videos(tmp_path: Path) -> None:
    manifest = imported(annotation(tmp_path, video()), level="clip")
    assert manifest.clip_ids == ("0001/11_00000",)
    named = [PREDICATES.names[id_] for id_ in manifest.clip(0).labels["predicate"]]  # type: ignore[union-attr]
    assert named == ["watch", "next_to", "hold"]


def test_it_agrees_with_the_frame_annotations_made_from_it(tmp_path: Path) -> None:
    """The published conversion: an entry for each relation of a person that holds in frame i - 1 of a key frame i."""
    content, records = video(), []
    things = {thing["tid"]: thing["category"] for thing in content["subject/objects"]}
    for i in range(FRAMES):
        for r in content["relation_instances"]:
            if (i - 15) % 30 == 0 and r["begin_fid"] <= i - 1 < r["end_fid"] and things[r["subject_tid"]] != "dog":
                category = things[r["object_tid"]]
                boxes = [
                    box(r[key], min(i - 1, 39) if r[key] == 3 else i - 1)["bbox"]
                    for key in ("subject_tid", "object_tid")
                ]
                records.append(
                    {
                        **{"video_folder": "0001", "video_id": "11", "frame_id": f"{i:06}", "video_fps": 30},
                        **{"middle_frame_timestamp": i // 30 + 1, "person_box": boxes[0], "object_box": boxes[1]},
                        **{"person_id": r["subject_tid"], "object_id": r["object_tid"]},
                        **{"width": content["width"], "height": content["height"]},
                        "object_class": 0 if category in ("adult", "child") else OBJECTS.index(category),
                        "action_class": PREDICATES.index(r["predicate"]),
                    }
                )
    files = {
        "train_frame_annots": records,
        "train_trajectories": {"0001/11": content["trajectories"]},
        "obj_categories": list(OBJECTS),
        "pred_categories": list(PREDICATES),
    }
    (tmp_path / "b").mkdir()
    for name, value in files.items():
        (tmp_path / "b" / f"{name}.json").write_text(json.dumps(value))
    theirs = imported(tmp_path / "b", "vidhoi")
    ours = imported(annotation(tmp_path / "a", content))
    assert ours.pairs(0) == theirs.pairs(0)
    assert [(t.track_id, t.start_frame, t.boxes.tolist()) for t in ours.tracks(0)] == [
        (t.track_id, t.start_frame, t.boxes.tolist()) for t in theirs.tracks(0)
    ]


@pytest.mark.parametrize(("rate", "count", "last"), [(30, 45, 14), (30, 46, 44), (24, 12, None), (24, 13, 11)])
def test_key_frames_are_the_published_ones(rate: int, count: int, last: int | None) -> None:
    published = [i - 1 for i in range(count) if (i - rate // 2) % rate == 0]
    assert list(key_frames(rate, count)) == published
    assert (published or [None])[-1] == last


def test_rates_are_the_published_ones() -> None:
    assert [key_frame_rate(fps) for fps in (29.97, 30, 25.0, 24, 15, 10)] == [30, 30, 24, 24, 24, 24]


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("fps",), "30", "fps must be frames per second from 1 to 999, got '30'"),
        (("fps",), float("nan"), "not JSON: NaN is not a JSON number; write null or leave it out"),
        (("frame_count",), 99, "trajectories are those of 100 frames, frame_count is 99"),
        (("frame_count",), None, "frame_count must be a whole number from 1 on, got None"),
        (("subject/objects",), {}, "subject/objects must be a list, got {}"),
        (("subject/objects", 1, "tid"), 0, "subject/objects[1]: tid 0 occurs twice"),
        (("subject/objects", 1, "tid"), -1, "subject/objects[1] must be an object with a tid from 0 on and a category"),
        (
            ("subject/objects", 2, "category"),
            "dogg",
            "subject/objects[2]: unknown category 'dogg'; did you mean 'dog'?",
        ),
        (("subject/objects", 2, "category"), [], "subject/objects[2]: unknown category []"),
        (("relation_instances",), None, "relation_instances must be a list, got None"),
        (
            ("relation_instances", 0),
            5,
            "relation_instances[0] must be an object with subject_tid, object_tid, predicate",
        ),
        (
            ("relation_instances", 0, "object_tid"),
            9,
            "relation_instances[0]: object_tid 9 is no tid of subject/objects",
        ),
        (("relation_instances", 0, "predicate"), "holds", "unknown predicate 'holds'; did you mean 'hold'?"),
        (("relation_instances", 0, "end_fid"), 14, "begin_fid and end_fid must be frames from 0 on, first begin_fid"),
        (("trajectories",), None, "trajectories are missing; they must be a list with the boxes of each frame"),
        (("trajectories",), 5, "trajectories: frame 0 must be a list of boxes, got 5"),
        (("trajectories", 3, 0, "bbox"), {}, "trajectories: frame 3: a box must be an object with tid and bbox"),
        ((), [1], "must be an object with the annotation of one video, got [1]"),
    ],
)
def test_faults_are_said(tmp_path: Path, path: tuple[Any, ...], value: Any, words: str) -> None:
    content: Any = {"": copy.deepcopy(video())}
    place, *rest = ("", *path)
    holder = content
    for key in rest:
        holder, place = holder[place], key
    if value is None:
        holder.pop(place)
    else:
        holder[place] = value
    folder = annotation(tmp_path, content[""])
    with pytest.raises(ManifestError) as caught:
        imported(folder)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{folder / 'training' / '0001' / '11.json'}: ")


def test_faults_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no file training/<folder>/<video>\.json"):
        imported(tmp_path)
    nothing = annotation(tmp_path / "a", {**video(), "relation_instances": []})
    with pytest.raises(ManifestError, match="no person does anything in any key frame"):
        imported(nothing)
    twice = annotation(annotation(tmp_path / "b", video()), video(), "validation")
    with pytest.raises(ManifestError, match=r"11\.json: video 0001/11 is in training, too"):
        imported(twice)
