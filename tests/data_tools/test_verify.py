"""Every clip is decoded or said to be bad, and no clip stops the run."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from data_tools.verify.clip import check_clip
from data_tools.verify.command import verify_manifest
from data_tools.verify.report import VerifyReport
from hoi_train.core.records import ClassList, Clip, ClipError, Task, UserError
from hoi_train.data.manifest import ManifestError, read_manifest, write_manifest
from hoi_train.data.manifest.quarantine import read_quarantine
from hoi_train.data.pair_dataset import PairDataset
from hoi_train.data.samplers import Item
from hoi_train.data.transforms import CenterCrop
from tests.videos import encode, numbered, write_image

TASK = Task("label", ClassList(("x",)), "single")


def manifest_of(folder: Path, rows: list[dict[str, Any]]) -> Path:
    filled = [{"clip_id": str(k), "split": "train", "label": "x", **row} for k, row in enumerate(rows)]
    return write_manifest(folder / "m.jsonl", filled, [TASK], folder)


def verify(path: Path, **options: Any) -> tuple[VerifyReport, str]:
    stream = io.StringIO()
    console = Console(file=stream, width=200)
    report = verify_manifest(path, path.parent / "out", workers=1, console=console, **options)
    assert report is not None
    return report, stream.getvalue()


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return encode(tmp_path / "sound.mp4", 30)  # 30 frames a second, 1 s


def test_every_kind_of_bad_clip_is_said(tmp_path: Path, video: Path, test_data: Path) -> None:
    whole = encode(tmp_path / "whole.mp4", 60, container_options={"movflags": "faststart"})
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all\n" * 50)
    (tmp_path / "damaged.mp4").write_bytes((test_data / "decode_samples" / "decord_corrupted.mp4").read_bytes())
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "gone.mp4")
    sound = {"path": video.name}
    path = manifest_of(
        tmp_path,
        [
            sound,
            {"path": "gone.mp4"},
            {"path": "link.mp4"},
            {"path": "cut.mp4"},
            {"path": "empty.mp4"},
            {"path": "text.mp4"},
            {"path": "damaged.mp4"},
            {"path": "folder.mp4"},
            {"path": "pipe.mp4"},
            {"path": "n" * 300},
            {"path": "http://127.0.0.1:9/x.mp4"},
            {**sound, "num_frames": 31},
            {**sound, "num_frames": 30},
            {**sound, "start": 1.0},
            {**sound, "start": 0.5001, "end": 0.5002},
            {**sound, "end": 1.2},
            {**sound, "end": 1.0},
            {**sound, "start": 0.25, "end": 0.5},
        ],
    )
    report, shown = verify(path)
    assert {clip.clip_id: clip.fault for clip in report.bad} == {
        "1": "missing",
        "2": "missing",
        "3": "shorter",
        "4": "unreadable",
        "5": "unreadable",
        "6": "unreadable",
        "7": "unreadable",
        "8": "unreadable",
        "9": "unreadable",
        "10": "missing",
        "11": "shorter",
        "13": "empty",
        "14": "empty",
        "15": "shorter",
    }
    texts = {clip.clip_id: clip.text for clip in report.bad}
    assert texts["8"] == "neither a regular file nor a folder"
    assert "File name too long" in texts["9"]
    assert texts["11"] == "it has 30 frames, the manifest says 31"
    assert texts["13"].startswith("no frame from 1.0 s until the end; it has 30 frames")
    assert texts["15"] == "it ends at about 1.000 s, the manifest's end is 1.2 s"
    assert [clip.clip_id for clip in report.bad] == sorted(texts, key=int)
    assert "18 clips, 14 bad (6 unreadable, 3 missing, 3 shorter, 2 empty)" in shown
    assert "… and 4 more" in shown


def pair_of(frame: int, object_box: list[float]) -> dict[str, Any]:
    pair = {"frame": frame, "person_id": 0, "object_id": 1, "object_class": "cup", "predicates": ["hold"]}
    return {**pair, "person_box": [0.0, 8.0, 96.0, 80.0], "object_box": object_box}


def test_pairs_that_training_cannot_read_are_said(tmp_path: Path, video: Path) -> None:
    inside, outside = [90.0, 70.0, 600.0, 600.0], [500.0, 500.0, 600.0, 600.0]
    labelled: list[dict[str, Any]] = [
        {"pairs": [pair_of(2, inside), pair_of(29, inside)]},
        {"pairs": [pair_of(2, inside), pair_of(999, inside)]},
        {"pairs": [pair_of(2, inside), pair_of(3, outside)]},
        {"pairs": [pair_of(15, inside)], "start": 0.5},
        {"pairs": [pair_of(0, [-9.0, 0.0, 0.0, 5.0])]},
        {},
    ]
    rows = [{"clip_id": str(k), "path": video.name, "split": "train", **row} for k, row in enumerate(labelled)]
    does = Task("does", ClassList(("hold",)), "multi", of="pair")
    path = write_manifest(tmp_path / "m.parquet", rows, [does], tmp_path, ClassList(("cup",)))
    report, _ = verify(path)
    place = "lies outside its 96×80 pixels (width × height); boxes are in pixels of this file, upright"
    said = [
        ("1", "shorter", "its pairs are of frame 999, it has frames 0 to 29"),
        ("2", "boxes", f"object_box [500.0, 500.0, 600.0, 600.0] of frame 3 {place}"),
        ("3", "shorter", "its pairs are of frame 15, it has frames 0 to 14"),
        ("4", "boxes", f"object_box [-9.0, 0.0, 0.0, 5.0] of frame 0 {place}"),
    ]
    assert [(clip.clip_id, clip.fault, clip.text) for clip in report.bad] == said
    data = PairDataset(
        read_manifest(path), {"does": does}, (CenterCrop(size=32), CenterCrop(size=32)), ClassList(("cup",))
    )
    refused = dict[str, str]()
    for position in range(len(data)):
        try:
            data[Item(position)]
        except ClipError as error:
            refused[data.clip_at(position).clip_id] = str(error).split(f"{video}: ")[1]
    assert refused == {clip_id: text for clip_id, _, text in said}


def test_reports_say_the_same_in_text_and_json(tmp_path: Path, video: Path) -> None:
    path = manifest_of(tmp_path, [{"path": video.name, "num_frames": 29}, {"path": "gone.mp4", "split": "val"}])
    report, _ = verify(path, timeout=30.0, reader="pyav")
    lines = (tmp_path / "out" / "verify.txt").read_text().splitlines()
    notes = ["colour range: 1 unspecified", "fit for seeking readers: 1 of 1 video clips"]
    gone = "no such file; check the manifest's root"
    assert lines == [
        f"{path}: 2 clips, 1 bad (1 missing)",
        "1 warnings (1 frames)",
        *notes,
        f"missing: clip '1' (val): {tmp_path / 'gone.mp4'}: {gone}",
        f"warning, frames: clip '0' (train): {video}: it has 30 frames, the manifest says 29",
    ]
    bad = {"clip_id": "1", "path": str(tmp_path / "gone.mp4"), "split": "val", "fault": "missing", "text": gone}
    warning = {"clip_id": "0", "path": str(video), "split": "train", "warning": "frames"}
    assert json.loads((tmp_path / "out" / "verify.json").read_text()) == {
        "manifest": str(path),
        "reader": "pyav",
        "timeout": 30.0,
        "clips": 2,
        "known": 0,
        "bad": [bad],
        "warnings": [{**warning, "text": "it has 30 frames, the manifest says 29"}],
        "notes": notes,
        "counts": {"missing": 1},
        "warning_counts": {"frames": 1},
    }
    assert read_quarantine(tmp_path / "out" / "quarantine.json", read_manifest(path)) == {"1": f"missing: {gone}"}
    assert report.counts() == {"missing": 1}


def test_sound_clips_give_an_empty_list(tmp_path: Path, video: Path) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(3):
        write_image(frames / f"{number:06}.jpg", numbered(number))
    path = manifest_of(tmp_path, [{"path": video.name}, {"path": "frames", "num_frames": 3, "fps": 24.0}])
    report, shown = verify(path)
    assert report.bad == ()
    assert "2/2" in shown
    (frames / "000001.jpg").write_bytes((frames / "000001.jpg").read_bytes()[:200])
    report, _ = verify(path)
    assert [(clip.clip_id, clip.fault) for clip in report.bad] == [("1", "unreadable")]


def test_a_clip_that_takes_too_long_is_killed_and_the_run_goes_on(tmp_path: Path) -> None:
    encode(tmp_path / "long.mp4", 300, width=320, height=240, options={"preset": "ultrafast"})
    report, shown = verify(manifest_of(tmp_path, [{"path": "long.mp4"}, {"path": "long.mp4"}]), timeout=0.05)
    assert [(clip.fault, clip.text) for clip in report.bad] == [
        ("timeout", "not done after 0.05 s; its process was killed"),
        ("timeout", "not done after 0.05 s; its process was killed"),
    ]
    assert "2/2" in shown


def test_wrong_options_are_refused(tmp_path: Path, video: Path) -> None:
    path = manifest_of(tmp_path, [{"path": video.name}])
    with pytest.raises(UserError, match="--workers must be 1 to 10000, got 0"):
        verify_manifest(path, tmp_path / "out", workers=0)
    with pytest.raises(UserError, match="--timeout must be seconds above 0, got -1"):
        verify_manifest(path, tmp_path / "out", timeout=-1)
    with pytest.raises(UserError, match=r"reader 'pyva' is not one of .*; did you mean 'pyav'\?"):
        verify_manifest(path, tmp_path / "out", reader="pyva")
    with pytest.raises(ManifestError, match="no such file"):
        verify_manifest(tmp_path / "none.csv", tmp_path / "out")
    with pytest.raises(UserError, match="is the folder of the manifest, which would be overwritten"):
        verify_manifest(path, tmp_path, measured=True)
    for out in (video, video / "out"):
        with pytest.raises(UserError, match=rf"--out {out}: {video} is a file; give a folder"):
            verify_manifest(path, out)
    with pytest.raises(UserError, match="is not UTF-8; give another folder"):
        verify_manifest(path, tmp_path / os.fsdecode(b"b\xffd"), measured=True)
    assert not (tmp_path / "out").exists()


def test_the_check_of_one_clip(video: Path) -> None:
    clip = Clip("a", video, "train", {}, num_frames=30, end=1.0)
    assert check_clip(clip, reader="auto").fault is None
