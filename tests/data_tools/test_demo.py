"""The demo set: the same bytes from the same seed, a long tail as asked for, and a truth that is true of the pixels."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from data_tools.demo import command as demo
from data_tools.demo.camera import Film, FilmedObject, film
from data_tools.demo.objects import KINDS, NOUNS, PALETTE, Place
from data_tools.demo.pairs import EVERY, PREDICATES, annotate
from data_tools.demo.scene import REVERSED, VERBS, DemoActor, acted_on, play
from data_tools.demo.shapes import Canvas, Part, solid_box
from hoi_train.core.records import UserError
from hoi_train.data.detections_file import read_detections
from hoi_train.data.manifest import Manifest, read_manifest

FEW = {"clips": 176, "imbalance": 2.0, "size": 64}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(demo.make_demo(tmp_path_factory.mktemp("demo") / "set", **FEW, seed=3))


def shoot(verb: str, seed: int = 0, size: int = 64) -> Film:
    kinds = acted_on(verb)
    return demo.shoot(verb, kinds[seed % len(kinds)], seed, DemoActor.draw(np.random.default_rng(9)), size)[0]


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


# --- the set -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_same_seed_same_bytes_whatever_the_threads(made: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digests(made.root)
    monkeypatch.setattr(demo.os, "cpu_count", lambda: 1)
    demo.make_demo(made.root, **FEW, seed=3)  # over the earlier set
    assert digests(made.root) == before
    assert len(before) == FEW["clips"] + 4  # manifest.parquet, detections.parquet, dataset.json, demo.json


def test_every_clip_is_its_own() -> None:
    digest = {hashlib.sha256(shoot(verb, seed).frames.tobytes()).hexdigest() for verb in VERBS for seed in (0, 1)}
    assert len(digest) == 2 * len(VERBS)
    plans = [list(demo._plans(demo.split_counts(300, 50), seed)) for seed in (0, 1)]
    assert len({plan.seed for plans_of_seed in plans for plan in plans_of_seed}) == 600


def test_manifest_says_what_was_asked_for(made: Manifest) -> None:
    note = json.loads((made.root / "demo.json").read_text())
    assert (note["clips"], note["imbalance"], note["seed"], len(made)) == (176, 2.0, 3, 176)
    for split, verbs in note["counts"].items():
        assert made.split(split).counts("verb").positives == tuple(verbs[verb] for verb in VERBS)
    assert made.split("train").counts("verb").positives == demo.long_tail(1, 2.0)
    assert [(task.labels, task.of) for task in made.tasks.values()] == [
        ("single", "clip"),
        ("multi", "clip"),
        ("multi", "pair"),
    ]
    assert made.warnings == ()


def test_nouns_fit_their_verbs(made: Manifest) -> None:
    seen = Counter()
    for row in range(len(made)):
        clip = made.clip(row)
        verb, nouns = VERBS[clip.labels["verb"]], {NOUNS[i] for i in clip.labels["noun"]}  # type: ignore[index, union-attr]
        main = nouns & set(acted_on(verb))
        assert len(main) == 1
        assert nouns - main == set() or (nouns - main == {"tray"} and verb in ("take", "put"))
        seen.update(nouns)
    assert set(seen) == set(NOUNS)


def test_no_actor_in_two_splits(made: Manifest) -> None:
    groups = {split: {made.split(split).clip(i).group for i in range(10)} for split in ("train", "val", "test")}
    assert (
        groups["train"] & groups["val"] == groups["val"] & groups["test"] == groups["train"] & groups["test"] == set()
    )
    assert min(map(len, groups.values())) > 1


def test_files_hold_the_declared_frames(made: Manifest) -> None:
    for row in range(0, len(made), 16):
        clip = made.clip(row)
        frames = frames_of(clip.path)
        assert len(frames) == clip.num_frames in range(24, 33)
        assert frames[0].shape == (64, 64, 3)


def test_the_codec_keeps_the_picture(made: Manifest) -> None:
    plan = next(demo._plans(demo.split_counts(FEW["clips"], FEW["imbalance"]), seed=3))
    actor = DemoActor.draw(np.random.default_rng(demo.seed_of(3, "demo", "actor", plan.actor)))
    drawn, _ = demo.shoot(plan.verb, plan.kind, plan.seed, actor, 64)
    decoded = np.stack(frames_of(made.root / "clips" / f"{plan.clip_id}.mp4"))
    assert np.abs(decoded.astype(int) - drawn.frames).mean() < 6


def test_pairs_of_the_manifest(made: Manifest) -> None:
    pairs = made.table.column("pairs").to_pylist()
    assert all(pairs)
    seen = Counter(name for row in pairs for pair in row for name in pair["predicates"])
    assert set(seen) == set(PREDICATES)
    for row in pairs:
        assert {pair["frame"] % EVERY for pair in row} == {0}
        assert {pair["object_class"] for pair in row} <= set(NOUNS)
        boxes = np.array([pair[name] for pair in row for name in ("person_box", "object_box")])
        assert boxes.min() >= 0
        assert boxes.max() <= 64


def test_detections_are_near_the_truth_and_not_all_of_it(made: Manifest) -> None:
    assert made.object_classes is not None
    found = read_detections(made.root / "detections.parquet", made.object_classes).to_pylist()
    rows = {clip_id: row for row, clip_id in enumerate(made.clip_ids)}
    assert {made.clip(rows[row["clip_id"]]).split for row in found} == {"val", "test"}
    truth = {(row, pair.frame, pair.object_id): pair for row in range(len(made)) for pair in made.pairs(row)}
    held_out = sum(made.clip(row).split != "train" for row, _, _ in truth)
    seen: Counter[str] = Counter()
    for row in found:
        for pair in row["pairs"]:
            true = truth.get((rows[row["clip_id"]], pair["frame"], pair["object_id"]))
            seen["imagined" if true is None else "found"] += 1
            for key in ("person", "object") if true else ():
                theirs = torch.tensor([pair[f"{key}_box"], getattr(true, f"{key}_box")], dtype=torch.float64)
                assert box_iou(theirs[:1], theirs[1:]).item() > 0.5
            seen["mistaken"] += true is not None and pair["object_class"] != true.object_class
            assert 0.3 <= pair["object_score"] <= 1
    assert 0.7 * held_out < seen["found"] < 0.95 * held_out
    assert 0 < seen["mistaken"] < 0.2 * seen["found"]
    assert 0 < seen["imagined"] < 0.4 * seen["found"]


# --- the long tail -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clips", [275, 300, 500, 1000, 5000])
@pytest.mark.parametrize("imbalance", [1, 10, 50])
def test_counts_follow_the_tail_and_add_up(clips: int, imbalance: float) -> None:
    counts = demo.split_counts(clips, imbalance)
    assert sum(map(sum, counts.values())) == clips
    train = counts["train"]
    assert max(train) == imbalance * min(train)
    ideal = [train[0] * imbalance ** (-c / 7) for c in range(8)]
    assert np.abs(np.array(train) - ideal).max() <= 0.5
    for split in ("val", "test"):
        assert min(counts[split]) >= 10
        assert max(counts[split]) - min(counts[split]) <= 1


def test_an_imbalance_between_whole_clips_is_reported_as_it_is() -> None:
    counts = demo.split_counts(300, 7.3)
    note = demo._note(counts, 96, 0)
    assert note["imbalance"] == counts["train"][0] / counts["train"][-1] != 7.3
    assert note["imbalance"] == pytest.approx(7.3, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"clips": 274},
            "clips 274: an imbalance of 50 over 8 verbs needs at least 275: 115 to train on and 10 of each",
        ),
        ({"clips": 300, "imbalance": 100.0}, "needs at least 367: 207 to train on"),
        ({"imbalance": 0.5}, "imbalance 0.5: most frequent over rarest verb must be a number of at least 1"),
        ({"imbalance": float("nan")}, "imbalance nan: most frequent over rarest"),
        ({"clips": 10**12}, "clips 1000000000000: a demo set has at most 1,000,000; ask for fewer"),
        ({"size": 63}, "size 63: the side must be an even number of pixels from 64 to 128"),
        ({"size": 130}, "size 130: the side must be an even number"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        demo.make_demo(tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_the_least_number_of_clips_is_enough() -> None:
    assert min(demo.split_counts(275, 50)["test"]) == 10


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "mine.mp4").write_bytes(b"x")
    with pytest.raises(UserError, match=r"holds files and no demo\.json, so it is no demo set; name a new"):
        demo.make_demo(tmp_path)
    with pytest.raises(UserError, match=r"mine\.mp4 is a file; name a folder"):
        demo.make_demo(tmp_path / "clips" / "mine.mp4")
    assert (tmp_path / "clips" / "mine.mp4").read_bytes() == b"x"


# --- the films -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backward", "forward"), REVERSED.items())
def test_the_rare_verb_is_the_common_one_played_backwards(backward: str, forward: str) -> None:
    actor = DemoActor.draw(np.random.default_rng(9))
    there, back = (demo.shoot(verb, acted_on(forward)[0], 5, actor, 64)[0] for verb in (forward, backward))
    assert np.array_equal(back.frames, there.frames[::-1])
    assert not np.array_equal(back.frames, there.frames)
    mirrored = {"toward": "away", "away": "toward"}
    last = len(there.frames) - 1
    truth = {(pair.frame, pair.object_id): pair for pair in annotate(there)}
    for pair in annotate(back):
        if (same := truth.get((last - pair.frame, pair.object_id))) is not None:
            assert pair.person_box == same.person_box
            assert pair.object_box == same.object_box
            assert {mirrored.get(name, name) for name in pair.predicates} == set(same.predicates)


@pytest.mark.parametrize("size", [64, 98, 128])
def test_sizes(size: int) -> None:
    assert shoot("open", 1, size).frames.shape[1:] == (size, size, 3)


@pytest.mark.parametrize("verb", VERBS[:4])
@pytest.mark.parametrize("seed", range(3))
def test_boxes_fit_what_is_drawn(verb: str, seed: int) -> None:
    """Each box encloses the pixels that the thing covers, to a pixel where all of it is in the frame."""
    rng = np.random.default_rng(seed)
    scene = play(verb, acted_on(verb)[seed % 2], rng, DemoActor.draw(rng))
    shot, size = film(scene, 96, rng), 96
    camera = shot.hand - solid_box(scene.hand) * size
    for parts, boxes in [
        (scene.hand, shot.hand),
        *((thing.parts, track.box) for thing, track in zip([scene.target, *scene.still], shot.tracks, strict=True)),
    ]:
        # Without the camera's motion, which shifts picture and box alike.
        check_boxes(covered(parts, scene.num_frames, size), boxes - camera)


def covered(parts: list[Part], count: int, size: int) -> np.ndarray:
    """Return which pixels ``[F, S, S]`` the solid parts change on a black canvas."""
    canvas = Canvas(np.zeros((count, size, size, 3), dtype=np.float32), size, margin=0)
    white = np.ones(3)
    canvas.paint([replace(part, colour=white, opacity=1.0, shade=0.0) for part in parts if part.solid])
    return canvas.pixels[..., 0] > 0.2  # the outline is painted at 0.4 of the colour


def check_boxes(masks: np.ndarray, boxes: np.ndarray) -> None:
    size = masks.shape[1]
    checked = 0
    for mask, box in zip(masks, boxes, strict=True):
        x0, y0, x1, y1 = np.clip(box, 0, size)
        if x1 - x0 < 2 or y1 - y0 < 2:
            assert mask.sum() <= 2 * size
            continue
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        drawn = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        assert (drawn[:2] > (x0 - 1.6, y0 - 1.6)).all()
        assert (drawn[2:] < (x1 + 1.6, y1 + 1.6)).all()
        if (box > 0).all() and (box < size).all():  # what is cut at the frame may show its narrow end only
            assert drawn == pytest.approx(box, abs=1.6)
        checked += 1
    assert checked > 0


@pytest.mark.parametrize("verb", VERBS)
def test_the_hand_is_on_the_object_while_it_touches(verb: str) -> None:
    shot = shoot(verb, 2)
    target = shot.tracks[0]
    touched, held, box = target.touched, target.held, target.box
    assert target.kind in acted_on(verb)
    assert 0 < touched.sum() < len(touched)
    assert not (held & ~touched).any()
    assert held.any() == (REVERSED.get(verb, verb) in ("take", "open"))
    for truth, expected in (("touch", touched), ("hold", held)):
        said = {pair.frame for pair in annotate(shot) if pair.object_id == 1 and truth in pair.predicates}
        assert said <= set(np.flatnonzero(expected))
    overlap = (shot.hand[:, :2] < box[:, 2:]).all(axis=1) & (box[:, :2] < shot.hand[:, 2:]).all(axis=1)
    assert overlap[touched].all()
    assert not any(track.touched.any() for track in shot.tracks[1:])


def test_predicates_are_the_geometry() -> None:
    """A hand that rises from beneath an object, over it, to above it; boxes are a tenth of the frame."""
    y = np.array([80.0, 50, 35, 10, 0])
    hand = np.stack([np.full(5, 50.0), y, np.full(5, 60.0), y + 10], axis=1)
    thing = np.tile([52.0, 30, 62, 40], (5, 1))
    none = np.zeros(5, dtype=bool)
    shot = Film(np.zeros((5, 100, 100, 3), dtype=np.uint8), hand, (FilmedObject("cup", thing, none, none),))
    first, last = annotate(shot)
    assert (first.frame, last.frame, first.object_class) == (0, 4, "cup")
    assert first.predicates == ("beneath", "toward")
    assert last.predicates == ("above", "away")
    near = annotate(replace(shot, hand=hand[[1, 1, 1, 1, 1]], frames=shot.frames))[0]
    assert near.predicates == ("next_to", "beneath")
    over = annotate(replace(shot, hand=hand[[2, 2, 2, 2, 2]]))[0]
    assert over.predicates == ("in_front_of",)
    assert annotate(replace(shot, hand=hand + np.array([0, 99.5, 0, 99.5]))) == []


def test_labels_survive_the_mirror() -> None:
    """The predicates of a mirrored film are those of the film: nothing depends on left and right."""
    shot = shoot("take", 4)
    flip = np.array([64, 0, 64, 0])

    def mirror(box: np.ndarray) -> np.ndarray:
        return np.abs(flip - box[:, [2, 1, 0, 3]])

    tracks = tuple(replace(track, box=mirror(track.box)) for track in shot.tracks)
    mirrored = annotate(Film(shot.frames[:, :, ::-1], mirror(shot.hand), tracks))
    assert [(p.frame, p.object_id, p.predicates) for p in mirrored] == [
        (p.frame, p.object_id, p.predicates) for p in annotate(shot)
    ]


@pytest.mark.parametrize("kind", NOUNS)
def test_a_grip_lies_on_the_object_in_every_state(kind: str) -> None:
    state = np.linspace(0, 1, 7)
    for mirror in (1, -1):
        place = Place(np.tile([0.5, 0.8], (7, 1)), np.ones(7), mirror)
        box, grip = solid_box(KINDS[kind].draw(place, PALETTE[0], state)), KINDS[kind].grip(place, state)
        assert (box[:, :2] < grip).all()
        assert (grip < box[:, 2:]).all()
