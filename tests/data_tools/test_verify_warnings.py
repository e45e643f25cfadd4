"""What can be trained on and looks wrong is said, and what only looks unusual is not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from data_tools.encoding import write_mp4
from data_tools.verify.clip import check_clip
from data_tools.verify.records import Checked, Suspect
from data_tools.verify.report import VerifyReport
from data_tools.verify.set import notes, suspects
from hoi_train.core.records import ClassList, Task
from hoi_train.data.manifest import Manifest, read_manifest, write_manifest
from tests.videos import clip_of, cut, encode, numbered, write_image

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
TASK = Task("label", ClassList(("x", "y")), "single")


def check(path: Path, **fields: Any) -> Checked:
    return check_clip(clip_of(path, **fields), reader="auto")


def kinds(path: Path, **fields: Any) -> list[str]:
    checked = check(path, **fields)
    assert checked.fault is None, checked.text
    return [kind for kind, _ in checked.warnings]


def film(path: Path, frames: Iterable[np.ndarray]) -> Path:
    write_mp4(path, frames, fps=10)
    return path


def flat(level: int) -> np.ndarray:
    return np.full((48, 64, 3), level, dtype=np.uint8)


def luma(path: Path, low: int, high: int, color_range: int) -> Path:
    """Encode noise whose luma, as it is stored, goes from ``low`` to ``high``."""
    values = np.random.default_rng(low).choice([low, high], (6, 64, 64)).astype(np.uint8)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"threads": "1", "qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.color_range = color_range
        for image in values:
            frame = av.VideoFrame(64, 64, "yuv420p")
            for plane, data in zip(frame.planes, (image, flat(128)[:32, :32, 0], flat(128)[:32, :32, 0]), strict=True):
                padded = np.zeros((plane.height, plane.line_size), np.uint8)
                padded[:, : plane.width] = data
                plane.update(padded.tobytes())
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([np.roll(NOISE, k, 1) for k in range(20)], []),
        ([flat(0)] * 20, ["black"]),
        ([flat(0)] * 19 + [NOISE], ["black"]),
        ([flat(0)] * 9 + [np.roll(NOISE, k, 1) for k in range(11)], ["repeated"]),
        ([flat(10 * k) for k in range(20)], ["blank"]),
        ([NOISE] * 20, ["frozen"]),
        ([numbered(k // 2) for k in range(20)], ["repeated"]),
        ([np.roll(NOISE // 8, k, 1) for k in range(20)], []),  # very dark
        ([NOISE], []),
    ],
)
def test_pictures(tmp_path: Path, frames: list[np.ndarray], expected: list[str]) -> None:
    assert kinds(film(tmp_path / "a.mp4", frames)) == expected


def test_only_the_frames_of_the_clip_are_looked_at(tmp_path: Path) -> None:
    path = film(tmp_path / "a.mp4", [flat(0)] * 10 + [np.roll(NOISE, k, 1) for k in range(10)])
    assert kinds(path, end=1.0) == ["black"]
    assert kinds(path, start=1.0) == []


def test_frames_and_times(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", 24)
    assert check(path, num_frames=20).warnings == (("frames", "it has 24 frames, the manifest says 20"),)
    trim = cut(path, tmp_path / "trim.mp4", 14)
    assert check(trim).warnings == (("frames", "10 frames decode, its container declares 12"),)
    times = [512 * k + (30_000 if k >= 12 else 0) for k in range(24)]
    held = encode(tmp_path / "held.mp4", 24, times=times)
    assert check(held).warnings == (("times", "nothing is shown for 1.986 s after frame 11 (usually 0.033 s)"),)
    uneven = encode(tmp_path / "uneven.mp4", 24, times=[512 * k + 170 * (k % 3) for k in range(24)])
    assert kinds(uneven) == []


def test_repeated_and_backward_times(tmp_path: Path) -> None:
    source, target = encode(tmp_path / "a.mp4", 24, b_frames=0), tmp_path / "b.mkv"
    with av.open(str(source)) as given, av.open(str(target), "w") as output:
        copy = output.add_stream_from_template(given.streams.video[0])
        for number, packet in enumerate(p for p in given.demux(video=0) if p.size):
            packet.pts = packet.dts = 512 * (number if number % 8 else max(0, number - 1))
            packet.stream = copy
            output.mux(packet)
    assert check(target).warnings[0] == ("times", "2 of 24 frames have the time of another")


def test_colour_range(tmp_path: Path) -> None:
    assert kinds(luma(tmp_path / "a.mp4", 16, 235, 1)) == []
    assert kinds(luma(tmp_path / "b.mp4", 0, 255, 2)) == []
    assert check(tmp_path / "b.mp4").measures.colour_range == "full"  # type: ignore[union-attr]
    ((kind, text),) = check(luma(tmp_path / "c.mp4", 2, 250, 1)).warnings
    assert kind == "range"
    assert "below 12" in text
    assert "likely full range" in text
    ((kind, text),) = check(luma(tmp_path / "d.mp4", 16, 235, 2)).warnings
    assert text == "it says full range, its luma ends at 16 and 235 as limited range does"


def test_what_seeking_readers_may_read(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", 40)
    frames = tmp_path / "frames"
    frames.mkdir()
    write_image(frames / "0.jpg", numbered(0))
    found = {"a": path, "cut": cut(path, tmp_path / "cut.mp4", 16), "frames": frames}
    found["avi"] = encode(tmp_path / "a.avi", 20, codec="mpeg4")
    measures = {name: check(each, fps=5.0 if name == "frames" else None).measures for name, each in found.items()}
    assert {name: each and each.seekable for name, each in measures.items()} == {
        "a": True,
        "cut": False,
        "frames": False,
        "avi": False,
    }
    assert {name: each and (each.frames, each.fps) for name, each in measures.items()} == {
        "a": (40, 30.0),
        "cut": (24, 30.0),
        "frames": (1, 5.0),
        "avi": (20, 30.0),
    }


def set_of(folder: Path, rows: list[dict[str, Any]]) -> tuple[Manifest, dict[int, Any]]:
    filled = [{"clip_id": str(k), "split": "train", "label": "x", **row} for k, row in enumerate(rows)]
    manifest = read_manifest(write_manifest(folder / "m.jsonl", filled, [TASK], folder))
    clips = [manifest.clip(row) for row in range(len(manifest))]
    return manifest, {row: (clip, check_clip(clip, reader="auto").measures) for row, clip in enumerate(clips)}


def test_copies(tmp_path: Path) -> None:
    source = encode(tmp_path / "a.mp4", 30)
    (tmp_path / "same.mp4").write_bytes(source.read_bytes())
    with av.open(str(source)) as given, av.open(str(tmp_path / "muxed.mkv"), "w") as output:
        copy = output.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = copy
                output.mux(packet)
    film(tmp_path / "other.mp4", [np.roll(NOISE, k, 1) for k in range(10)])
    manifest, measured = set_of(
        tmp_path,
        [
            {"path": "a.mp4", "end": 0.5},
            {"path": "a.mp4", "start": 0.25},  # overlaps the one before: the manifest's own choice
            {"path": "a.mp4", "start": 0.8, "split": "val"},  # and this one overlaps it across splits
            {"path": "same.mp4", "end": 0.1},
            {"path": "same.mp4", "split": "test", "start": 0.5, "end": 0.6},
            {"path": "muxed.mkv", "split": "test"},
            {"path": "other.mp4"},
            {"path": "same.mp4", "split": "val"},
        ],
    )
    found = {each.clip_id: (each.warning, each.text) for each in suspects(manifest, measured)}
    bytes_, pictures = "it has the same bytes, at the same time, as clip", "it has the same pictures as clip"
    assert found == {
        "0": ("leak", f"{bytes_} '7' (val)"),
        "1": ("leak", f"{bytes_} '7' (val)"),
        "2": ("leak", f"{bytes_} '1' (train)"),
        "3": ("leak", f"{bytes_} '7' (val)"),
        "4": ("leak", f"{bytes_} '7' (val)"),
        "5": ("leak", f"{pictures} '7' (val)"),
        "7": ("leak", f"{bytes_} '3' (train)"),
    }
    manifest, measured = set_of(tmp_path, [{"path": "a.mp4"}, {"path": "same.mp4"}, {"path": "other.mp4"}])
    found = {each.clip_id: (each.warning, each.text) for each in suspects(manifest, measured)}
    assert found == {
        "0": ("duplicate", f"{bytes_} '1' (train)"),
        "1": ("duplicate", f"{bytes_} '0' (train)"),
    }


def test_odd_lengths_and_mixed_ranges(tmp_path: Path) -> None:
    encode(tmp_path / "a.mp4", 300, width=32, height=32, options={"preset": "ultrafast"})
    luma(tmp_path / "full.mp4", 0, 255, 2)
    luma(tmp_path / "limited.mp4", 16, 235, 1)
    starts = np.linspace(0, 7, 12)
    rows = [{"path": "a.mp4", "start": float(at), "end": float(at) + 1 + 0.1 * k} for k, at in enumerate(starts)]
    rows += [{"path": "a.mp4", "end": 0.05}, {"path": "a.mp4"}]
    rows += [{"path": "full.mp4", "label": "y"}, {"path": "limited.mp4", "label": "y"}]
    manifest, measured = set_of(tmp_path, rows)
    found = {each.clip_id: (each.warning, each.text) for each in suspects(manifest, measured)}
    assert found == {
        "12": ("length", "0.066667 s long, the median of label 'x' is 1.55 s"),
        "13": ("length", "10 s long, the median of label 'x' is 1.55 s"),
    }
    ranges, fit = notes(measured)
    assert ranges.startswith("colour range: 15 unspecified, 1 full; the set mixes")
    assert fit == "fit for seeking readers: 16 of 16 video clips"


def test_leaks_are_said_before_all_else() -> None:
    found = [Suspect("a", "a.mp4", "train", "black", "8 of 8 frames are black")]
    found += [Suspect(name, f"{name}.mp4", split, "leak", "…") for name, split in (("b", "test"), ("c", "train"))]
    report = VerifyReport("m.csv", "auto", 60.0, 9, 0, (), tuple(found), ())
    first, leak, others = report.summary()
    assert first == "m.csv: 9 clips, 0 bad"
    assert leak.startswith("LEAK BETWEEN SPLITS: 2 clips (1 of train, 1 of test) show what a clip of another split")
    assert others == "3 warnings (2 leak, 1 black)"
