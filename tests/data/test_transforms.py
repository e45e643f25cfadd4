"""Crops, rotations, flips, sizes and colours of clips and their boxes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from torchvision.transforms.v2 import functional

from hoi_train.core.randomness import generator
from hoi_train.core.schema import EntryOf
from hoi_train.data.affine import Region, fill, move_boxes, resample, rotate, shift, stretch
from hoi_train.data.transforms import TRANSFORMS, Augment, CenterCrop, Geometry

PLAIN: dict[str, Any] = {"rotation": 0.0, "flip": 0.0}
COLOURS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2}


def _smooth(frames: int = 3, height: int = 120, width: int = 160) -> Tensor:
    """Make a clip without sharp edges, so that ways of resampling agree; uint8 ``[T, H, W, 3]``."""
    t, y, x = np.mgrid[:frames, :height, :width]
    waves = (x / 13 + t, y / 11 - t, (x + y) / 17)
    return torch.from_numpy(np.stack([127 + 100 * np.sin(wave) for wave in waves], axis=-1).astype(np.uint8))


def _psnr(a: Tensor, b: Tensor) -> float:
    return float(10 * torch.log10(255**2 / (a.double() - b.double()).square().mean()))


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("shape", [(128, 170), (170, 128), (37, 512), (5, 5), (1, 1)])
def test_the_input_is_uint8_of_the_size_asked_for(name: str, shape: tuple[int, int]) -> None:
    frames = torch.randint(0, 256, (4, *shape, 3), dtype=torch.uint8, generator=generator(0))
    video, boxes, _ = TRANSFORMS[name](size=56)(frames, generator(1))
    assert video.dtype == torch.uint8
    assert video.shape == (3, 4, 56, 56)
    assert boxes is None


@pytest.mark.parametrize("options", [{}, {"rotated": "crop", "scale": (0.3, 1.0), "ratio": (0.5, 2.0)}, COLOURS])
def test_all_frames_of_a_clip_get_the_same_draw(options: dict[str, Any]) -> None:
    frame = _smooth(1)
    video, _, _ = Augment(size=64, **options)(frame.repeat(5, 1, 1, 1), generator(3))
    assert (video == video[:, :1]).all()


def test_the_draw_is_a_function_of_the_generator() -> None:
    frames, augment = _smooth(), Augment(size=64, scale=(0.5, 1.0), **COLOURS)
    videos = [augment(frames, generator("augment", seed))[0] for seed in (0, 0, 1)]
    assert (videos[0] == videos[1]).all()
    assert (videos[0] != videos[2]).any()


def test_switching_one_draw_off_leaves_the_others() -> None:
    frames = _smooth()
    for seed in range(5):
        straight, _, _ = Augment(size=64, rotation=0.0, flip=0.0)(frames, generator(seed))
        mirrored, _, _ = Augment(size=64, rotation=0.0, flip=1.0)(frames, generator(seed))
        assert (mirrored == straight.flip(-1)).all()


def test_flip_zero_never_flips_and_a_half_flips_half() -> None:
    frames = torch.zeros(1, 40, 40, 3, dtype=torch.uint8)
    frames[:, :, :20] = 255
    for flip, expected in ((0.0, 0), (0.5, 100), (1.0, 200)):
        augment = Augment(size=40, scale=(1.0, 1.0), rotation=0.0, flip=flip)
        flipped = sum(int(augment(frames, generator(seed))[0][0, 0, 20, 5] == 0) for seed in range(200))
        assert abs(flipped - expected) <= 30 * (flip == 0.5)


def test_a_crop_without_rotation_keeps_the_pixels() -> None:
    frames = torch.randint(0, 256, (2, 60, 80, 3), dtype=torch.uint8, generator=generator(0))
    places = set()
    for seed in range(30):
        video, _, _ = Augment(size=30, scale=(0.5, 0.5), **PLAIN)(frames, generator(seed))
        found = [
            (y, x) for y in range(31) for x in range(51) if (frames[0, y : y + 30, x : x + 30, 0] == video[0, 0]).all()
        ]
        assert len(found) == 1
        y, x = found[0]
        assert (frames[:, y : y + 30, x : x + 30].permute(3, 0, 1, 2) == video).all()
        places.add((y, x))
    assert len(places) > 20


def test_a_crop_of_the_whole_frame_reaches_every_place() -> None:
    frames = torch.arange(7, dtype=torch.uint8).repeat_interleave(3).reshape(1, 1, 7, 3).expand(1, 3, 7, 3)
    lefts = {int(Augment(size=3, scale=(1, 1), **PLAIN)(frames, generator(s))[0][0, 0, 0, 0]) for s in range(100)}
    assert lefts == set(range(5))


@pytest.mark.parametrize(("height", "width", "side", "left", "top"), [(128, 170, 112, 29, 8), (60, 40, 35, 3, 13)])
def test_evaluation_takes_the_centre(height: int, width: int, side: int, left: int, top: int) -> None:
    frames = torch.randint(0, 256, (2, height, width, 3), dtype=torch.uint8, generator=generator(0))
    video, _, _ = CenterCrop(size=side, scale=0.875)(frames, generator(0))
    assert (video == frames[:, top : top + side, left : left + side].permute(3, 0, 1, 2)).all()


def test_a_small_copy_shows_the_same() -> None:
    """480 of 640×480 and 256 of 341×256 are both ``scale: 1``."""
    large = _smooth(2, 480, 640)
    small = functional.resize(large.permute(0, 3, 1, 2), [240, 320], antialias=True).permute(0, 2, 3, 1)
    for transform in (CenterCrop(size=112, scale=1.0), Augment(size=112, scale=(1.0, 1.0), rotation=10.0)):
        assert _psnr(transform(large, generator(4))[0], transform(small, generator(4))[0]) > 30


@pytest.mark.parametrize("degrees", [-10.0, 3.0, 10.0, 90.0])
def test_one_map_equals_rotating_then_cropping_then_resizing(degrees: float) -> None:
    frames = _smooth(2, 240, 320)
    crop = Region(50, 30, 210, 190)
    visible = Region(0, 0, 320, 240)
    one = resample(frames, fill(crop, 80) @ rotate(degrees, visible.center), 80, visible)
    rotated = functional.rotate(frames.permute(0, 3, 1, 2), degrees, functional.InterpolationMode.BILINEAR)
    chain = functional.resize(rotated[:, :, 30:190, 50:210], [80, 80], antialias=True).permute(0, 2, 3, 1)
    assert _psnr(one, chain) > 30
    other = resample(frames, fill(crop, 80) @ rotate(-degrees, visible.center), 80, visible)
    assert _psnr(other, chain) < 25  # the control: the wrong direction is seen


def test_the_released_chain_is_crop_rotate_flip_resize() -> None:
    """Crop 480 of 640×480, rotate the crop by up to 10 degrees with black corners, flip, resize to 224."""
    frames = _smooth(2, 480, 640)
    augment = Augment(size=224, scale=(1.0, 1.0), rotation=10.0, rotated="crop", flip=0.5)
    for seed in range(4):
        video, _, _ = augment(frames, generator(seed))
        draws = torch.rand(10, generator=generator(seed), dtype=torch.float64).tolist()
        crop = frames[:, :, int(draws[2] * 161) :][:, :, :480].permute(0, 3, 1, 2)
        chain = functional.rotate(crop, 20 * draws[4] - 10, functional.InterpolationMode.BILINEAR)
        chain = chain.flip(-1) if draws[5] < 0.5 else chain
        chain = functional.resize(chain, [224, 224], antialias=True).transpose(0, 1)
        assert _psnr(video, chain) > 30


def _photograph(height: int, width: int) -> Tensor:
    """Make frames with the spectrum of photographs, amplitude 1 / frequency, and an edge; uint8 ``[2, H, W, 3]``."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(480)[:, None], np.fft.rfftfreq(640)) + 1 / 640
    waves = np.stack([np.fft.irfft2(np.fft.rfft2(rng.normal(size=(480, 640))) / frequency**1.8) for _ in range(6)])
    frames = (127 + 45 * waves / waves.std(axis=(1, 2), keepdims=True)).reshape(2, 3, 480, 640)
    frames[:, :, 180:300, 240:400] += 60
    large = torch.from_numpy(frames.clip(0, 255).astype(np.uint8))
    return functional.resize(large, [height, width], antialias=True).permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize(("height", "width"), [(480, 640), (256, 341)])
def test_the_same_draw_as_the_plain_torchvision_chain(height: int, width: int) -> None:
    """Rotate the full frame, random resized crop and flip, in float: 43 dB or more for every draw, 48 for most."""
    frames = _photograph(height, width)
    augment = Augment(size=224, scale=(0.5, 1.0), ratio=(0.75, 4 / 3), rotation=10.0, flip=0.5)
    planes, near = frames.permute(0, 3, 1, 2).float(), []
    for seed in range(12):
        video, _, _ = augment(frames, generator(seed))
        view = augment.geometry(width, height, generator(seed))
        near.append(_psnr(video.transpose(0, 1), _chain(planes, view)))
        x0, y0, x1, y1 = view.crop
        changed = {  # the control: what differs by a pixel or a degree is seen
            "degrees": view._replace(degrees=view.degrees + 1),
            "mirrored": view._replace(mirrored=not view.mirrored),
            "crop": view._replace(crop=Region(x0 + 1, y0, x1 + 1, y1)),
        }
        far = {name: _psnr(video.transpose(0, 1), _chain(planes, wrong)) for name, wrong in changed.items()}
        assert max(far.values()) < 42, far
    assert min(near) > 43
    assert np.median(near) > 48


def _chain(planes: Tensor, view: Geometry) -> Tensor:
    """Return float ``[T, 3, 224, 224]``."""
    crop = view.crop
    rotated = functional.rotate(planes, view.degrees, functional.InterpolationMode.BILINEAR)
    shown = functional.resized_crop(rotated, crop.y0, crop.x0, crop.height, crop.width, [224, 224], antialias=True)
    return functional.horizontal_flip(shown) if view.mirrored else shown


def test_rotating_the_frame_leaves_less_black_than_rotating_the_crop() -> None:
    frames = torch.full((1, 128, 170, 3), 255, dtype=torch.uint8)
    black = {
        rotated: sum(
            (Augment(size=112, rotated=rotated)(frames, generator(seed))[0] == 0).double().mean() for seed in range(50)
        )
        / 50
        for rotated in ("frame", "crop")
    }
    assert black["frame"] < 0.01
    assert 0.02 < black["crop"] < 0.06


def test_no_picture_is_drawn_from_outside_the_visible_part() -> None:
    frames = torch.full((1, 20, 20, 3), 255, dtype=torch.uint8)
    far = resample(frames, shift(-500, 0), 10, Region(0, 0, 20, 20))
    assert far.shape == (1, 10, 10, 3)
    assert (far == 0).all()
    half = resample(frames, shift(-10, 0), 20, Region(0, 0, 20, 20))
    assert (half[:, :, :9] == 255).all()
    assert (half[:, :, 11:] == 0).all()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("rotated", ["frame", "crop"])
def test_boxes_stay_on_what_they_frame(seed: int, rotated: str) -> None:
    frames = torch.zeros(1, 240, 320, 3, dtype=torch.uint8)
    frames[:, 100:130, 140:190] = 255
    augment = Augment(size=160, scale=(0.7, 1.0), ratio=(0.8, 1.25), rotation=30.0, rotated=rotated)  # type: ignore[arg-type]
    video, boxes, _ = augment(frames, generator(seed), torch.tensor([[140.0, 100.0, 190.0, 130.0]]))
    assert boxes is not None
    rows, columns = (torch.nonzero((video[0, 0] > 127).any(axis)).flatten() for axis in (1, 0))
    seen = torch.tensor([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    assert (boxes[0] - seen).abs().max() < 2


def test_boxes_are_cut_to_the_input() -> None:
    _, boxes, _ = CenterCrop(size=50, scale=1.0)(
        torch.zeros(1, 100, 200, 3, dtype=torch.uint8),
        generator(0),
        torch.tensor([[40.0, 20.0, 90.0, 60.0], [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 200.0, 100.0]]),
    )
    assert boxes is not None
    assert boxes.tolist() == [[0, 10, 20, 30], [0, 0, 0, 5], [0, 0, 50, 50]]


def test_maps_compose_from_right_to_left() -> None:
    box = torch.tensor([[1.0, 2.0, 3.0, 5.0]], dtype=torch.float64)
    moved = move_boxes(box, stretch(2, 3) @ shift(1, 1), 100)
    assert moved.tolist() == [[4, 9, 8, 18]]
    quarter = move_boxes(box, rotate(90, (5, 5)), 100)  # against the clock: right goes to the top
    assert torch.allclose(quarter, torch.tensor([[2.0, 7.0, 5.0, 9.0]], dtype=torch.float64))


@pytest.mark.parametrize("name", COLOURS)
def test_colours_change_within_their_strength(name: str) -> None:
    frames = _smooth(2)
    plain, _, _ = Augment(size=64, **PLAIN)(frames, generator(0))
    means = []
    for seed in range(20):
        video, _, _ = Augment(size=64, **PLAIN, **{name: COLOURS[name]})(frames, generator(seed))
        unchanged, _, _ = Augment(size=64, **PLAIN)(frames, generator(seed))
        means.append(float((video.double() - unchanged.double()).abs().mean()))
    assert max(means) > 3
    assert (plain == Augment(size=64, **PLAIN, **dict.fromkeys(COLOURS, 0.0))(frames, generator(0))[0]).all()


SCHEMA = TypeAdapter(EntryOf(TRANSFORMS).type)


@pytest.mark.parametrize(
    "section",
    [
        {"name": "augment", "size": 224, "scale": [1.0, 1.0], "rotation": 10, "rotated": "crop"},
        {"name": "augment", "scale": [0.5, 1.0], "ratio": [0.75, 1.333], "flip": 0, "brightness": 0.2},
        {"name": "center_crop", "size": 224, "scale": 1.0},
        "center_crop",
    ],
)
def test_a_configuration_names_them(section: Any) -> None:
    config = SCHEMA.validate_json(json.dumps(section))
    video, _, _ = TRANSFORMS[config.name](**config.hyper_parameters())(_smooth(), generator(0))
    assert video.shape[0] == 3


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("scale", [0.9, 0.5], r"must be \[lowest, highest\], not \[0.9, 0.5\]"),
        ("scale", [0.5, 1.5], "less than or equal to 1"),
        ("ratio", [0.0, 1.0], "greater than 0"),
        ("flip", 1.1, "less than or equal to 1"),
        ("rotated", "clip", "'frame' or 'crop'"),
        ("angle", 3, "not permitted"),
    ],
)
def test_a_configuration_out_of_range_is_refused(key: str, value: Any, text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        SCHEMA.validate_json(json.dumps({"name": "augment", key: value}))


def test_limits_in_the_wrong_order_are_refused_by_the_constructor() -> None:
    with pytest.raises(ValueError, match=r"must be \[lowest, highest\], not \[1.0, 0.5\]"):
        Augment(scale=(1.0, 0.5))


@pytest.mark.parametrize(("height", "width"), [(90, 160), (160, 90), (91, 160)])
@pytest.mark.parametrize("rotated", ["frame", "crop"])
def test_padding_equals_black_bars_in_the_file(height: int, width: int, rotated: Any) -> None:
    frames, boxes = _smooth(2, height, width), torch.tensor([[3.0, 5.0, 60.0, 80.0], [0.0, 0.0, width, height]])
    above, left = (160 - height + 1) // 2, (160 - width + 1) // 2
    square = torch.zeros(2, 160, 160, 3, dtype=torch.uint8)
    square[:, above : above + height, left : left + width] = frames
    there = boxes + torch.tensor([left, above, left, above])
    options: dict[str, Any] = {"size": 80, "scale": (0.6, 1.0), "rotated": rotated, "rotation": 20.0}
    pairs = [(CenterCrop(size=80, scale=1.0, padded=True), CenterCrop(size=80, scale=1.0))]
    pairs += [(Augment(**options, padded=True), Augment(**options))]  # type: ignore[list-item]
    for padded, plain in pairs:
        for seed in range(5):
            video, moved, _ = padded(frames, generator(seed), boxes)
            expected, moved_there, _ = plain(square, generator(seed), there)
            assert _psnr(video, expected) > 27
            assert moved is not None
            assert moved_there is not None
            torch.testing.assert_close(moved, moved_there)


def test_a_padded_frame_is_seen_whole() -> None:
    video, boxes, _ = CenterCrop(size=64, scale=1.0, padded=True)(
        torch.full((1, 45, 80, 3), 200, dtype=torch.uint8), generator(0), torch.tensor([[0.0, 0.0, 80.0, 45.0]])
    )
    assert boxes is not None
    assert boxes[0].tolist() == pytest.approx([0, 14.4, 64, 50.4], abs=0.5)
    assert (video[:, 0, 17:48] == 200).all()
    assert (video[:, 0, :13] == 0).all()
