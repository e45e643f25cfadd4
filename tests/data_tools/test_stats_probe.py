"""What headers of real files say, and of files that have none."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from data_tools.derive.cache import FrameSettings, make_cache
from data_tools.stats.clips import clip_facts
from data_tools.stats.probe import Header, probe_files, read_header
from hoi_train.core.records import ClassList, Task
from hoi_train.data.manifest import read_manifest, write_manifest
from tests.videos import encode


def test_a_video_a_frame_folder_and_what_is_neither(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", 15)
    (tmp_path / "frames").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "frames" / "0.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    header = read_header(str(tmp_path / "a.mp4"))
    assert isinstance(header, Header)
    assert (header.width, header.height, header.codec) == (96, 80, "h264")
    assert (header.fps, header.seconds) == pytest.approx((30, 0.5), rel=0.02)
    frames = read_header(str(tmp_path / "frames"))
    assert isinstance(frames, Header)
    assert (frames.width, frames.height, frames.codec) == (40, 30, "mjpeg frames")
    assert read_header(str(tmp_path / "none.mp4")) == "no such file"
    assert read_header(str(tmp_path / "empty")) == "a folder without frame images"
    assert "InvalidDataError" in str(read_header(str(tmp_path / "bad.mp4")))
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{tmp_path / 'a.mp4'}'\n")
    assert isinstance(read_header(str(tmp_path / "list.mp4")), str), "no file is opened that another one names"
    rows = [
        {"clip_id": str(k), "path": path, "split": "train", "verb": "put"}
        for k, path in enumerate(("a.mp4", "a.mp4", "bad.mp4", "frames"))
    ]
    task = Task("verb", ClassList(("put",)), "single")
    manifest = read_manifest(write_manifest(tmp_path / "m.jsonl", rows, [task], tmp_path))
    facts = probe_files(manifest, 2, Console(file=io.StringIO()))
    assert (facts.files, list(facts.unreadable)) == (2, ["bad.mp4"])
    assert facts.sizes == {"96×80": 1, "40×30": 1}
    assert facts.fps == {"30": 1}
    assert facts.short_side == {"min": 30, "median": 55, "mean": 55, "max": 80}
    assert sum(facts.codecs.values()) == 2


def test_a_frame_cache(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", 15)
    task = Task("verb", ClassList(("put",)), "single")
    rows = [
        {"clip_id": f"{k}", "path": "a.mp4", "start": k / 10, "split": split, "verb": "put"}
        for k, split in enumerate(("train", "val", "train"))
    ]
    path = write_manifest(tmp_path / "m.jsonl", rows, [task], tmp_path)
    out = Console(file=io.StringIO())
    make_cache(path, tmp_path / "cache", FrameSettings(short_side=40), console=out)
    manifest = read_manifest(tmp_path / "cache" / "manifest.parquet")
    facts = clip_facts(manifest)
    assert [(of.files, of.missing) for of in facts.values()] == [(2, 0), (1, 0)]
    in_all = sum(of.total_bytes for of in facts.values())
    shard = tmp_path / "cache" / "shards" / "00000.zip"
    assert 0.9 * shard.stat().st_size < in_all < shard.stat().st_size
    probed = probe_files(manifest, 1, out)
    assert (probed.files, probed.unreadable) == (3, {})
    assert (probed.sizes, probed.codecs) == ({"48×40": 3}, {"jpeg frames in shards": 3})
    assert (probed.fps, probed.seconds) == ({}, None)

    manifest.clip(0).path.parent.write_bytes(shard.read_bytes()[:-30])
    assert [of.missing for of in clip_facts(manifest).values()] == [2, 1]
    assert len(probe_files(manifest, 1, out).unreadable) == 3


def test_real_awkward_files(test_data: Path) -> None:
    """The broken ones have sound headers: that they do not decode is for ``hoi-data verify`` to find."""
    files = [
        file
        for file in sorted((test_data / "decode_samples").rglob("*"))
        if file.suffix in (".mp4", ".avi", ".webm", ".mkv")
    ]
    found = [read_header(str(file)) for file in files]
    assert found
    assert all(isinstance(header, Header) or header for header in found)
    assert any(isinstance(header, Header) and header.width > 0 for header in found)
