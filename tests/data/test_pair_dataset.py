"""Key frames as samples: boxes go where the pixels go, and no pair is lost or seen twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from hoi_train.core.records import ClipError, Split
from hoi_train.data.manifest import ManifestError, read_manifest, write_manifest
from hoi_train.data.pair_dataset import PairDataset
from hoi_train.data.samplers import Item
from hoi_train.data.sampling import AroundKey, Plan, Segments
from hoi_train.data.transforms import Augment, CenterCrop
from hoi_train.data.views import Views
from tests.pairs import FRAMES, KEY_FRAMES, OBJECTS, PREDICATE, make_pair_data, middle_of
from tests.videos import encode, turn


@pytest.fixture(scope="module")
def manifest(pair_manifest: Path) -> Path:
    return pair_manifest


def dataset_of(manifest: Path, split: Split = "train", plan: Plan | None = None, **augment: object) -> PairDataset:
    transforms = Augment(size=64, **augment), CenterCrop(size=64, scale=1.0)
    clips = read_manifest(manifest).split(split)
    tasks = {"predicate": PREDICATE}
    return PairDataset(clips, tasks, transforms, OBJECTS, num_frames=5, plan=plan or AroundKey(), seed=4)


@pytest.mark.parametrize("plan", [AroundKey(), Segments()])
@pytest.mark.parametrize("rotated", ["frame", "crop"])
def test_boxes_go_where_the_pixels_go(manifest: Path, plan: Plan, rotated: str) -> None:
    dataset = dataset_of(manifest, plan=plan, scale=(0.9, 1.0), rotation=20.0, flip=0.5, rotated=rotated)
    compared = 0
    for index in range(len(dataset)):
        for epoch in range(3):
            sample = dataset[Item(index, epoch)]
            for boxes, kind in zip(sample.boxes, sample.objects.tolist(), strict=True):
                for boxes_of_one, channel in zip(boxes, (0, 1 + kind), strict=True):
                    for box, picture in zip(boxes_of_one, sample.video.transpose(0, 1), strict=True):
                        if (box <= 1).any() or (box >= 63).any():
                            continue  # partly out of the view
                        centre = ((box[:2] + box[2:]) / 2).tolist()
                        assert middle_of(picture, channel) == pytest.approx(centre, abs=1.5)
                        compared += 1
    assert compared > 300


def test_every_pair_is_evaluated_once(manifest: Path) -> None:
    dataset = dataset_of(manifest, "val", scale=(0.5, 0.5))
    batches = [dataset.batch([Item(i) for i in range(first, min(first + 3, len(dataset)))]) for first in (0, 3, 6)]
    seen = Counter(i for batch in batches for i in batch.rows.tolist())
    truth = dataset.truth("predicate")
    assert seen == Counter(range(len(truth)))
    for batch in batches:
        of_row = dict(
            zip(batch.rows.tolist(), zip(batch.row_ids, batch.targets["predicate"], strict=True), strict=True)
        )
        for row, (name, target) in of_row.items():
            assert truth.frame_ids[row] == name
            assert truth.predicates[row].tolist() == target.bool().tolist()
    frames = {name.split("@")[1] for name in truth.frame_ids.tolist()}
    assert frames == {str(frame) for frame in KEY_FRAMES}


def test_the_key_frame_is_shown(manifest: Path) -> None:
    for plan in (AroundKey(stride=3), Segments()):
        dataset = dataset_of(manifest, plan=plan)
        for item in (Item(3), Item(3, 0), Item(3, 1)):
            places = plan(FRAMES, 5, 2, torch.Generator().manual_seed(1))
            assert 2 in places
            assert (np.diff(places) >= 0).all()
            sample = dataset[item]
            assert 0 <= sample.key < 5


def test_pairs_that_leave_the_view_do_not_train(manifest: Path) -> None:
    dataset = dataset_of(manifest, scale=(0.6, 0.6), rotation=0.0)
    training = [dataset[Item(i, 0)] for i in range(len(dataset))]
    evaluated = [dataset[Item(i)] for i in range(len(dataset))]
    assert 0 < sum(len(sample.pairs) for sample in training) < sum(len(sample.pairs) for sample in evaluated)
    for sample in training:
        sides = sample.boxes[:, :, sample.key, 2:] - sample.boxes[:, :, sample.key, :2]
        assert (sides >= 1).all()
        assert len(sample.pairs) == len(sample.objects) == len(sample.targets["predicate"])
    batch = dataset.batch([Item(i, 0) for i in range(len(dataset))])
    assert batch.pairs is not None
    assert len(batch.pairs) == sum(len(sample.pairs) for sample in training)


def test_a_flip_swaps_left_and_right(manifest: Path) -> None:
    plain, flipped = (dataset_of(manifest, scale=(1.0, 1.0), rotation=0.0, flip=flip) for flip in (0.0, 1.0))
    for index in range(len(plain)):
        one, other = plain[Item(index, 0)], flipped[Item(index, 0)]
        assert torch.equal(one.targets["predicate"][:, [1, 0, 2, 3]], other.targets["predicate"])
        assert torch.equal(one.targets["predicate"], plain[Item(index)].targets["predicate"])
        for sample in (one, other):
            person, thing = sample.boxes[:, :, sample.key].unbind(1)
            left = person[:, 0] < thing[:, 0]
            assert torch.equal(sample.targets["predicate"][:, 0].bool(), left)


def test_without_tracks_boxes_stay_where_they_are(tmp_path: Path) -> None:
    sample = dataset_of(make_pair_data(tmp_path, tracks=False))[Item(0)]
    assert torch.equal(sample.boxes, sample.boxes[:, :, :1].expand_as(sample.boxes))


def test_selected_key_frames_keep_their_pairs(manifest: Path) -> None:
    dataset = dataset_of(manifest)
    selected = dataset.select(torch.tensor([5, 0, 5]))
    assert len(selected) == 3
    for mine, theirs in zip((0, 1, 2), (5, 0, 5), strict=True):
        assert selected[Item(mine)].clip_id == dataset[Item(theirs)].clip_id
        assert torch.equal(selected[Item(mine)].pairs, dataset[Item(theirs)].pairs)
    assert torch.equal(selected.labels("predicate"), dataset.labels("predicate")[[5, 0, 5]])


def test_labels_of_a_key_frame_are_those_of_its_pairs(manifest: Path) -> None:
    dataset = dataset_of(manifest)
    for index, labels in enumerate(dataset.labels("predicate")):
        assert labels.tolist() == dataset[Item(index)].targets["predicate"].any(0).tolist()


def test_a_key_frame_that_the_file_lacks_is_named(manifest: Path) -> None:
    clips = read_manifest(manifest)
    dataset = dataset_of(manifest)
    dataset.key_frames.frames[1] = 99
    with pytest.raises(ClipError, match=r"its pairs are of frame 99, it has frames 0 to 7"):
        dataset[Item(1)]
    assert len(clips) == 18


def test_boxes_of_a_file_of_another_size_are_refused(manifest: Path, tmp_path: Path) -> None:
    clips = read_manifest(manifest)
    rows = [{**row, "path": str(clips.root / row["path"])} for row in clips.table.to_pylist()]
    wide = tmp_path / "wide.mp4"
    encode(wide, FRAMES)
    turned = turn(wide, tmp_path / "turned.mp4", (0, 1, -1, 0))
    cases = [
        ((48, 48), None, None),
        ((64, 48), None, "its frames are of 48×48 pixels, its boxes were annotated in 64×48 (width × height)"),
        ((96, 80), wide, None),
        ((96, 80), turned, "its frames are of 80×96 pixels, rotated by 90 degrees, its boxes were annotated in 96×80"),
        ((80, 96), turned, None),
    ]
    for (width, height), file, words in cases:
        changed = [{**row, "width": width, "height": height, "path": str(file or row["path"])} for row in rows]
        root = tmp_path if file else clips.root
        path = write_manifest(tmp_path / "m.parquet", changed, [PREDICATE], root, OBJECTS)
        assert read_manifest(path).clip(0).size == (width, height)
        dataset = dataset_of(path)
        if words is None:
            dataset[Item(0, 0)]
        else:
            with pytest.raises(ClipError) as error:
                dataset[Item(0, 0)]
            assert str(error.value).startswith(f"clip 'train_1': {dataset.clips.clip(1).path}: {words}")


def test_annotated_boxes_outside_the_picture_are_refused(manifest: Path, tmp_path: Path) -> None:
    clips = read_manifest(manifest)
    rows = clips.table.to_pylist()
    for row in rows:
        for pair in row["pairs"]:
            pair["object_box"] = [48.0, 2.0, 60.0, 9.0]
    path = write_manifest(tmp_path / "m.parquet", rows, [PREDICATE], clips.root, OBJECTS)
    words = r"clip 'train_1': .*: object_box \[48.0, 2.0, 60.0, 9.0\] of frame 2 lies outside its 48×48 pixels"
    with pytest.raises(ClipError, match=words):
        dataset_of(path)[Item(0, 0)]


def test_width_and_height_are_given_together(manifest: Path, tmp_path: Path) -> None:
    clips = read_manifest(manifest)
    rows = [{**row, "width": 48 if row["split"] == "val" else None} for row in clips.table.to_pylist()]
    with pytest.raises(ManifestError, match="row 10: width and height are given together or not at all"):
        write_manifest(tmp_path / "m.parquet", rows, [PREDICATE], clips.root, OBJECTS)


def test_every_temporal_view_shows_the_key_frame_and_all_of_its_pairs(manifest: Path) -> None:
    transforms = Augment(size=64), CenterCrop(size=64, scale=1.0)
    clips = read_manifest(manifest).split("val")
    dataset = PairDataset(clips, {"predicate": PREDICATE}, transforms, OBJECTS, num_frames=3, views=Views(frames=2))
    for index in range(len(dataset)):
        views = [dataset[Item(index, view=number)] for number in range(2)]
        one, other = views
        assert torch.equal(one.video[:, one.key], other.video[:, other.key])
        assert torch.equal(one.boxes[:, :, one.key], other.boxes[:, :, other.key])
        assert not torch.equal(one.video, other.video)
        keys = dataset.batch([Item(index, view=number) for number in range(2)]).keys
        assert keys.tolist() == [[pair, number] for number in range(2) for pair in one.pairs.tolist()]
