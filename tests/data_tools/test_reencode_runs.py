"""Re-encoding goes on after kills and faults, stays in its folder, and says what it left out."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from data_tools.cli import main
from data_tools.derive.reencode import ReencodeSettings, reencode
from data_tools.faults import lines_of
from hoi_train.core.records import ClassList, Task, UserError
from hoi_train.data.manifest import ManifestError, read_manifest, write_manifest
from tests.conftest import ROOT
from tests.reencoding import SMALL, digests, in_this_process, manifest_of, numbers_of, run
from tests.videos import encode, numbered, write_image


def test_bad_clips_are_listed_and_left_out(tmp_path: Path) -> None:
    encode(tmp_path / "v.mp4", 30)
    (tmp_path / "text.mp4").write_text("no video\n" * 50)
    whole = encode(tmp_path / "w.mp4", 60, container_options={"movflags": "faststart"})
    (tmp_path / "half.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    encode(tmp_path / "thin.mp4", 1, width=16, height=8400, codec="mjpeg", pixels="yuvj420p", b_frames=0)
    os.mkfifo(tmp_path / "pipe.mp4")
    rows: list[dict[str, Any]] = [
        {"path": "v.mp4"},
        {"path": "gone.mp4"},
        {"path": "text.mp4"},
        {"path": "pipe.mp4"},
        {"path": "v.mp4", "start": 5.0},
        {"path": "v.mp4", "num_frames": 31},
        {"path": "v.mp4", "end": 3.0},
        {"path": "half.mp4", "end": 0.3},
        {"path": "half.mp4"},
        {"path": "thin.mp4"},
        {"path": "n" * 300},
        {"path": "v.mp4", "width": 80, "height": 96},
    ]
    report, made = run(manifest_of(tmp_path, rows))
    assert {clip.clip_id: clip.fault for clip in report.bad} == {
        "1": "missing",
        "2": "unreadable",
        "3": "unreadable",
        "4": "empty",
        "5": "shorter",
        "6": "shorter",
        "8": "unreadable",
        "9": "unreadable",
        "10": "unreadable",
        "11": "unreadable",
    }
    assert "its frames are of 96×80 pixels, rotated by 90 degrees" in report.bad[-1].text
    assert made.clip_ids == ("0", "7"), "what was whole before the damage is kept"
    written = json.loads((tmp_path / "out" / "reencode.json").read_text())
    assert [clip["clip_id"] for clip in written["bad"]] == [clip.clip_id for clip in report.bad]
    assert (written["made"], written["made_before"], written["clips"]) == (2, 0, 12)
    assert written["bytes"] == sum(file.stat().st_size for file in (tmp_path / "out").glob("clips/*/*.mp4"))
    summary = lines_of(report.manifest, report.clips, report.made, report.bad)
    assert summary[0].endswith("12 clips: 2 made, 0 made before, 10 bad (6 unreadable, 2 shorter, 1 missing, 1 empty)")


def test_only_what_changed_is_made_again(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        encode(tmp_path / f"{name}.mp4", 10)
    rows: list[dict[str, Any]] = [{"path": f"{name}.mp4"} for name in "abc"]
    path, out = manifest_of(tmp_path, rows), tmp_path / "out"
    assert run(path)[0].made == 3
    before = digests(out)
    shown = io.StringIO()
    assert reencode(path, out, SMALL, dry_run=True, console=Console(file=shown, width=300)) is None
    assert "3 are made already" in shown.getvalue()
    assert run(path)[0].made == 0
    os.utime(tmp_path / "a.mp4", (1, 1))
    assert run(path)[0].made == 1
    encode(tmp_path / "b.mp4", 12)
    report, made = run(path)
    assert (report.made, made.clip(1).num_frames) == (1, 12)
    assert len(digests(out).items() & before.items()) == 2
    path = manifest_of(tmp_path, [*rows[:2], {"path": "c.mp4", "start": 0.2, "label": "y"}])
    report, made = run(path)
    assert (report.made, made.clip(2).num_frames, made.clip(2).labels) == (1, 4, {"label": 1})
    file = made.clip(0).path
    file.write_bytes(file.read_bytes()[:-1])
    assert run(path)[0].made == 1
    with pytest.raises(UserError, match=r"made with other settings \(crf 21, now 30\)"):
        run(path, ReencodeSettings(short_side=80, crf=30))
    assert subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=out).returncode == 0


@pytest.mark.parametrize("name", ["mine.csv", "manifest.parquet"])
def test_another_manifest_in_the_folder_is_found_before_the_work(tmp_path: Path, name: str) -> None:
    encode(tmp_path / "a.mp4", 4)
    path, others = manifest_of(tmp_path, [{"path": "a.mp4", "label": "x"}]), tmp_path / "others"
    row = {"clip_id": "other", "path": "a.mp4", "split": "train", "noun": ["cup"]}
    write_manifest(others / name, [row], [Task("noun", ClassList(("cup",)), "multi")], tmp_path)
    before = digests(others)
    text = "describes mine.csv" if name == "mine.csv" else "manifest.parquet: not made by this tool"
    for start in (reencode, partial(reencode, dry_run=True)):
        with pytest.raises(UserError, match=text):
            start(path, others, SMALL)
    assert digests(others) == before


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    encode(tmp_path / "small.mp4", 2)
    path = manifest_of(tmp_path, [{"path": "small.mp4"}])
    run(path)
    before = digests(tmp_path / "out")
    encode(tmp_path / "large.mp4", 200)
    path = manifest_of(tmp_path, [{"path": "small.mp4"}, {"path": "large.mp4"}])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(UserError, match="File too large; nothing that is finished is lost"):
            run(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert digests(tmp_path / "out") == before
    assert not list((tmp_path / "out" / "clips" / "unfinished").iterdir())
    assert run(path)[0].made == 1


def test_500_hostile_ids_stay_in_the_folder(tmp_path: Path) -> None:
    from tests.data_tools.test_jobs import hostile_names

    encode(tmp_path / "v.mp4", 1, width=16, height=16)
    ids = [name for name in hostile_names() if name.isprintable() and name]
    ids += [f"../../{number}" for number in range(500 - len(ids))]
    report, made = run(manifest_of(tmp_path, [{"path": "v.mp4", "clip_id": name} for name in ids]))
    assert (len(ids), report.made, made.clip_ids) == (500, 500, tuple(ids))
    files = {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert len(files) == 2 * 500 + 5
    assert {path.name for path in tmp_path.iterdir()} == {"v.mp4", "m.jsonl", "dataset.json", "out"}
    for name in ("a\nb", "a\x00b", "\x7f"):
        with pytest.raises(ManifestError, match="control characters"):
            manifest_of(tmp_path, [{"path": "v.mp4", "clip_id": name}])
    for name in ("../v.mp4", "/etc/passwd", "a/../../v.mp4"):
        with pytest.raises(ManifestError, match="leaves the data root"):
            manifest_of(tmp_path, [{"path": name}])


def test_playlists_and_scripts_open_nothing(tmp_path: Path) -> None:
    inside, outside = tmp_path / "data", encode(tmp_path / "secret.mp4", 10)
    inside.mkdir()
    segment = encode(tmp_path / "secret.ts", 10)
    texts = {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{segment}\n#EXT-X-ENDLIST\n",
        "hls.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:{segment}\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile '{outside}'\n",
        "concat.txt": f"ffconcat version 1.0\nfile ../{outside.name}\n",
        "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
        "dash.mpd": f'<?xml version="1.0"?><MPD><Period><BaseURL>{outside}</BaseURL></Period></MPD>',
        "smil.mp4": f'<smil><body><video src="{outside}"/></body></smil>',
    }
    for name, text in texts.items():
        (inside / name).write_text(text)
    encode(inside / "sound.mp4", 3)
    names = [*texts, f"concat:{outside}", f"subfile,,start,0,end,0,,:{outside}", "http://127.0.0.1:9/x.mp4", "pipe:0"]
    report, made = run(manifest_of(inside, [{"path": name} for name in [*names, "sound.mp4"]]))
    assert len(report.bad) == len(names)
    assert len(made) == 1


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    encode(tmp_path / "v.mp4", 3)
    path = manifest_of(tmp_path, [{"path": "v.mp4"}])
    for settings, text in (
        (ReencodeSettings(short_side=0), "--short-side must be 2 to 8192, got 0"),
        (ReencodeSettings(short_side=255), "--short-side must be even, got 255"),
        (ReencodeSettings(fps="0"), "--fps must be above 0 and at most 1000, got 0"),
        (ReencodeSettings(fps="-1/2"), "--fps must be above 0 and at most 1000, got -1/2"),
        (ReencodeSettings(gop=0), "--gop must be 1 to 1000, got 0"),
        (ReencodeSettings(crf=52), "--crf must be 0 to 51, got 52"),
    ):
        with pytest.raises(UserError, match=text):
            run(path, settings)
    with pytest.raises(UserError, match="--workers must be 1 to 10000, got 0"):
        run(path, workers=0)
    with pytest.raises(UserError, match="--timeout must be seconds above 0, got nan"):
        run(path, timeout=float("nan"))
    with pytest.raises(UserError, match="is the folder of the manifest, which would be overwritten"):
        run(path, out=tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"v.mp4", "m.jsonl", "dataset.json"}


@in_this_process()
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encode(tmp_path / "v.mp4", 30)
    path, out = manifest_of(tmp_path, [{"path": "v.mp4"}, {"path": "gone.mp4"}]), tmp_path / "out"
    (tmp_path / "detections.parquet").touch()
    arguments = ["reencode", str(path), "--out", str(out), "--workers", "1"]
    assert main([*arguments, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "would make 1 clips from 1 sources, about 0 MiB; 0 are made already; 1 have no file" in text
    assert not out.exists()
    assert main(arguments) == 1
    shown = capsys.readouterr().out
    assert "missing: clip '1': no such file" in shown
    assert "manifest.parquet: 1 clips" in shown
    assert "note: detections.parquet is of the sources; make it anew for the clips made here" in shown
    assert main([*arguments, "--crf", "30"]) == 2
    assert "give the same ones, or another --out" in capsys.readouterr().err
    (tmp_path / "v.mp4").unlink()
    before = (out / "manifest.parquet").read_bytes()
    assert main(arguments) == 1
    assert "no clip is left: no manifest" in capsys.readouterr().out
    assert (out / "manifest.parquet").read_bytes() == before, "a set whose disk is away is not emptied"
    for fps in ("x", "1/0", "nan"):
        assert main([*arguments, "--fps", fps]) == 2
        assert f"--fps: must be a number or a fraction such as 30000/1001, got '{fps}'" in capsys.readouterr().err


def hanging(folder: Path) -> list[dict[str, Any]]:
    """Return a clip that is finished before its source hangs, and one that needs what never comes."""
    (folder / "hangs").mkdir()
    for number in range(3):
        write_image(folder / "hangs" / f"{number}.png", numbered(number))
    os.mkfifo(folder / "hangs" / "3.png")
    hangs = {"path": "hangs", "fps": 10.0, "split": "train", "label": "x"}
    return [{"clip_id": "before", "end": 0.3, **hangs}, {"clip_id": "hangs", **hangs}]


@pytest.mark.process
def test_a_decoder_that_hangs_is_killed(tmp_path: Path) -> None:
    encode(tmp_path / "v.mp4", 3)
    report, made = run(manifest_of(tmp_path, [*hanging(tmp_path), {"path": "v.mp4"}]), timeout=6.0, processes=True)
    assert [(clip.clip_id, clip.fault) for clip in report.bad] == [("hangs", "timeout")]
    assert report.made == 2
    assert numbers_of(made) == [0, 1, 2]
    assert not list((tmp_path / "out" / "clips" / "unfinished").iterdir())


def many(folder: Path, count: int) -> Path:
    encode(folder / "v.mp4", 60, width=160, height=120, options={"preset": "ultrafast"})
    for number in range(1, count // 2):
        os.link(folder / "v.mp4", folder / f"v{number}.mp4")
    names = ["v.mp4", *(f"v{number}.mp4" for number in range(1, count // 2))]
    rows = [{"path": name, "start": start} for name in names for start in (0.0, 1.0)]
    return manifest_of(folder, rows)


def start(path: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "data_tools.cli", "reencode", str(path), "--out", str(out), "--workers", "1"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def wait_for(out: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(out.glob("clips/*/*.json"))) < count and time.monotonic() < deadline:
        time.sleep(0.01)


@pytest.mark.process
def test_a_kill_and_two_runs_at_once_lose_nothing(tmp_path: Path) -> None:
    path, out = many(tmp_path, 16), tmp_path / "out"
    first = start(path, out)
    wait_for(out, 3)
    first.kill()
    first.wait()
    assert 3 <= len(digests(out)) < 16
    assert not (out / "manifest.parquet").exists()
    both = [start(path, out), start(path, out)]
    assert [process.wait() for process in both] == [0, 0]
    _, expected = run(path, ReencodeSettings(), tmp_path / "expected")
    assert digests(out) == digests(tmp_path / "expected")
    assert read_manifest(out / "manifest.parquet").table == expected.table
    assert not list((out / "clips" / "unfinished").iterdir())


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_30_kills(tmp_path: Path) -> None:
    path, draw = many(tmp_path, 40), np.random.default_rng(0)
    _, expected = run(path, ReencodeSettings(), tmp_path / "expected")
    wanted = digests(tmp_path / "expected")
    for number in range(10):
        out = tmp_path / f"out{number}"
        for _ in range(3):
            process = start(path, out)
            wait_for(out, int(draw.integers(0, 41)))
            time.sleep(draw.uniform(0, 0.2))
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert start(path, out).wait() == 0
        assert digests(out) == wanted
        assert read_manifest(out / "manifest.parquet").table == expected.table


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'hoi_train[ray]'")
@pytest.mark.filterwarnings("default")  # those of Ray are its own
def test_two_workers_of_a_ray_cluster_make_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    path = many(tmp_path, 8)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path = manifest_of(tmp_path, [*rows, *hanging(tmp_path), {"clip_id": "gone", "path": "gone.mp4"}])
    report, made = run(path, engine="ray", workers=2, timeout=8.0, processes=True)
    assert [(clip.clip_id, clip.fault) for clip in report.bad] == [("hangs", "timeout"), ("gone", "missing")]
    assert report.made == 9
    assert all(numbers_of(made, row) == list(range(30 * (row % 2), 60)) for row in range(8))


def test_ray_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    encode(tmp_path / "v.mp4", 3)
    with pytest.raises(UserError, match=r"Ray is not installed; install hoi_train\[ray\], or use --engine local"):
        run(manifest_of(tmp_path, [{"path": "v.mp4"}]), engine="ray", processes=True)
