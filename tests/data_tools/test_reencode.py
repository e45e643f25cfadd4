"""Re-encoded clips show the frames asked for, carry their labels exactly, and survive kills and hostile names."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from data_tools.derive.mapping import ClipMapping, InexactError
from data_tools.derive.rates import frames_at, rate_of
from data_tools.derive.reencode import ReencodeSettings, even_size
from hoi_train.core.records import ClassList, Task
from hoi_train.data.manifest import Manifest, read_manifest, write_manifest
from hoi_train.data.readers import open_clip
from hoi_train.data.readers.pyav_reader import PyAVReader
from tests.pairs import COLOURS, FRAMES, KEY_FRAMES, OBJECTS, PREDICATE, make_pair_data
from tests.reencoding import frames_of, manifest_of, numbers_of, run
from tests.videos import cut, encode, number_of, numbered, sequential, turn, write_image

AWKWARD: dict[str, tuple[Callable[[Path], Path], list[int]]] = {
    "b_frames": (lambda d: encode(d / "v.mp4", 40), list(range(40))),
    "one_frame": (lambda d: encode(d / "v.mp4", 1), [0]),
    "transport_stream": (lambda d: encode(d / "v.ts", 40), list(range(40))),
    "matroska_at_milliseconds": (lambda d: encode(d / "v.mkv", 40), list(range(40))),
    "vp9": (lambda d: encode(d / "v.webm", 20, codec="libvpx-vp9"), list(range(20))),
    "avi": (lambda d: encode(d / "v.avi", 20, codec="mpeg4", b_frames=0), list(range(20))),
    "cut_without_encoding": (lambda d: cut(encode(d / "s.mp4", 60), d / "v.mp4", 18), list(range(18, 60))),
    "fragmented": (
        lambda d: encode(d / "v.mp4", 30, container_options={"movflags": "frag_keyframe+empty_moov"}),
        list(range(30)),
    ),
    "jitter": (
        lambda d: encode(d / "v.mp4", 31, b_frames=0, times=[512 * k + 97 * (-1) ** k + 97 for k in range(31)]),
        list(range(31)),
    ),
    # 30 a second; frame 4 stays three times as long, 9 comes right after 8 and has no place
    "variable_rate": (
        lambda d: encode(
            d / "v.mp4", 12, b_frames=0, times=[512 * k for k in (0, 1, 2, 3, 4, 7, 8, 9)] + [5120, 5220, 5632, 6144]
        ),
        [0, 1, 2, 3, 4, 4, 4, 5, 6, 7, 8, 10, 11],
    ),
}


@pytest.mark.parametrize("kind", AWKWARD)
def test_the_frames_are_those_of_the_source(tmp_path: Path, kind: str) -> None:
    make, expected = AWKWARD[kind]
    path = make(tmp_path)
    report, made = run(manifest_of(tmp_path, [{"path": path.name}]))
    assert not report.bad
    clip = made.clip(0)
    assert (clip.num_frames, clip.start, clip.end) == (len(expected), None, None)
    assert clip.size == (96, 80)
    assert numbers_of(made) == expected
    assert clip.fps == pytest.approx(30, abs=0.02)
    for reader in ("pyav", "decord"):  # which refuses files in which it cannot seek
        assert [number_of(image) for image in frames_of(made, 0, reader)] == expected


def test_every_player_plays_it(tmp_path: Path) -> None:
    encode(tmp_path / "v.mov", 24, width=202, height=110, pixels="yuv444p")
    with av.open(str(tmp_path / "v.mov")) as given, av.open(str(tmp_path / "sound.mov"), "w") as both:
        video = both.add_stream_from_template(given.streams.video[0])
        sound = both.add_stream("aac", rate=48000)
        for packet in given.demux(video=0):
            packet.stream = video
            both.mux(packet) if packet.size else None
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        silence.sample_rate = 48000
        both.mux([*sound.encode(silence), *sound.encode()])
    _, made = run(manifest_of(tmp_path, [{"path": "sound.mov"}]), ReencodeSettings(short_side=64))
    file = made.clip(0).path
    data = file.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "the index comes first"
    with av.open(str(file)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height, stream.average_rate) == (118, 64, 30)
        assert all(packet.is_keyframe for packet in container.demux(stream) if packet.size)
    smaller = ReencodeSettings(short_side=64, gop=12, crf=30)
    _, long = run(manifest_of(tmp_path, [{"path": "sound.mov"}]), smaller, tmp_path / "long")
    assert long.clip(0).path.stat().st_size < file.stat().st_size / 2
    assert numbers_of(long) == list(range(24))


def test_pixels_are_close_and_upright(tmp_path: Path) -> None:
    source = encode(tmp_path / "v.mp4", 5, width=96, height=80)
    turned = turn(source, tmp_path / "turned.mp4", (0, 1, -1, 0))
    best = ReencodeSettings(crf=1)
    _, made = run(manifest_of(tmp_path, [{"path": source.name}, {"path": turned.name}]), best)
    for row, turns in ((0, 0), (1, 3)):
        for image, given in zip(frames_of(made, row), sequential(source), strict=True):
            expected = np.rot90(given, turns)
            assert image.shape == expected.shape, "never enlarged"
            assert np.abs(image.astype(float) - expected).mean() < 3


def test_a_real_rotated_clip(tmp_path: Path, test_data: Path) -> None:
    samples = test_data / "decode_samples"
    rows = [{"path": name} for name in ("decord_rotated_90.mov", "decord_corrupted.mp4", "mmaction2_test.avi")]
    path = write_manifest(
        tmp_path / "m.jsonl",
        [{"clip_id": row["path"], "split": "train", "label": "x", **row} for row in rows],
        [Task("label", ClassList(("x",)), "single")],
        samples,
    )
    report, made = run(path)
    assert [(clip.clip_id, clip.fault) for clip in report.bad] == [("decord_corrupted.mp4", "unreadable")]
    assert frames_of(made, 0)[0].shape == (142, 80, 3)
    with open_clip(read_manifest(path).clip(2)) as source:
        assert len(frames_of(made, 1)) == len(source.timestamps)


def test_clips_of_one_source_are_trimmed_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(tmp_path / "long.mp4", 90)
    shown: list[int] = []
    decode = PyAVReader._decode
    monkeypatch.setattr(PyAVReader, "_decode", lambda self, wanted: shown.extend(wanted) or decode(self, wanted))
    times = [(0.5, 1.0), (None, 0.7), (0.6, 2.0), (2.5, None), (0.5, 1.0)]
    rows = [{"path": "long.mp4", "start": start, "end": end} for start, end in times]
    report, made = run(manifest_of(tmp_path, rows))
    assert (report.made, report.bad) == (5, ())
    expected = [range(15, 30), range(21), range(18, 60), range(75, 90), range(15, 30)]
    assert [numbers_of(made, row) for row in range(5)] == [list(span) for span in expected]
    assert sorted(shown[:-90])[:1] == [0]
    assert [n for n in shown if n not in (0,)][: 59 + 15] == [*range(1, 60), *range(75, 90)], "each frame once"
    assert {made.clip(row).group for row in range(5)} == {"long.mp4"}, "they stay together"


def test_frame_folders_and_their_rate(tmp_path: Path) -> None:
    for folder in ("rated", "unrated"):
        (tmp_path / folder).mkdir()
        for number in range(12):
            write_image(tmp_path / folder / f"{number:06}.png", numbered(number))
    rows = [{"path": "rated", "fps": 12.0, "start": 0.25}, {"path": "unrated"}]
    report, made = run(manifest_of(tmp_path, rows))
    assert [(clip.clip_id, clip.text) for clip in report.bad] == [
        ("1", "a frame folder without a rate; fill the column fps")
    ]
    assert numbers_of(made) == list(range(3, 12))
    assert made.clip(0).fps == 12


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        ("10", list(range(0, 30, 3))),
        ("60", [n // 2 for n in range(60)]),
        ("30", list(range(30))),
        ("45/2", [0, 1, 3, 4, 5, 7, 8, 9, 11, 12, 13, 15, 16, 17, 19, 20, 21, 23, 24, 25, 27, 28, 29]),
    ],
)
def test_another_frame_rate(tmp_path: Path, fps: str, expected: list[int]) -> None:
    encode(tmp_path / "v.mp4", 30)
    _, made = run(manifest_of(tmp_path, [{"path": "v.mp4"}]), ReencodeSettings(short_side=80, fps=fps))
    assert numbers_of(made) == expected
    assert made.clip(0).fps == float(Fraction(fps))


@pytest.mark.parametrize(
    ("seconds", "rate"),
    [
        (np.arange(10) / 24, "24"),
        (np.arange(300) * 1001 / 30000, "30000/1001"),
        (np.round(np.arange(300) * 1001 / 30000, 3), "30000/1001"),
        (np.round(np.arange(8) / 30, 3), "30"),
        (np.arange(9) / 12.5, "25/2"),
        (np.array([0.0]), "30"),
        (np.array([0, 1, 2, 3, 10]) / 25, "25"),
        (np.array([0.0, 1e-6]), "1000"),
        (np.array([0.0, 1e9]), "1/1000"),
    ],
)
def test_rates(seconds: np.ndarray, rate: str) -> None:
    assert rate_of(seconds) == Fraction(rate)


def test_times_that_are_wrong_by_years_do_not_fill_the_disk() -> None:
    with pytest.raises(ValueError, match=r"\d+ frames at 30 per second; at most 2000000; trim it, or give --fps"):
        frames_at(np.array([0.0, 1e8]), range(2), None, Fraction(30))
    assert frames_at(np.array([0.0, 1e8]), range(1), 0.1, Fraction(30)) is None


@pytest.mark.parametrize(
    ("size", "short", "expected"),
    [
        ((640, 480), 256, (342, 256)),
        ((480, 640), 256, (256, 342)),
        ((101, 77), 256, (100, 76)),
        ((2, 2), 256, (2, 2)),
        ((3840, 2160), 100, (178, 100)),
        ((5, 4001), 4, (4, 3200)),
    ],
)
def test_sizes(size: tuple[int, int], short: int, expected: tuple[int, int]) -> None:
    assert even_size(size, short) == expected


def pairs_of(folder: Path) -> Path:
    folder.mkdir()
    return make_pair_data(folder)


def check_colours(made: Manifest, row: int) -> None:
    """Check that what lies in the boxes has the colour of what they say."""
    images = frames_of(made, row)
    names = {0: "person", **{pair.object_id: pair.object_class for pair in made.pairs(row)}}
    for track in made.tracks(row)[: len(names)]:
        colour = COLOURS[names[track.track_id]]
        for number, box in enumerate(track.boxes.tolist(), start=track.start_frame):
            x0, y0, x1, y1 = (round(value) for value in box)
            assert np.abs(images[number][y0 + 1 : y1 - 1, x0 + 1 : x1 - 1].mean((0, 1)) - colour).max() < 60
            outside = images[number].astype(int)
            outside[y0 - 1 : y1 + 1, x0 - 1 : x1 + 1] = 0
            assert (np.abs(outside - colour).max(-1) < 40).sum() == 0, "all of it is in the box"


def test_pairs_and_tracks_go_along(tmp_path: Path) -> None:
    path = pairs_of(tmp_path / "given")
    given = read_manifest(path)
    _, made = run(path, ReencodeSettings(short_side=24, crf=2))
    assert made.object_classes == OBJECTS
    assert made.table.column("split").to_pylist() == given.table.column("split").to_pylist()
    for row in range(len(given)):
        before, after = given.pairs(row), made.pairs(row)
        assert [pair.frame for pair in after] == [pair.frame for pair in before]
        assert [pair.predicates for pair in after] == [pair.predicates for pair in before]
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(np.array(one.person_box) / 2, other.person_box)
            np.testing.assert_array_equal(np.array(one.object_box) / 2, other.object_box)
        check_colours(made, row)
    assert made.clip_ids == given.clip_ids


def trimmed(path: Path, folder: Path, **times: float) -> Path:
    """Give all rows of the set of pairs a start or end; pairs are counted from there."""
    rows = read_manifest(path).table.to_pylist()
    first = round(times.get("start", 0) * 8)
    for row in rows:
        row.update(times)
        for pair in row["pairs"] or []:
            pair["frame"] -= first
    return write_manifest(folder / "trimmed.parquet", rows, [PREDICATE], path.parent, OBJECTS)


def test_pairs_and_tracks_follow_the_trim_and_the_rate(tmp_path: Path) -> None:
    path = pairs_of(tmp_path / "given")
    cut_path = trimmed(path, tmp_path / "cut", start=0.125, end=0.75)
    _, made = run(cut_path, ReencodeSettings(fps="16"))
    row = made.clip_ids.index("train_1")
    assert [pair.frame for pair in made.pairs(row)[:2]] == [2 * (frame - 1) for frame in KEY_FRAMES]
    assert [(track.start_frame, len(track.boxes)) for track in made.tracks(row)[:1]] == [(0, 10)]
    for each in range(len(made)):
        check_colours(made, each)


def test_labels_of_a_frame_that_would_be_left_out_are_refused(tmp_path: Path) -> None:
    path = pairs_of(tmp_path / "given")
    text = (
        r"clip '\w+': .*\.mp4: labels are of frame \d, which is left out at 3 frames per second; "
        "give a higher --fps, one at which every labelled frame stays"
    )
    with pytest.raises(InexactError, match=text):
        run(path, ReencodeSettings(fps="3"))
    assert not (path.parent / "out" / "manifest.parquet").exists()
    _, made = run(pairs_of(tmp_path / "more"), ReencodeSettings(fps="8"))
    assert len(made.tracks(1)[0].boxes) == FRAMES


def test_pairs_of_frames_that_are_not_there_make_a_bad_clip(tmp_path: Path) -> None:
    report, made = run(trimmed(pairs_of(tmp_path / "given"), tmp_path / "cut", end=0.5))
    assert {(clip.fault, clip.text) for clip in report.bad} == {
        ("shorter", "its pairs are of frame 5, it has frames 0 to 3")
    }
    assert len(made) + len(report.bad) == 18
    assert len(made) == 3, "those without pairs"


def test_pairs_that_changed_since_their_clip_was_made_make_it_bad_too(tmp_path: Path) -> None:
    path = pairs_of(tmp_path / "given")
    run(path)
    rows = read_manifest(path).table.to_pylist()
    rows[1]["pairs"][0]["frame"] = 999
    write_manifest(path, rows, [PREDICATE], path.parent, OBJECTS)
    report, made = run(path)
    said = ("train_1", "shorter", f"its pairs are of frame 999, it has frames 0 to {FRAMES - 1}")
    assert [(clip.clip_id, clip.fault, clip.text) for clip in report.bad] == [said]
    assert (report.made, len(made)) == (0, 17)


def test_a_made_clip_whose_labels_cannot_be_kept_is_named(tmp_path: Path) -> None:
    path = trimmed(pairs_of(tmp_path / "given"), tmp_path / "cut")
    rows = read_manifest(path).table.to_pylist()
    for row in rows:
        for pair in row["pairs"]:
            pair["frame"] = pair["frame"] // 4 * 4
    write_manifest(path, rows, [PREDICATE], tmp_path / "given", OBJECTS)
    run(path, ReencodeSettings(fps="2"))
    rows[1]["pairs"][0]["frame"] = 5
    write_manifest(path, rows, [PREDICATE], tmp_path / "given", OBJECTS)
    text = r"clip 'train_1': .*train_1\.mp4: labels are of frame 5, which is left out at 2 frames per second"
    with pytest.raises(InexactError, match=text):
        run(path, ReencodeSettings(fps="2"))


def test_tracks_beyond_the_trim_keep_a_box_for_their_pairs() -> None:
    import torch

    from data_tools.derive.mapping import move_pairs, move_tracks
    from hoi_train.core.records import Track
    from hoi_train.data.manifest.manifest import tracks_of

    boxes = torch.arange(40, dtype=torch.float32).view(10, 4) + torch.tensor([0.0, 0, 50, 50])
    made = ClipMapping(Fraction(30), (50, 50), (100, 100), 5, 3, np.array([5, 5, 6, 7]))
    found = move_tracks([([Track(7, 0, boxes), Track(8, 6, boxes), Track(9, 20, boxes)], made), None, ([], made)])
    assert found.is_valid().to_pylist() == [True, False, True]
    moved = tracks_of(found[0].values)
    spans = [(track.track_id, track.start_frame, len(track.boxes)) for track in moved]
    assert spans == [
        (7, 0, 4),
        (8, 2, 2),
        (9, 3, 1),
    ]
    torch.testing.assert_close(moved[0].boxes * 2, boxes[[5, 5, 6, 7]])
    torch.testing.assert_close(moved[2].boxes * 2, boxes[:1])
    pair = {"frame": 2, "person_box": [0.0, 0.0, 10.0, 10.0], "object_box": [1e-320, 0.0, 2e-320, 1.0]}
    (new,) = move_pairs([pair], made)
    assert new["frame"] == 3
    assert new["object_box"][0] < new["object_box"][2], "a box keeps an area"
    text = "labels are of frame 3, beyond the clip's end: it has frames 0 to 2; correct the manifest, or leave the clip"
    with pytest.raises(InexactError, match=text):
        move_pairs([{**pair, "frame": 3}], made)
