"""Transforms: crop, rotation, flip and resize in one affine map, the same for all frames of a clip.

Everything stays uint8; the model normalises on its device. Sizes of crops are fractions of the frame's short side, so
a configuration means the same for a data set and for its smaller copy: 0.875 is 112 of 128, 1.0 is 480 of 640×480.
With ``padded`` the frame first becomes a square with black bars, and they are fractions of its long side: 1.0 is all of
a frame of any shape, which is what pairs at its edges need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import copy
from typing import Annotated, Literal, NamedTuple, Protocol

import torch
from annotated_types import Ge, Gt, Le
from einops import rearrange
from pydantic import AfterValidator
from torch import Tensor

from hoi_train.data.affine import Matrix, Region, fill, move_boxes, resample, rotate, shift, stretch

Fraction = Annotated[float, Gt(0), Le(1)]
Positive = Annotated[float, Gt(0)]
Strength = Annotated[float, Ge(0), Le(1)]


def ascending(limits: tuple[float, float]) -> tuple[float, float]:
    """Return a pair of limits as it is; raises ``ValueError`` if the first is above the second."""
    if limits[0] > limits[1]:
        raise ValueError(f"must be [lowest, highest], not {list(limits)}")
    return limits


class Transformed(NamedTuple):
    """The network's input of a clip.

    Args:
        video: uint8 ``[3, T, S, S]``.
        boxes: floating ``[N, 4]``, in pixels of the video, if there were any.
        mirrored: whether left and right have changed places.
    """

    video: Tensor
    boxes: Tensor | None
    mirrored: bool


class Transform(Protocol):
    """Turn a clip's frames into the network's input."""

    def __call__(self, frames: Tensor, generator: torch.Generator, boxes: Tensor | None = None) -> Transformed:
        """Transform frames and boxes.

        Args:
            frames: uint8 ``[T, H, W, 3]``, RGB.
            generator: source of every random choice.
            boxes: floating ``[N, 4]``, ``x0, y0, x1, y1`` in pixels of the frames, if there are any.
        """


class Geometry(NamedTuple):
    """What a draw shows of a frame.

    Args:
        crop: region of the frame, rotated before if the frame is.
        degrees: counter-clockwise rotation.
        mirrored: left and right change places.
    """

    crop: Region
    degrees: float
    mirrored: bool


class Augment:
    """Draw a crop, a rotation, a flip and a colour change for a clip.

    Args:
        size: side S of the network's input.
        scale: side of the crop, drawn between these fractions of the short side. Equal limits with ``ratio`` 1 are the
            random crop; wide ones, say ``[0.5, 1.0]`` with ``ratio`` ``[0.75, 1.333]``, the random resized crop.
        ratio: width over height of the crop, drawn between these limits on a logarithmic scale.
        rotation: the angle is drawn between minus and plus this, in degrees.
        padded: the frame is padded to a square first.
        rotated: ``frame``: the frame is rotated about its centre and then cropped, so that little of the input is
            black; ``crop``: the crop is rotated about its own centre and its corners are black.
        flip: probability of the horizontal flip.
        brightness, contrast, saturation: factors are drawn from 1 minus to 1 plus this.
        hue: shift of the hue, drawn between minus and plus this share of the colour circle.
    """

    def __init__(
        self,
        *,
        size: Annotated[int, Ge(1)] = 112,
        scale: Annotated[tuple[Fraction, Fraction], AfterValidator(ascending)] = (0.875, 0.875),
        ratio: Annotated[tuple[Positive, Positive], AfterValidator(ascending)] = (1.0, 1.0),
        padded: bool = False,
        rotation: Annotated[float, Ge(0), Le(180)] = 10.0,
        rotated: Literal["frame", "crop"] = "frame",
        flip: Strength = 0.5,
        brightness: Strength = 0.0,
        contrast: Strength = 0.0,
        saturation: Strength = 0.0,
        hue: Annotated[float, Ge(0), Le(0.5)] = 0.0,
    ) -> None:
        self.size, self.scale, self.ratio, self.padded = size, ascending(scale), ascending(ratio), padded
        self.rotation, self.rotated, self.flip = rotation, rotated, flip
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def __call__(self, frames: Tensor, generator: torch.Generator, boxes: Tensor | None = None) -> Transformed:
        """Augment frames and boxes; see ``Transform``."""
        draws = _draws(generator)
        picture = Region(0, 0, frames.shape[2], frames.shape[1])
        frame = _square(picture) if self.padded else picture
        crop, degrees, mirrored = self._geometry(frame, draws)
        matrix = fill(crop, self.size) @ rotate(degrees, (crop if self.rotated == "crop" else frame).center)
        if mirrored:
            matrix = shift(self.size, 0) @ stretch(-1, 1) @ matrix
        visible = _overlap(crop, picture) if self.rotated == "crop" else picture
        video, moved = _apply(frames, matrix, self.size, visible, boxes)
        coloured = self._colour(rearrange(video, "t h w c -> t c h w"), draws[6:])
        return Transformed(rearrange(coloured, "t c h w -> c t h w"), moved, mirrored)

    def geometry(self, width: int, height: int, generator: torch.Generator) -> Geometry:
        """Return what a call with this generator shows of frames of this size, padded if ``padded``."""
        picture = Region(0, 0, width, height)
        return self._geometry(_square(picture) if self.padded else picture, _draws(generator))

    def _geometry(self, frame: Region, draws: list[float]) -> Geometry:
        degrees = _between(-self.rotation, self.rotation, draws[4])
        return Geometry(self._crop(frame, draws[:4]), degrees, draws[5] < self.flip)

    def _crop(self, frame: Region, draws: list[float]) -> Region:
        side = min(frame.width, frame.height) * _between(*self.scale, draws[0])
        aspect = math.exp(_between(math.log(self.ratio[0]), math.log(self.ratio[1]), draws[1]) / 2)
        width = min(max(1, round(side * aspect)), frame.width)
        height = min(max(1, round(side / aspect)), frame.height)
        return _place(frame, width, height, draws[2], draws[3])

    def _colour(self, video: Tensor, draws: list[float]) -> Tensor:
        from torchvision.transforms.v2 import functional

        steps = (
            (functional.adjust_brightness, 1.0, self.brightness),
            (functional.adjust_contrast, 1.0, self.contrast),
            (functional.adjust_saturation, 1.0, self.saturation),
            (functional.adjust_hue, 0.0, self.hue),
        )
        for (adjust, neutral, strength), draw in zip(steps, draws, strict=True):
            if strength:
                video = adjust(video, _between(neutral - strength, neutral + strength, draw))
        return video


class CenterCrop:
    """Crop the middle square and resize it.

    Args:
        size: side S of the network's input.
        scale: side of the crop as a fraction of the short side.
        padded: the frame is padded to a square first.
    """

    def __init__(self, *, size: Annotated[int, Ge(1)] = 112, scale: Fraction = 0.875, padded: bool = False) -> None:
        self.size, self.scale, self.padded = size, scale, padded
        self._along = 0.5

    def moved(self, along: float) -> CenterCrop:
        """Return the crop moved along the picture's long side: 0 is the left or upper end, 1 the other."""
        moved = copy(self)
        moved._along = along
        return moved

    def __call__(self, frames: Tensor, generator: torch.Generator, boxes: Tensor | None = None) -> Transformed:
        """Crop frames and boxes; nothing is drawn; see ``Transform``."""
        picture = Region(0, 0, frames.shape[2], frames.shape[1])
        frame = _square(picture) if self.padded else picture
        side = max(1, round(min(frame.width, frame.height) * self.scale))
        across, down = (self._along, 0.5) if frame.width >= frame.height else (0.5, self._along)
        crop = _place(frame, side, side, across, down)
        video, moved = _apply(frames, fill(crop, self.size), self.size, picture, boxes)
        return Transformed(rearrange(video, "t h w c -> c t h w"), moved, mirrored=False)


def _draws(generator: torch.Generator) -> list[float]:
    """Return all draws of a clip, used or not, so that switching one off leaves the others unchanged."""
    draws: list[float] = torch.rand(10, generator=generator, dtype=torch.float64).tolist()
    return draws


def _between(low: float, high: float, draw: float) -> float:
    return low + (high - low) * draw


def _place(frame: Region, width: int, height: int, across: float, down: float) -> Region:
    """Return a region of the frame; ``across`` and ``down`` in 0..1 choose evenly among its possible places."""
    x = frame.x0 + min(int(across * (frame.width - width + 1)), frame.width - width)
    y = frame.y0 + min(int(down * (frame.height - height + 1)), frame.height - height)
    return Region(x, y, x + width, y + height)


def _square(picture: Region) -> Region:
    """Return the smallest square around a picture, with it in the middle."""
    side = max(picture.width, picture.height)
    x, y = (picture.width - side) // 2, (picture.height - side) // 2
    return Region(x, y, x + side, y + side)


def _overlap(one: Region, other: Region) -> Region:
    return Region(max(one.x0, other.x0), max(one.y0, other.y0), min(one.x1, other.x1), min(one.y1, other.y1))


def _apply(
    frames: Tensor, matrix: Matrix, size: int, visible: Region, boxes: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    video = resample(frames, matrix, size, visible)
    return video, None if boxes is None else move_boxes(boxes, matrix, size)


TRANSFORMS: Mapping[str, type[Augment] | type[CenterCrop]] = {"augment": Augment, "center_crop": CenterCrop}
