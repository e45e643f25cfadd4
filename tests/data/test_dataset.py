"""From items to samples and batches."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

from hoi_train.core.records import ClassList, ClipError, Task, UserError
from hoi_train.data.dataset import ClipDataset, collate, mirrored
from hoi_train.data.manifest import Manifest
from hoi_train.data.samplers import Item
from hoi_train.data.sampling import segment_frames
from hoi_train.data.transforms import Augment, CenterCrop, Transformed
from tests.videos import number_of


def make_dataset(manifest: Manifest, **options: object) -> ClipDataset:
    transforms = (Augment(size=48, brightness=0.3), CenterCrop(size=48))
    return ClipDataset(manifest, manifest.tasks, transforms, **{"num_frames": 4, **options})  # type: ignore[arg-type]


class _Plain:
    """Show the frames as they are."""

    def __call__(self, frames: torch.Tensor, generator: object, boxes: object = None) -> Transformed:
        return Transformed(frames.permute(3, 0, 1, 2), None, mirrored=False)


def _numbers(manifest: Manifest, item: Item, num_frames: int = 4) -> list[int]:
    dataset = ClipDataset(manifest, manifest.tasks, (_Plain(), _Plain()), num_frames=num_frames)
    return [number_of(frame) for frame in dataset[item].video.permute(1, 2, 3, 0).numpy()]


def test_evaluation_shows_the_centres_of_the_segments(manifest: Manifest) -> None:
    for clip in range(13):
        first, count = (3, 6) if clip == 3 else (0, 5 + clip)
        for num_frames in (1, 4, 10):
            expected = (first + segment_frames(count, num_frames)).tolist()
            assert _numbers(manifest, Item(clip), num_frames) == expected


def test_training_shows_one_frame_of_each_segment_of_the_clip(manifest: Manifest) -> None:
    shown = [_numbers(manifest, Item(3, epoch)) for epoch in range(30)]
    assert {number for numbers in shown for number in numbers} == set(range(3, 9))
    assert all(numbers == sorted(numbers) for numbers in shown)
    assert shown[5] == _numbers(manifest, Item(3, 5))


def test_a_sample_depends_on_seed_epoch_clip_and_repeat_alone(manifest: Manifest) -> None:
    dataset = make_dataset(manifest)
    items = [Item(9, 0), Item(9, 1), Item(9, 0, 1), Item(8, 0)]
    videos = [dataset[item].video for item in items]
    again = [make_dataset(manifest)[item].video for item in reversed(items)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(videos, again, strict=True))
    other_seed = make_dataset(manifest, seed=1)[items[0]].video
    different = [*videos, other_seed]
    assert all(not torch.equal(different[i], different[j]) for i in range(5) for j in range(i))


def test_a_clip_keeps_its_draws_when_the_manifest_is_ordered_anew(manifest: Manifest) -> None:
    turned = make_dataset(manifest.select(list(range(12, -1, -1))))
    assert torch.equal(make_dataset(manifest)[Item(9, 2)].video, turned[Item(3, 2)].video)


def test_evaluation_draws_nothing(manifest: Manifest) -> None:
    assert torch.equal(make_dataset(manifest)[Item(4)].video, make_dataset(manifest, seed=9)[Item(4)].video)


def test_labels_become_targets(manifest: Manifest) -> None:
    dataset = make_dataset(manifest)
    for clip, verb, nouns in ((0, 0, [1.0, 1.0]), (3, 0, [1.0, 0.0]), (5, 2, [0.0, 1.0]), (7, 1, [0.0, 0.0])):
        targets = dataset[Item(clip)].targets
        assert targets["verb"].dtype == torch.int64
        assert int(targets["verb"]) == verb
        assert targets["noun"].dtype == torch.float32
        assert targets["noun"].tolist() == nouns


@pytest.mark.parametrize(("labels", "before", "after"), [("single", 1, 2), ("multi", [1.0, 1, 0], [1.0, 0, 1])])
def test_a_mirror_makes_left_of_right(labels: Any, before: Any, after: Any) -> None:
    task = Task("side", ClassList(("none", "left", "right")), labels, mirrored=((1, 2),))
    assert mirrored(torch.tensor(before), task).tolist() == after
    assert mirrored(mirrored(torch.tensor(before), task), task).tolist() == before


def test_only_the_tasks_asked_for(manifest: Manifest) -> None:
    verbs = {"verb": manifest.tasks["verb"]}
    dataset = ClipDataset(manifest, verbs, (Augment(), CenterCrop()))
    assert list(dataset[Item(0)].targets) == ["verb"]
    assert dataset[Item(0)].video.shape == (3, 10, 112, 112)


def test_samples_are_stacked_to_a_batch(manifest: Manifest) -> None:
    dataset = make_dataset(manifest)
    batch = collate([dataset[Item(clip, 0)] for clip in (4, 9, 4)])
    assert batch.video.shape == (3, 3, 4, 48, 48)
    assert batch.video.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(batch.video[0], batch.video[2])
    assert batch.targets["verb"].tolist() == [1, 0, 1]
    assert batch.targets["noun"].shape == (3, 2)
    assert batch.indices.tolist() == [4, 9, 4]
    assert batch.clip_ids == ("clip 4", "clip 9", "clip 4")


def test_a_copy_in_another_process_gives_the_same(manifest: Manifest) -> None:
    dataset = make_dataset(manifest.split("val"))
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(copy) == len(dataset) == 3
    assert torch.equal(copy[Item(2, 1)].video, dataset[Item(2, 1)].video)


def test_a_missing_clip_is_named(manifest: Manifest) -> None:
    moved = Manifest(manifest.path, manifest.root / "elsewhere", manifest.tasks, manifest.table)
    with pytest.raises(ClipError, match=r"clip 'clip 4': .*elsewhere/4\.mp4: no such file; check the manifest's root"):
        make_dataset(moved)[Item(4)]


def test_an_unknown_reader_is_refused_before_any_clip_is_read(manifest: Manifest) -> None:
    with pytest.raises(UserError, match="reader 'opencv' is not one of auto, pyav, frames"):
        make_dataset(manifest, reader="opencv")
