"""The frame cache: every frame of every clip at its place, whatever happens while it is made."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from data_tools.cli import main
from data_tools.derive.cache import FrameSettings, make_cache
from data_tools.derive.pipeline import DeriveReport, Work
from hoi_train.core.records import ClassList, Task, UserError
from hoi_train.data.manifest import Manifest, read_manifest, write_manifest
from hoi_train.data.readers import open_clip
from tests.conftest import ROOT
from tests.reencoding import in_this_process
from tests.videos import encode, number_of, numbered, write_image

VERB = Task("verb", ClassList(("take", "put")), "single")
NOUN = Task("noun", ClassList(("cup", "plate")), "multi")
DOES = Task("does", ClassList(("hold", "touch")), "multi", of="pair")
SMALL = FrameSettings(short_side=40, quality=90, shard_clips=3)


def manifest_of(folder: Path, rows: list[dict[str, Any]], *tasks: Task) -> Path:
    common = {"split": "train", "verb": "put", "noun": ["cup", "plate"]}
    filled = [{**(common if not tasks else {"split": "val"}), "clip_id": str(k), **row} for k, row in enumerate(rows)]
    return write_manifest(folder / "clips.parquet", filled, tasks or (VERB, NOUN), folder)


def run(path: Path, settings: FrameSettings = SMALL, **how: Any) -> tuple[DeriveReport, str]:
    stream, work = io.StringIO(), Work(**{"workers": 1, **how})
    with in_this_process():
        made = make_cache(path, out_of(path), settings, work, console=Console(file=stream, width=300))
    return made, stream.getvalue()


def planned(path: Path) -> str:
    stream = io.StringIO()
    assert make_cache(path, out_of(path), SMALL, dry_run=True, console=Console(file=stream, width=300)) is None
    return stream.getvalue()


def out_of(path: Path) -> Path:
    return path.parent / "out"


def cached(path: Path) -> Manifest:
    return read_manifest(out_of(path) / "manifest.parquet")


def numbers(manifest: Manifest, row: int) -> list[int]:
    with open_clip(manifest.clip(row)) as reader:
        assert reader.window() == range(len(reader.timestamps))
        return [number_of(image) for image in reader.frames()]


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file() and "out" not in path.relative_to(folder).parts)
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return encode(tmp_path / "video.mp4", 40, container_options={"movflags": "faststart"})  # 96×80, 30 a second


@pytest.mark.process
def test_every_clip_is_cached_or_said_to_be_bad(tmp_path: Path, video: Path) -> None:
    (tmp_path / "frames").mkdir()
    for number in range(7):
        write_image(tmp_path / "frames" / f"{number + 3}.png", numbered(number, 64, 36))
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[: video.stat().st_size * 2 // 3])
    (tmp_path / "text.mp4").write_text("no video")
    path = manifest_of(
        tmp_path,
        [
            {"path": "video.mp4", "verb": "take", "noun": [], "group": "P1", "split": "test"},
            {"path": "video.mp4", "start": 0.5, "end": 1.0, "clip_id": "../../etc/passwd"},
            {"path": "video.mp4", "start": 0.9},
            {"path": "text.mp4"},
            {"path": "frames", "fps": 10.0, "end": 0.5},
            {"path": "frames", "fps": 10.0, "start": 0.3},
            {"path": "gone.mp4"},
            {"path": "cut.mp4"},
            {"path": "video.mp4", "num_frames": 41},
            {"path": "video.mp4", "start": 2.0},
            {"path": "frames", "start": 0.3},
            {"path": "frames", "clip_id": "without a rate"},
        ],
    )
    before = state(tmp_path)
    report, shown = run(path, workers=2)
    assert state(tmp_path) == before
    assert {clip.clip_id: clip.fault for clip in report.bad} == {
        **{"3": "unreadable", "6": "missing", "7": "unreadable", "8": "unreadable", "9": "unreadable"},
        "10": "unreadable",
    }
    texts = {clip.clip_id: clip.text for clip in report.bad}
    assert texts["8"] == "it has 40 frames, the manifest says 41"
    assert texts["9"].startswith("no frame from 2.0 s until the end; it has 40 frames")
    assert "fill the column fps" in texts["10"]
    assert "12 clips: 6 made, 0 made before, 6 bad (5 unreadable, 1 missing)" in shown
    found = cached(path)
    assert found.clip_ids == ("0", "../../etc/passwd", "2", "4", "5", "without a rate")
    expected = [range(40), range(15, 30), range(27, 40), range(5), range(3, 7), range(7)]
    assert [numbers(found, row) for row in range(6)] == [list(each) for each in expected]
    clips = [found.clip(row) for row in range(6)]
    assert [clip.num_frames for clip in clips] == [len(each) for each in expected]
    assert [clip.fps for clip in clips] == [30.0, 30.0, 30.0, 10.0, 10.0, None]
    assert [clip.group for clip in clips] == ["P1", "video.mp4", "video.mp4", "frames", "frames", "frames"]
    assert {(clip.start, clip.end) for clip in clips} == {(None, None)}
    assert (clips[0].split, dict(clips[0].labels)) == ("test", {"verb": 0, "noun": ()})
    assert dict(clips[1].labels) == {"verb": 1, "noun": (0, 1)}
    assert [clip.size for clip in clips] == [(48, 40)] * 3 + [(64, 36)] * 3
    with open_clip(clips[0]) as small, open_clip(clips[3]) as same:
        assert small.read([0]).shape == (1, 40, 48, 3)
        assert same.read([0]).shape == (1, 36, 64, 3)


def test_the_report_says_what_is_there(tmp_path: Path, video: Path) -> None:
    path = manifest_of(tmp_path, [{"path": "video.mp4"}, *({"path": "video.mp4", "end": k / 10} for k in (2, 5, 9))])
    report, shown = run(path)
    written = json.loads((out_of(path) / "cache.json").read_text())
    assert written["shards"] == report.contents["shards"]
    assert [(shard["path"], shard["clips"]) for shard in report.contents["shards"]] == [
        ("shards/00000.zip", 3),
        ("shards/00001.zip", 1),
    ]
    for shard in report.contents["shards"]:
        data = (out_of(path) / shard["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (shard["bytes"], shard["sha256"])
    assert report.contents["frames"] == 40 + 6 + 15 + 27
    assert report.contents["source_bytes"] == round(video.stat().st_size * report.contents["frames"] / 40)
    some = np.arange(0, 40, 8)
    with open_clip(cached(path).clip(0)) as reader, open_clip(read_manifest(path).clip(0)) as source:
        given, kept = (torch.from_numpy(each.read(some)).permute(0, 3, 1, 2).float() for each in (source, reader))
    scaled = torch.nn.functional.interpolate(given, (40, 48), mode="bilinear", antialias=True)
    psnr = 10 * math.log10(255**2 / (kept - scaled).square().mean().item())
    assert abs(psnr - report.contents["psnr"]["lowest"]) < 0.1
    assert report.contents["psnr"]["lowest"] < report.contents["psnr"]["mean"]
    assert f"PSNR of the JPEG: {report.contents['psnr']['mean']:.1f} dB" in shown
    assert "88 frames" in shown
    names = {each.name for each in out_of(path).iterdir()}
    assert names == {"manifest.parquet", "dataset.json", "cache.json", "settings.json", "shards", "unpacked", "lock"}
    assert not [*out_of(path).glob("unpacked/*/*"), *out_of(path).glob("unfinished/*"), *out_of(path).rglob(".*")]
    with zipfile.ZipFile(out_of(path) / "shards" / "00001.zip") as shard, shard.open(shard.namelist()[0]) as clip:
        assert zipfile.ZipFile(clip).namelist() == [f"{k:06}.jpg" for k in range(27)]


@pytest.mark.process
def test_what_is_made_is_not_made_again(tmp_path: Path, video: Path) -> None:
    rows = [{"path": "video.mp4", "end": (k + 1) / 10} for k in range(5)]
    path = manifest_of(tmp_path, [*rows, {"path": "late.mp4"}])
    first, _ = run(path)
    assert (first.made, [clip.fault for clip in first.bad]) == (5, ["missing"])
    shards = {shard["path"]: shard["sha256"] for shard in first.contents["shards"]}
    encode(tmp_path / "late.mp4", 9)
    assert planned(path) == f"{path}: would make 1 clips from 1 sources; 5 are made already\n"
    second, shown = run(path)  # its shard is written anew: two clips from the old one, and the new one
    assert (second.made, second.bad) == (1, ())
    assert "6 clips: 1 made, 5 made before, 0 bad" in shown
    assert [numbers(cached(path), row) for row in (3, 4, 5)] == [list(range(12)), list(range(15)), list(range(9))]
    after = {shard["path"]: shard["sha256"] for shard in second.contents["shards"]}
    assert after["shards/00000.zip"] == shards["shards/00000.zip"]
    assert after["shards/00001.zip"] != shards["shards/00001.zip"]
    encode(tmp_path / "late.mp4", 11)  # a source that changed
    damaged = out_of(path) / "shards" / "00000.zip"
    damaged.write_bytes(damaged.read_bytes()[:-7])
    assert run(path)[0].made == 4
    assert [numbers(cached(path), row) for row in (2, 5)] == [list(range(9)), list(range(11))]
    assert run(path)[0].made == 0


def test_pairs_and_tracks_go_along(tmp_path: Path, video: Path) -> None:
    pair = {"frame": 2, "person_id": 0, "object_id": 1, "object_class": "cup", "predicates": ["hold"]}
    pair |= {"person_box": [0.0, 8.0, 96.0, 80.0], "object_box": [12.5, 1.0, 13.0, 3.0]}
    boxes = [[float(k), 0.0, float(k + 2), 80.0] for k in range(20)]
    tracks = [{"track_id": 0, "start_frame": 10, "boxes": boxes}, {"track_id": 1, "start_frame": 3, "boxes": boxes[:4]}]
    place = {"path": "video.mp4", "start": 0.5, "end": 0.7, "width": 96, "height": 80}  # frames 15 to 20
    run(
        path := manifest_of(
            tmp_path, [{**place, "pairs": [pair], "tracks": tracks}, {**place, "path": "video.mp4"}], DOES
        )
    )
    found = cached(path)
    (moved,) = found.pairs(0)
    assert (moved.frame, moved.predicates) == (2, ("hold",))
    assert (moved.person_box, moved.object_box) == ((0.0, 4.0, 48.0, 40.0), (6.25, 0.5, 6.5, 1.5))
    assert (found.pairs(1), found.tracks(1)) == ((), ())
    given = read_manifest(path).tracks(0)
    for old, new in zip(given, found.tracks(0), strict=True):
        assert torch.equal(new.boxes_at(torch.arange(6)), old.boxes_at(torch.arange(15, 21)) / 2)


@pytest.mark.process
def test_pairs_beyond_the_end_are_left_out_whether_made_before_or_not(tmp_path: Path, video: Path) -> None:
    box = [0.0, 8.0, 96.0, 80.0]
    pair = {"frame": 2, "person_id": 0, "object_id": 1, "object_class": "cup", "predicates": ["hold"]}
    pair |= {"person_box": box, "object_box": box}
    wrong = {"path": "video.mp4", "end": 0.8, "pairs": [pair, {**pair, "frame": 999}]}
    sound = [{"path": "video.mp4", "pairs": [{**pair, "frame": 39}]}, {"path": "video.mp4", "start": 0.5}]
    path = manifest_of(tmp_path, [sound[0], wrong, sound[1]], DOES)
    said = [("1", "shorter", "its pairs are of frame 999, it has frames 0 to 23")]
    for _ in range(2):
        report, _ = run(path)
        assert [(clip.clip_id, clip.fault, clip.text) for clip in report.bad] == said
        assert cached(path).clip_ids == ("0", "2")
    manifest_of(tmp_path, [sound[0], {**wrong, "pairs": [pair]}, sound[1]], DOES)
    assert (run(path)[0].bad, cached(path).clip_ids) == ((), ("0", "1", "2"))
    manifest_of(tmp_path, [sound[0], wrong, sound[1]], DOES)
    for _ in range(2):
        report, _ = run(path)
        assert [(clip.clip_id, clip.fault, clip.text) for clip in report.bad] == said
        assert cached(path).clip_ids == ("0", "2")
        assert [numbers(cached(path), row) for row in range(2)] == [list(range(40)), list(range(15, 40))]


def test_clips_of_one_file_may_differ_in_what_is_said_of_its_size(tmp_path: Path, video: Path) -> None:
    sized, wrong = {"width": 96, "height": 80}, {"width": 80, "height": 96}
    fields: list[dict[str, Any]] = [wrong, sized, {}, {"start": 0.5, **wrong}]
    path = manifest_of(tmp_path, [{"path": "video.mp4", **each} for each in fields])
    for made in (2, 0):
        report, _ = run(path)
        assert (report.made, [(clip.clip_id, clip.fault) for clip in report.bad]) == (
            made,
            [("0", "unreadable"), ("3", "unreadable")],
        )
        text = "its frames are of 96×80 pixels, rotated by 90 degrees, its boxes were annotated in 80×96"
        assert all(clip.text.startswith(text) for clip in report.bad)


def test_detections_beside_the_manifest_are_said_to_be_of_the_sources(tmp_path: Path, video: Path) -> None:
    path = manifest_of(tmp_path, [{"path": "video.mp4"}])
    assert "detections.parquet" not in run(path)[1]
    (tmp_path / "detections.parquet").touch()
    assert "note: detections.parquet is of the sources; make it anew for the clips made here" in run(path)[1]


def test_a_cache_can_be_made_of_a_cache(tmp_path: Path, video: Path) -> None:
    path = manifest_of(tmp_path, [{"path": "video.mp4", "start": 0.5}])
    run(path, FrameSettings(short_side=80, quality=95))
    again = make_cache(
        out_of(path) / "manifest.parquet", tmp_path / "again", SMALL, console=Console(file=io.StringIO())
    )
    assert again.bad == ()
    assert numbers(read_manifest(tmp_path / "again" / "manifest.parquet"), 0) == list(range(15, 40))


def test_wrong_options_are_refused(tmp_path: Path, video: Path) -> None:
    path = manifest_of(tmp_path, [{"path": "video.mp4"}])
    for options, text in (
        ({"short_side": 8}, "--short-side must be 16 to 8192, got 8"),
        ({"quality": 0}, "--quality must be 1 to 100, got 0"),
        ({"shard_clips": 0}, "--shard-clips must be 1 to 10000, got 0"),
    ):
        with pytest.raises(UserError, match=text):
            run(path, FrameSettings(**options))
    with pytest.raises(UserError, match="--workers must be 1 to 10000, got 0"):
        run(path, workers=0)
    with pytest.raises(UserError, match="--timeout must be seconds above 0, got nan"):
        run(path, timeout=float("nan"))
    with pytest.raises(UserError, match="is the folder of the manifest"):
        make_cache(path, tmp_path, SMALL)
    assert not out_of(path).exists()
    run(path)
    with pytest.raises(UserError, match=r"made with other settings \(quality 90, now 80\); give the same ones"):
        run(path, FrameSettings(short_side=40, quality=80, shard_clips=3))


@pytest.mark.parametrize("name", ["mine.csv", "manifest.parquet"])
def test_another_manifest_in_the_folder_is_found_before_the_work(tmp_path: Path, video: Path, name: str) -> None:
    path = manifest_of(tmp_path, [{"path": video.name}])
    others = out_of(path)
    row = {"clip_id": "other", "path": video.name, "split": "train", "noun": ["cup"]}
    write_manifest(others / name, [row], [Task("noun", ClassList(("cup",)), "multi")], tmp_path)
    before = {file.name: file.read_bytes() for file in others.iterdir()}
    text = "describes mine.csv" if name == "mine.csv" else "manifest.parquet: not made by this tool"
    for start in (make_cache, partial(make_cache, dry_run=True)):
        with pytest.raises(UserError, match=text):
            start(path, others, SMALL)
    assert {file.name: file.read_bytes() for file in others.iterdir()} == before


def test_the_command(tmp_path: Path, video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = manifest_of(tmp_path, [{"path": "text.mp4"}])
    (tmp_path / "text.mp4").write_text("no video")
    arguments = ["cache", str(path), "--out", str(out_of(path)), "--workers", "1"]
    assert main([*arguments, "--dry-run"]) == 0
    assert "would make 1 clips from 1 sources; 0 are made already" in capsys.readouterr().out
    assert not out_of(path).exists()
    assert main(arguments) == 1
    assert "no clip is left: no manifest" in capsys.readouterr().out
    assert main([*arguments, "--short-side", "64"]) == 2
    assert "made with other settings" in capsys.readouterr().err


@pytest.mark.process
def test_killed_runs_and_runs_at_once_lose_nothing(tmp_path: Path) -> None:
    rows = []
    for number in range(8):
        encode(tmp_path / f"{number}.mp4", 60 + number, width=320, height=240)
        rows.append({"path": f"{number}.mp4"})
    path = manifest_of(tmp_path, rows)
    options = ["--short-side", "40", "--quality", "90", "--shard-clips", "3", "--workers", "1"]
    command = [sys.executable, "-m", "data_tools.cli", "cache", str(path), "--out", str(out_of(path)), *options]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)

    def made() -> list[Path]:
        return [*out_of(path).glob("unpacked/*/*.json")]

    killed = start()
    while killed.poll() is None and len(made()) < 2:
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert made()
    other = start()
    report, _ = run(path)
    assert other.wait() == 0
    assert (report.made < 8, report.bad) == (True, ())
    assert [numbers(cached(path), row) for row in range(8)] == [list(range(60 + row)) for row in range(8)]
    assert not [*out_of(path).glob("unpacked/*/*")]
    fresh = make_cache(path, tmp_path / "fresh" / "out", SMALL, console=Console(file=io.StringIO()))
    final = json.loads((out_of(path) / "cache.json").read_text())
    assert final["shards"] == fresh.contents["shards"]
