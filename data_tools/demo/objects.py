"""Draw the objects of the demo set and the hand from a few shapes each.

An object is drawn in its own coordinates, the middle of its lower edge at (0, 0), y negative upwards; a ``Place`` maps
them to the frame. Its state is one number in 0..1: how far it is open or switched on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from data_tools.demo.shapes import Array, Part, Shape, capsule, ellipse, polygon

DARK = np.array([0.13, 0.12, 0.14])
STEEL = np.array([0.62, 0.65, 0.68])
WHITE = np.array([0.95, 0.95, 0.92])
PALETTE = np.array(
    [
        [0.86, 0.33, 0.31],
        [0.95, 0.61, 0.27],
        [0.95, 0.82, 0.40],
        [0.45, 0.70, 0.45],
        [0.33, 0.64, 0.74],
        [0.32, 0.45, 0.74],
        [0.60, 0.44, 0.70],
        [0.90, 0.90, 0.86],
    ]
)


@dataclass(frozen=True)
class Place:
    """Position, scale and orientation of an object in every frame.

    Args:
        foot: middle of its lower edge ``[F, 2]``.
        scale: size ``[F]``, 1 at the front of the table.
        mirror: 1, or -1 for the mirror image.
    """

    foot: Array
    scale: Array
    mirror: int = 1

    def __call__(self, *points: tuple[Array | float, Array | float]) -> Array:
        """Map K points of the object to the frame ``[F, K, 2]``; a coordinate is a number or ``[F]``."""
        flat = [value for point in points for value in point]
        local = np.stack(np.broadcast_arrays(*flat, self.scale)[:-1], axis=1).reshape(-1, len(points), 2)
        local = local * self.scale[:, None, None] * np.array([self.mirror, 1])
        placed: Array = self.foot[:, None] + local
        return placed

    def point(self, x: Array | float, y: Array | float) -> Array:
        """Map one point of the object to the frame ``[F, 2]``."""
        return self((x, y))[:, 0]

    def rectangle(self, x0: float, y0: float, x1: float, y1: float, rounding: float = 0.008) -> Shape:
        """Return an upright rectangle of the object."""
        x0, y0, x1, y1 = x0 + rounding, y0 + rounding, x1 - rounding, y1 - rounding
        return polygon(self((x0, y0), (x1, y0), (x1, y1), (x0, y1)), rounding * self.scale)

    def oval(self, x: float, y: float, rx: float, ry: float, ring: float | None = None) -> Shape:
        """Return an ellipse of the object."""
        radii = self.scale[:, None] * np.array([rx, ry])
        return ellipse(self.point(x, y), radii, None if ring is None else ring * self.scale)

    def shadow(self, half_width: float) -> Part:
        """Return the soft shadow under the object."""
        return Part(self.oval(0, -0.005, half_width, 0.03), DARK, opacity=0.35, softness=0.05)


@dataclass(frozen=True)
class Kind:
    """A kind of object.

    Args:
        draw: maps (place, colour, state ``[F]``) to its parts, in painting order.
        grip: maps (place, state ``[F]``) to the point ``[F, 2]`` that a hand grips.
    """

    draw: Callable[[Place, Array, Array], list[Part]]
    grip: Callable[[Place, Array], Array]


def _cup(at: Place, colour: Array, state: Array) -> list[Part]:
    body = polygon(at((-0.075, -0.17), (0.075, -0.17), (0.055, -0.015), (-0.055, -0.015)), 0.014 * at.scale)
    return [
        at.shadow(0.10),
        Part(at.oval(0.085, -0.105, 0.045, 0.045, ring=0.011), colour),
        Part(body, colour),
        Part(at.oval(0, -0.18, 0.082, 0.02), 0.45 * colour),
    ]


def _bottle(at: Place, colour: Array, state: Array) -> list[Part]:
    return [
        at.shadow(0.09),
        Part(at.rectangle(-0.024, -0.35, 0.024, -0.22), 0.85 * colour),
        Part(at.rectangle(-0.068, -0.25, 0.068, 0, rounding=0.03), colour),
        Part(at.rectangle(-0.03, -0.385, 0.03, -0.345), DARK + 0.1),
        Part(at.rectangle(-0.066, -0.165, 0.066, -0.075), WHITE),
    ]


def _bowl(at: Place, colour: Array, state: Array) -> list[Part]:
    angles = np.linspace(0, np.pi, 9)
    wall = [(0.15 * np.cos(a), -0.12 + 0.115 * np.sin(a)) for a in angles]
    return [
        at.shadow(0.13),
        Part(polygon(at(*wall)), colour, shade=0.4),
        Part(at.oval(0, -0.12, 0.15, 0.036), 0.5 * colour),
    ]


def _box(at: Place, colour: Array, state: Array) -> list[Part]:
    # The lid hangs on the back edge; its front edge swings up and over as it opens.
    lift, spread = -0.15 - 0.24 * state, 0.15 - 0.02 * state
    lid = at((-0.12, -0.21), (0.12, -0.21), (spread, lift), (-spread, lift))
    opening = at((-0.12, -0.21), (0.12, -0.21), (0.15, -0.15), (-0.15, -0.15))
    return [
        at.shadow(0.18),
        Part(polygon(opening), DARK),
        Part(polygon(lid), np.minimum(1.2 * colour, 1)),
        Part(at.rectangle(-0.15, -0.15, 0.15, 0), colour),
        Part(at.rectangle(-0.025, -0.15, 0.025, 0, rounding=0.0), 0.75 * colour),
    ]


def _box_grip(at: Place, state: Array) -> Array:
    return at.point(0, -0.16 - 0.22 * state)


def _drawer(at: Place, colour: Array, state: Array) -> list[Part]:
    wood = _wood(colour)
    out, wide = 0.15 * state, 0.175 + 0.025 * state
    front = at((-wide, -0.285 + out), (wide, -0.285 + out), (wide, -0.165 + 1.2 * out), (-wide, -0.165 + 1.2 * out))
    inside = at((-0.165, -0.28), (0.165, -0.28), (wide - 0.01, -0.27 + out), (0.01 - wide, -0.27 + out))
    return [
        at.shadow(0.26),
        Part(at.rectangle(-0.22, -0.35, 0.22, 0), wood),
        Part(polygon(at((-0.20, -0.40), (0.20, -0.40), (0.23, -0.35), (-0.23, -0.35))), 1.15 * wood),
        Part(at.rectangle(-0.175, -0.145, 0.175, -0.025), 0.9 * wood),
        Part(at.oval(0, -0.085, 0.02, 0.016), STEEL),
        Part(at.rectangle(-0.175, -0.285, 0.175, -0.165), DARK),
        Part(polygon(inside), DARK + 0.12, shade=-0.6),
        Part(polygon(front), np.minimum(1.1 * wood, 1)),
        Part(ellipse(_drawer_grip(at, state), at.scale[:, None] * np.array([0.03, 0.02])), STEEL),
    ]


def _drawer_grip(at: Place, state: Array) -> Array:
    return at.point(0, -0.225 + 0.165 * state)


def _cupboard(at: Place, colour: Array, state: Array) -> list[Part]:
    wood = _wood(colour)
    edge, nearer = _door_edge(state), 0.05 * np.sin(1.9 * state)
    door = at((-0.17, -0.40), (edge, -0.40 - nearer), (edge, -0.04 + nearer), (-0.17, -0.04))
    return [
        at.shadow(0.25),
        Part(at.rectangle(-0.21, -0.44, 0.21, 0), wood),
        Part(at.rectangle(-0.17, -0.40, 0.17, -0.04), DARK),
        Part(at.rectangle(-0.17, -0.23, 0.17, -0.21, rounding=0.0), 0.6 * wood),
        Part(at.rectangle(-0.12, -0.33, -0.05, -0.23), STEEL),
        Part(at.rectangle(0.02, -0.15, 0.12, -0.04), STEEL),
        Part(polygon(door), np.minimum(1.15 * wood, 1)),
        Part(ellipse(_cupboard_grip(at, state), at.scale[:, None] * np.array([0.016, 0.03])), STEEL),
    ]


def _door_edge(state: Array) -> Array:
    return -0.17 + 0.34 * np.cos(1.9 * state)  # seen from the front, a door that turns by up to 109 degrees


def _cupboard_grip(at: Place, state: Array) -> Array:
    hinge = -0.17
    return at.point(hinge + 0.88 * (_door_edge(state) - hinge), -0.20)


def _lamp(at: Place, colour: Array, state: Array) -> list[Part]:
    shade = polygon(at((-0.075, -0.41), (0.075, -0.41), (0.13, -0.25), (-0.13, -0.25)), 0.012 * at.scale)
    return [
        at.shadow(0.14),
        Part(capsule(at.point(0, -0.04), at.point(0, -0.26), 0.014 * at.scale, 0.014 * at.scale), STEEL),
        Part(at.rectangle(-0.11, -0.07, 0.11, 0, rounding=0.03), 0.8 * colour),
        Part(at.oval(0.0, -0.038, 0.026, 0.02), PALETTE[0]),
        Part(shade, _glow(0.55 * colour, state, [1.0, 0.95, 0.68])),
        Part(at.oval(0, -0.33, 0.14, 0.14), np.array([1.0, 0.93, 0.6]), opacity=0.6 * state, softness=0.26),
    ]


def _stove(at: Place, colour: Array, state: Array) -> list[Part]:
    top = at((-0.19, -0.25), (0.19, -0.25), (0.23, -0.10), (-0.23, -0.10))
    heat = [1.0, 0.40, 0.12]
    return [
        at.shadow(0.26),
        Part(at.rectangle(-0.23, -0.11, 0.23, 0), 0.6 * STEEL + 0.3 * colour),
        Part(polygon(top), DARK + 0.08),
        Part(at.oval(0, -0.175, 0.13, 0.052), _glow(DARK + 0.16, 0.75 * state, heat)),
        Part(at.oval(0, -0.175, 0.08, 0.03, ring=0.007), _glow(DARK + 0.05, state, [1.0, 0.75, 0.3])),
        Part(at.oval(0, -0.055, 0.032, 0.028), WHITE),
        Part(at.oval(0, -0.19, 0.16, 0.08), np.array(heat), opacity=0.45 * state, softness=0.14),
    ]


def _tray(at: Place, colour: Array, state: Array) -> list[Part]:
    return [
        at.shadow(0.22),
        Part(at.oval(0, -0.05, 0.22, 0.055), colour),
        Part(at.oval(0, -0.055, 0.18, 0.038), 0.8 * colour),
    ]


def _wood(colour: Array) -> Array:
    return 0.6 * np.array([0.74, 0.54, 0.36]) + 0.3 * colour


def _glow(cold: Array, state: Array, hot: list[float]) -> Array:
    colour: Array = cold + state[:, None] * (np.array(hot) - cold)
    return colour


def _at_height(y: float) -> Callable[[Place, Array], Array]:
    return lambda at, state: at.point(0, y)


KINDS: Mapping[str, Kind] = {
    "cup": Kind(_cup, _at_height(-0.06)),
    "bottle": Kind(_bottle, _at_height(-0.10)),
    "bowl": Kind(_bowl, _at_height(-0.05)),
    "box": Kind(_box, _box_grip),
    "drawer": Kind(_drawer, _drawer_grip),
    "cupboard": Kind(_cupboard, _cupboard_grip),
    "lamp": Kind(_lamp, _at_height(-0.038)),
    "stove": Kind(_stove, _at_height(-0.055)),
    "tray": Kind(_tray, _at_height(-0.03)),
}
NOUNS = tuple(KINDS)


def draw_hand(tip: Array, elbow: Array, closed: Array, skin: Array, thumb: int) -> list[Part]:
    """Return the parts of the hand: palm, thumb and four fingers; the person's box encloses them.

    Args:
        tip: tip of the fingers ``[F, 2]``.
        elbow: origin of the arm ``[F, 2]`` or ``[1, 2]``.
        closed: bending of the fingers ``[F]``, 0..1.
        skin: RGB.
        thumb: side of the thumb, 1 or -1.
    """
    forward, side = _directions(tip, elbow)
    length = (0.145 - 0.055 * closed)[:, None]
    knuckles = tip - forward * length

    def at(ahead: float, across: float) -> Array:
        return knuckles + forward * ahead + side * (across * thumb)

    spread = (1.5 - 0.6 * closed)[:, None]
    fingers = []
    for across, share in ((-0.060, 0.74), (-0.020, 0.98), (0.020, 1.0), (0.060, 0.88)):
        end = knuckles + forward * (length * share) + side * (across * thumb * spread)
        fingers.append(Part(capsule(at(-0.02, across), end, 0.023, 0.020), skin))
    palm = np.stack([at(0, -0.062), at(0, 0.062), at(-0.115, 0.044), at(-0.115, -0.044)], axis=1)
    thumb_tip = at(0.0, 0.0) + side * (thumb * (0.145 - 0.045 * closed)[:, None]) + forward * (0.03 + 0.3 * length)
    return [
        *fingers,
        Part(polygon(palm, 0.022), skin, shade=0.0),
        Part(capsule(at(-0.09, 0.05), thumb_tip, 0.029, 0.022), skin),
    ]


def draw_arm(tip: Array, elbow: Array, skin: Array, sleeve: Array) -> list[Part]:
    """Return the parts of forearm and sleeve, painted under the hand and not part of the person's box."""
    forward, _ = _directions(tip, elbow)
    wrist, cuff = tip - 0.23 * forward, tip - 0.40 * forward
    end = tip - 1.6 * forward
    return [
        Part(capsule(wrist, cuff, 0.056, 0.066), skin, shade=0.0),
        Part(capsule(cuff, end, 0.085, 0.2), sleeve, shade=0.0),
    ]


def _directions(tip: Array, elbow: Array) -> tuple[Array, Array]:
    forward = tip - elbow
    forward = forward / np.linalg.norm(forward, axis=1, keepdims=True)
    return forward, np.stack([-forward[:, 1], forward[:, 0]], axis=1)
