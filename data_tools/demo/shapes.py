"""Draw smooth shapes on all frames of a clip at once.

A shape is a signed distance function in units of the frame's side (x to the right, y down, the frame is 0..1), so it
is independent of the resolution and antialiased without supersampling. Leading axis F: frames, or 1 for a static
shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]  # float, or bool where a docstring says so
Distance = Callable[[Array, Array], Array]

OUTLINE = 0.011  # one pixel at size 96: keeps small objects visible on any background


@dataclass(frozen=True)
class Shape:
    """A filled outline.

    Args:
        distance: maps x ``[F, 1, w]``, y ``[F, h, 1]`` to the distance ``[F, h, w]`` from the edge, negative inside.
        box: bounding box ``[F, 4]``, x0, y0, x1, y1.
    """

    distance: Distance
    box: Array


def capsule(a: Array, b: Array, radius_a: Array | float, radius_b: Array | float) -> Shape:
    """Return a stroke from ``a`` ``[F, 2]`` to ``b`` with round ends and a linearly changing radius."""
    a, b = np.broadcast_arrays(a, b)
    radii_a, radii_b = (np.broadcast_to(radius, len(a)) for radius in (radius_a, radius_b))
    ax, ay, dx, dy = map(_column, (a[:, 0], a[:, 1], b[:, 0] - a[:, 0], b[:, 1] - a[:, 1]))
    start, growth = _column(radii_a), _column(radii_b - radii_a)
    length = np.maximum(dx * dx + dy * dy, np.float32(1e-12))

    def distance(x: Array, y: Array) -> Array:
        px, py = x - ax, y - ay
        along = np.clip((px * dx + py * dy) / length, 0, 1)
        edge: Array = np.hypot(px - along * dx, py - along * dy) - (start + along * growth)
        return edge

    reach_a, reach_b = radii_a[:, None], radii_b[:, None]
    low, high = np.minimum(a - reach_a, b - reach_b), np.maximum(a + reach_a, b + reach_b)
    return Shape(distance, np.concatenate([low, high], axis=1))


def ellipse(centre: Array, radii: Array, ring: Array | float | None = None) -> Shape:
    """Return an ellipse around ``centre`` ``[F, 2]``, or with ``ring`` only its outline of that half width."""
    centre, radii = np.broadcast_arrays(centre, radii)
    width = None if ring is None else np.broadcast_to(ring, len(centre))
    cx, cy, rx, ry = map(_column, (centre[:, 0], centre[:, 1], radii[:, 0], radii[:, 1]))

    def distance(x: Array, y: Array) -> Array:
        px, py = (x - cx) / rx, (y - cy) / ry
        level = np.hypot(px, py)
        # First-order distance; its zero set is exactly the ellipse.
        edge: Array = level * (level - 1) / np.maximum(np.hypot(px / rx, py / ry), np.float32(1e-6))
        return edge if width is None else np.abs(edge) - _column(width)

    reach = radii if width is None else radii + width[:, None]
    return Shape(distance, np.concatenate([centre - reach, centre + reach], axis=1))


def polygon(points: Array, rounding: Array | float = 0.0) -> Shape:
    """Return the convex polygon through ``points`` ``[F, K, 2]``, grown by ``rounding`` with round corners."""
    grown = np.broadcast_to(rounding, len(points))
    corners = [(_column(points[:, k, 0]), _column(points[:, k, 1])) for k in range(points.shape[1])]
    edges = list(zip(corners, corners[1:] + corners[:1], strict=True))

    def distance(x: Array, y: Array) -> Array:
        nearest: Array = np.full((), np.inf, dtype=np.float32)
        sides = []
        for (ax, ay), (bx, by) in edges:
            px, py, dx, dy = x - ax, y - ay, bx - ax, by - ay
            along = np.clip((px * dx + py * dy) / np.maximum(dx * dx + dy * dy, np.float32(1e-12)), 0, 1)
            squared = (px - along * dx) ** 2 + (py - along * dy) ** 2
            nearest = np.minimum(nearest, squared)
            sides.append(dx * py - dy * px > 0)
        inside = np.logical_and.reduce(sides) | ~np.logical_or.reduce(sides)
        return np.where(inside, -1, 1) * np.sqrt(nearest) - _column(grown)

    low, high = points.min(axis=1) - grown[:, None], points.max(axis=1) + grown[:, None]
    return Shape(distance, np.concatenate([low, high], axis=1))


@dataclass(frozen=True)
class Part:
    """A shape with its colour and shading.

    Args:
        shape: the area.
        colour: RGB in 0..1, ``[3]`` or ``[F, 3]``.
        opacity: 0..1, a number or ``[F]``.
        softness: width of a blurred edge; 0 is a sharp edge with a dark outline.
        shade: how much darker the lower edge is than the upper one.
    """

    shape: Shape
    colour: Array
    opacity: Array | float = 1.0
    softness: float = 0.0
    shade: float = 0.2

    @property
    def solid(self) -> bool:
        """Whether it is part of the object's body, not a shadow or glow."""
        return self.softness == 0

    @property
    def box(self) -> Array:
        """Bounding box ``[F, 4]``, x0, y0, x1, y1, including the outline or the blurred edge."""
        reach = OUTLINE if self.solid else self.softness / 2
        box: Array = self.shape.box + np.array([-reach, -reach, reach, reach])
        return box


def solid_box(parts: Iterable[Part]) -> Array:
    """Return the bounding box ``[F, 4]`` of the solid parts."""
    boxes = np.broadcast_arrays(*(part.box for part in parts if part.solid))
    return np.concatenate([np.min(boxes, axis=0)[:, :2], np.max(boxes, axis=0)[:, 2:]], axis=1)


@dataclass(frozen=True)
class Canvas:
    """Float frames to paint on, with a margin around the frame for the camera to move in.

    Args:
        pixels: ``[F, P, P, 3]`` with P = ``size`` + 2 ``margin``, changed in place.
        size: width and height of the frame in pixels.
        margin: pixels on each side of it.
    """

    pixels: npt.NDArray[np.float32]
    size: int
    margin: int

    def paint(self, parts: Iterable[Part]) -> None:
        """Paint the parts over the canvas in order."""
        for part in parts:
            index, y, coverage, fill = self._cover(part)
            below = self.pixels[index]
            low, high = _column(part.box[:, 1]), _column(part.box[:, 3])
            tone = (1 - part.shade * ((y - low) / (high - low) - 0.5)) * (0.4 + 0.6 * fill)
            colour = np.atleast_2d(part.colour)[:, None, None].astype(np.float32)
            weight = coverage * _column(np.atleast_1d(part.opacity))
            self.pixels[index] = below + weight[..., None] * (colour * tone[..., None] - below)

    def _cover(self, part: Part) -> tuple[Any, Array, Array, Array]:
        """Return the index of the window around a part, its y coordinates, and coverage with and without outline."""
        count, side = self.pixels.shape[:2]
        box = np.clip(part.box * self.size + self.margin, 0, side)
        extent = np.minimum(np.ceil((box[:, 2:] - box[:, :2]).max(axis=0)).astype(int) + 2, side)
        corner = np.clip(np.floor(box[:, :2]).astype(int) - 1, 0, side - extent)
        columns = (corner[:, :1] + np.arange(extent[0]))[:, None, :]
        rows = (corner[:, 1:] + np.arange(extent[1]))[:, :, None]
        x, y = (((pixel + 0.5 - self.margin) / self.size).astype(np.float32) for pixel in (columns, rows))
        distance = part.shape.distance(x, y)
        if part.solid:
            coverage = np.clip(0.5 - (distance - OUTLINE) * self.size, 0, 1)
            fill = np.clip(0.5 - distance * self.size, 0, 1)
        else:
            coverage = fill = np.clip(0.5 - distance / part.softness, 0, 1)
            fill = np.ones_like(coverage)
        return (np.arange(count)[:, None, None], rows, columns), y, coverage, fill


def _column(values: Array) -> npt.NDArray[np.float32]:
    """Return values ``[F]`` as float32 ``[F, 1, 1]``, to broadcast against pixels."""
    return values[:, None, None].astype(np.float32)
