"""Affine maps of pictures and boxes, applied to all frames of a clip in one resampling.

A map is a 3×3 float64 matrix that takes ``(x, y, 1)`` in the frame to the output. Pixel i covers ``[i, i + 1)``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor

Matrix = npt.NDArray[np.float64]

# Corners of a crop are whole pixels up to this rounding error.
ROUNDING = 1e-6


class Region(NamedTuple):
    """A rectangle of whole pixels, ``x1`` and ``y1`` exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.y1 - self.y0

    @property
    def center(self) -> tuple[float, float]:
        """Its middle ``(x, y)``."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2


def shift(x: float, y: float) -> Matrix:
    """Return the map that moves by ``(x, y)``."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)


def stretch(x: float, y: float) -> Matrix:
    """Return the map that multiplies x and y."""
    return np.diag([x, y, 1.0])


def rotate(degrees: float, center: tuple[float, float]) -> Matrix:
    """Return the counter-clockwise rotation (as seen, y pointing down) about a point."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1]])
    x, y = center
    return np.asarray(shift(x, y) @ turn @ shift(-x, -y))


def fill(crop: Region, size: int) -> Matrix:
    """Return the map that makes a region fill a square of ``size`` pixels."""
    return stretch(size / crop.width, size / crop.height) @ shift(-crop.x0, -crop.y0)


def resample(frames: Tensor, matrix: Matrix, size: int, visible: Region) -> Tensor:
    """Resample frames to the output square, reading only the pixels that are needed.

    Shrinking averages (antialiased, on uint8); a rotation is then one bilinear resampling of the small picture.

    Args:
        frames: uint8 ``[T, H, W, 3]``.
        matrix: from the frame to the square; without shear.
        size: side S of the square.
        visible: what lies outside this part of the frame is black.

    Returns:
        uint8 ``[T, S, S, 3]``.
    """
    inverse: Matrix = np.linalg.inv(matrix).astype(np.float64)
    scales = np.minimum(1.0, np.hypot(matrix[:2, 0], matrix[:2, 1]))  # output pixels per frame pixel, across and down
    upright = matrix[0, 1] == 0 and matrix[1, 0] == 0
    box = _touched(inverse, size, visible, 0 if upright else math.ceil(2 / scales.min()))
    if box is None:
        return torch.zeros(len(frames), size, size, 3, dtype=torch.uint8)
    part = frames[:, box.y0 : box.y1, box.x0 : box.x1]
    if upright and np.allclose(abs(np.diag(matrix))[:2] * (box.width, box.height), size):  # the box fills the square
        shown = _resize(part, size, size)
        flipped = [axis for axis, factor in ((2, matrix[0, 0]), (1, matrix[1, 1])) if factor < 0]
        return shown.flip(flipped) if flipped else shown
    width, height = (max(1, round(n * s)) for n, s in zip((box.width, box.height), scales, strict=True))
    if (width, height) != (box.width, box.height):
        part = _resize(part, height, width)
    there = stretch(width / box.width, height / box.height) @ shift(-box.x0, -box.y0) @ inverse
    return _sample(part, there, size)


def move_boxes(boxes: Tensor, matrix: Matrix, size: int) -> Tensor:
    """Return the boxes around mapped boxes, cut to the output square.

    Args:
        boxes: floating ``[N, 4]``, ``x0, y0, x1, y1`` in pixels of the frame.
        matrix: from the frame to the square.
        size: side S of the square.

    Returns:
        ``[N, 4]`` in ``0..S``; a box that left the square has no area.
    """
    x, y = boxes[:, [0, 2, 0, 2]], boxes[:, [1, 1, 3, 3]]
    (a, c, e), (b, d, f) = matrix[:2].tolist()
    corners = torch.stack([a * x + c * y + e, b * x + d * y + f], dim=-1)
    return torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1).clamp(0, size)


def _touched(inverse: Matrix, size: int, visible: Region, margin: int) -> Region | None:
    """Return the part of the visible region that the output needs, with a margin for interpolation."""
    corners = inverse @ np.array([[0, size, 0, size], [0, 0, size, size], [1, 1, 1, 1]])
    low = np.floor(corners[:2].min(axis=1) + ROUNDING).astype(int) - margin
    high = np.ceil(corners[:2].max(axis=1) - ROUNDING).astype(int) + margin
    box = Region(
        max(int(low[0]), visible.x0),
        max(int(low[1]), visible.y0),
        min(int(high[0]), visible.x1),
        min(int(high[1]), visible.y1),
    )
    return box if box.width > 0 and box.height > 0 else None


def _resize(frames: Tensor, height: int, width: int) -> Tensor:
    from torchvision.transforms.v2.functional import resize

    planes = rearrange(frames, "t h w c -> t c h w")
    shown: Tensor = resize(planes, [height, width], antialias=True)  # fast as it lies in memory
    return rearrange(shown, "t c h w -> t h w c")


def _sample(part: Tensor, there: Matrix, size: int) -> Tensor:
    """Sample pictures at the points that ``there`` gives for the output's pixels, rounded to 1/32 of a pixel."""
    from hoi_train.data.opencv import cv2

    centers = np.arange(size) + 0.5
    x, y = (along * centers[None, :] + down * centers[:, None] + begin - 0.5 for along, down, begin in there[:2])
    places, fractions = cv2.convertMaps(x.astype(np.float32), y.astype(np.float32), cv2.CV_16SC2)  # once for all frames
    shown = np.empty((len(part), size, size, 3), np.uint8)
    for picture, output in zip(part.numpy(), shown, strict=True):
        cv2.remap(picture, places, fractions, cv2.INTER_LINEAR, output)  # black beyond the picture's edge
    return torch.from_numpy(shown)
