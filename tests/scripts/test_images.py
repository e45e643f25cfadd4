from __future__ import annotations

import pytest
import torch

from scripts.reproduce.images import ImageLoader, Images, crop_and_flip
from scripts.reproduce.networks import NETWORKS


def make_images(count: int = 10, seed: int = 3) -> Images:
    pixels = torch.arange(count * 3 * 32 * 32).remainder(251).to(torch.uint8).view(count, 3, 32, 32)
    return Images.of(pixels, torch.arange(count) % 4, [f"image_{i}" for i in range(count)], seed)


def make_loader(images: Images) -> ImageLoader:
    return ImageLoader(images, 4, task="object", crop_and_flip=True)


def test_batches_are_one_frame_videos_with_their_labels() -> None:
    images = make_images()
    (first, *_), evaluated = make_loader(images).training(0), list(make_loader(images).evaluation())
    assert first.video.shape == (4, 3, 1, 32, 32)
    assert torch.equal(first.targets["object"], first.indices % 4)
    assert first.clip_ids == tuple(f"image_{i}" for i in first.indices.tolist())
    assert torch.equal(torch.cat([batch.video for batch in evaluated])[:, :, 0], images.pixels)


def test_grey_images_have_three_equal_channels() -> None:
    grey = Images.of(torch.randint(256, (2, 1, 28, 28), dtype=torch.uint8), torch.tensor([0, 1]), "ab", 0)
    (batch,) = ImageLoader(grey, 2, task="digit").evaluation()
    assert torch.equal(batch.video[:, 0], batch.video[:, 2])


def test_an_epoch_goes_on_from_any_batch() -> None:
    whole = list(make_loader(make_images(16)).training(2))
    rest = list(make_loader(make_images(16)).training(2, 1))
    assert len(whole) == 4
    assert all(torch.equal(one.video, two.video) for one, two in zip(whole[1:], rest, strict=True))


def test_augmentation_differs_by_epoch_repeat_and_seed() -> None:
    drawn = torch.tensor([5, 5, 5, 5])
    (batch,), (other_epoch,) = (list(make_loader(make_images()).training(epoch, 0, drawn)) for epoch in (0, 1))
    (other_seed,) = make_loader(make_images(seed=4)).training(0, 0, drawn)
    looks = {video.numpy().tobytes() for one in (batch, other_epoch, other_seed) for video in one.video}
    assert len(looks) > 8, "of twelve; some crops may be equal"


def test_a_part_of_a_split_is_augmented_as_in_the_whole() -> None:
    images = make_images()
    (whole,) = make_loader(images).training(0, 0, torch.tensor([7, 2, 9, 4]))
    (part,) = make_loader(images.select(torch.tensor([9, 7, 4, 2]))).training(0, 0, torch.tensor([1, 3, 0, 2]))
    assert torch.equal(whole.video, part.video)
    assert whole.clip_ids == part.clip_ids


def test_crop_and_flip_cuts_each_image_out_of_a_black_frame() -> None:
    pixels = make_images(3).pixels + 1
    top, left, mirrored = torch.tensor([4, 4, 0]), torch.tensor([4, 4, 8]), torch.tensor([False, True, False])
    same, flipped, moved = crop_and_flip(pixels, top, left, mirrored)
    assert torch.equal(same, pixels[0])
    assert torch.equal(flipped, pixels[1].flip(-1))
    assert torch.equal(moved[:, 4:, :-4], pixels[2][:, :-4, 4:])
    assert not moved[:, :4].any()
    assert not moved[:, :, -4:].any()


@pytest.mark.parametrize(
    ("name", "side", "shape", "parameters"),
    # ResNet-32: 464,154 as published, less 650 of the linear layer for ten classes.
    [("lenet5", 28, (2, 84, 1, 1, 1), 60_856), ("resnet32", 32, (2, 64, 1, 8, 8), 463_504)],
)
def test_networks_have_the_published_size(name: str, side: int, shape: tuple[int, ...], parameters: int) -> None:
    network = NETWORKS[name]()
    assert network(torch.randn(2, 3, 1, side, side)).shape == shape
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
