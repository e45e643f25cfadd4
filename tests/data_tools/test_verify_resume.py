"""What was checked is not read again, unless its file has changed; what was measured is written down."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from data_tools.verify.clip import check_clip
from data_tools.verify.command import verify_manifest
from data_tools.verify.journal import JOURNAL, Journal
from data_tools.verify.records import Checked, Fault
from data_tools.verify.report import VerifyReport
from hoi_train.core.records import ClassList, Clip, Task
from hoi_train.data.manifest import read_manifest, write_manifest
from hoi_train.data.manifest.quarantine import read_quarantine
from hoi_train.data.readers import open_clip
from tests.conftest import ROOT
from tests.videos import clip_of, cut, encode

TASK = Task("label", ClassList(("x",)), "single")


def verify(manifest: Path, out: Path, **options: object) -> VerifyReport:
    report = verify_manifest(manifest, out, console=Console(file=io.StringIO()), **options)  # type: ignore[arg-type]
    assert report is not None
    return report


def manifest_of(folder: Path, names: list[str]) -> Path:
    rows = [{"clip_id": name, "path": name, "split": "train", "label": "x"} for name in names]
    return write_manifest(folder / "m.parquet", rows, [TASK], folder)


@pytest.mark.process
def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    encode(tmp_path / "0.mp4", 40)
    for number in range(1, 40):
        (tmp_path / f"{number}.mp4").symlink_to("0.mp4")
    (tmp_path / "30.mp4").unlink()
    (tmp_path / "30.mp4").write_text("no video")
    manifest, journal = manifest_of(tmp_path, [f"{k}.mp4" for k in range(40)]), tmp_path / "out" / JOURNAL
    command = [sys.executable, "-m", "data_tools.cli", "verify", str(manifest), "--out", str(journal.parent)]
    with subprocess.Popen([*command, "--workers", "1"], cwd=ROOT, stdout=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 120
        while (not journal.exists() or journal.read_bytes().count(b"\n") < 3) and time.monotonic() < deadline:
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    with journal.open("ab") as file:
        file.write(b'{"clip": "torn')
    noted = journal.read_bytes().count(b"\n")
    assert 3 <= noted < 40
    report = verify(manifest, journal.parent)
    assert report.known == noted
    assert [bad.clip_id for bad in report.bad] == ["30.mp4"]
    assert journal.read_bytes().count(b"\n") == 40
    again = verify(manifest, journal.parent)
    assert again.known == 40
    assert (again.bad, again.warnings, again.notes) == (report.bad, report.warnings, report.notes)


def test_a_changed_file_is_checked_anew(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", 10)
    clip, frames = clip_of(path), tmp_path / "frames"
    frames.mkdir()
    (frames / "0.jpg").write_bytes(b"1")
    journal = Journal(tmp_path, "auto")
    assert journal.find(clip) is None
    checked = check_clip(clip, reader="auto")
    journal.note(clip, checked)
    folder = clip_of(frames)
    assert journal.find(folder) is None
    journal.note(folder, Checked("unreadable", "no image"))
    journal.close()
    assert Journal(tmp_path, "auto").find(clip) == checked
    assert Journal(tmp_path, "auto").find(folder) == Checked("unreadable", "no image")
    assert Journal(tmp_path, "pyav").find(clip) is None
    assert Journal(tmp_path, "auto").find(clip_of(path, end=0.1)) is None
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    (frames / "0.jpg").write_bytes(b"12")
    assert Journal(tmp_path, "auto").find(clip) is None
    assert Journal(tmp_path, "auto").find(folder) is None


def test_a_changed_size_or_pair_is_checked_anew(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", 10)  # 96×80
    box = [0.0, 0.0, 9.0, 9.0]
    pair = {"frame": 9, "person_id": 0, "object_id": 1, "object_class": "cup", "predicates": []}
    pair |= {"person_box": box, "object_box": box}
    does = Task("does", ClassList(("hold",)), "multi", of="pair")
    changes: list[tuple[dict[str, object], Fault | None]] = [
        ({}, None),
        ({"width": 640, "height": 480}, "unreadable"),
        ({"width": 96, "height": 80}, None),
        ({"pairs": [pair]}, None),
        ({"pairs": [{**pair, "frame": 10}]}, "shorter"),
        ({"pairs": [{**pair, "object_box": [96.0, 0.0, 99.0, 9.0]}]}, "boxes"),
    ]
    for known in (0, 1):  # first anew, then from the journal
        for fields, fault in changes:
            row = {"clip_id": "a", "path": "a.mp4", "split": "train", **fields}
            report = verify(write_manifest(tmp_path / "m.parquet", [row], [does], tmp_path), tmp_path / "out")
            assert (report.known, [clip.fault for clip in report.bad]) == (known, [fault] if fault else [])


@pytest.mark.parametrize("fault", ["timeout", "crashed"])
def test_what_was_lost_is_tried_again(tmp_path: Path, fault: Fault) -> None:
    clip = clip_of(encode(tmp_path / "a.mp4", 2))
    journal = Journal(tmp_path, "auto")
    assert journal.find(clip) is None
    journal.note(clip, Checked(fault, "its process was killed"))
    journal.close()
    assert Journal(tmp_path, "auto").find(clip) is None


def test_the_measured_manifest(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", 24)
    cut(tmp_path / "a.mp4", tmp_path / "cut.mp4", 14)
    (tmp_path / "bad.mp4").touch()
    manifest = manifest_of(tmp_path, ["a.mp4", "cut.mp4", "bad.mp4"])
    before = {path.name: hashlib.sha256(path.read_bytes()).digest() for path in tmp_path.iterdir()}
    verify(manifest, tmp_path / "out", measured=True)
    assert {path.name: hashlib.sha256(path.read_bytes()).digest() for path in tmp_path.glob("*.*")} == before
    measured = read_manifest(tmp_path / "out" / "m.parquet")
    clips = [measured.clip(row) for row in range(3)]
    assert [(clip.num_frames, clip.fps) for clip in clips] == [(24, 30.0), (10, 30.0), (None, None)]
    assert [clip.path for clip in clips] == [tmp_path / name for name in ("a.mp4", "cut.mp4", "bad.mp4")]
    assert read_quarantine(tmp_path / "out" / "quarantine.json", measured).keys() == {"bad.mp4"}
    assert len(_frames(clips[0])) == 24


def _frames(clip: Clip) -> list[object]:
    with open_clip(clip) as reader:
        return list(reader.frames())
