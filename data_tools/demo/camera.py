"""Render a scene of the demo set, with camera motion, changing light and noise, and its ground truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data_tools.demo.objects import PALETTE
from data_tools.demo.scene import Scene, SceneObject
from data_tools.demo.shapes import Array, Canvas, solid_box

TREMOR = 0.012  # the camera moves by at most this much, in units of the frame's side


@dataclass(frozen=True)
class FilmedObject:
    """Ground truth of an object in every frame.

    Args:
        kind: noun class.
        box: ``[F, 4]`` in pixels, not clipped to the frame.
        touched, held: bool ``[F]``, whether the hand touches it, and grips it.
    """

    kind: str
    box: Array
    touched: Array
    held: Array


@dataclass(frozen=True)
class Film:
    """Frames with their ground truth.

    Args:
        frames: RGB uint8 ``[F, S, S, 3]``.
        hand: box of the hand ``[F, 4]`` in pixels, not clipped to the frame.
        tracks: the objects, the target of the action first.
    """

    frames: npt.NDArray[np.uint8]
    hand: Array
    tracks: tuple[FilmedObject, ...]

    def reversed(self) -> Film:
        """Return the film played backwards."""
        tracks = (FilmedObject(t.kind, t.box[::-1], t.touched[::-1], t.held[::-1]) for t in self.tracks)
        return Film(self.frames[::-1], self.hand[::-1], tuple(tracks))


def film(scene: Scene, size: int, rng: np.random.Generator) -> Film:
    """Render a scene at ``size`` × ``size`` pixels."""
    count = scene.num_frames
    camera = TREMOR * size * np.stack([_wave(rng, count), _wave(rng, count)], axis=1)
    margin = int(np.ceil(TREMOR * size)) + 1
    side = size + 2 * margin
    table = Canvas(_backdrop(rng, side), size, margin)
    for item in scene.still:
        table.paint(item.parts)
    canvas = Canvas(np.repeat(table.pixels, count, axis=0), size, margin)
    for parts in (scene.target.parts, scene.arm, scene.hand):
        canvas.paint(parts)
    frames = _expose(_move(canvas, camera), rng)

    def seen(box: Array) -> Array:
        return np.broadcast_to(box * size, (count, 4)) + np.tile(camera, 2)

    def track(item: SceneObject) -> FilmedObject:
        touched, held = (np.broadcast_to(flags, count) for flags in (item.touched, item.held))
        return FilmedObject(item.kind, seen(solid_box(item.parts)), touched, held)

    return Film(frames, seen(solid_box(scene.hand)), tuple(map(track, (scene.target, *scene.still))))


def _wave(rng: np.random.Generator, count: int) -> Array:
    """Return a slow sine wave ``[F]`` in -1..1."""
    cycles, phase = rng.uniform(0.4, 1.6), rng.uniform(0, 2 * np.pi)
    return np.sin(2 * np.pi * cycles * np.linspace(0, 1, count) + phase)


def _backdrop(rng: np.random.Generator, side: int) -> npt.NDArray[np.float32]:
    """Return the background ``[1, P, P, 3]``: a table of planks with grain, and a wall that is lighter at the top."""
    y, x = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side), indexing="ij")
    edge = rng.uniform(0.28, 0.40)
    wood = np.array([0.80, 0.66, 0.50]) * rng.uniform(0.6, 1.05) + rng.uniform(-0.06, 0.06, 3)
    wall = 0.35 * PALETTE[rng.integers(len(PALETTE))] + rng.uniform(0.35, 0.55)
    # Planks converge to a vanishing point above the table.
    across = (x - 0.5) / (0.4 + y)
    plank = np.floor(rng.uniform(6, 10) * across + rng.uniform())
    grain = 1 + 0.05 * np.sin(12.9898 * plank + rng.uniform(0, 6)) + 0.015 * np.sin(40 * across + 9 * y)
    boards = grain[..., None] * wood * (0.85 + 0.25 * y[..., None])
    paint = wall * (1.05 - 0.3 * y[..., None])
    return np.where(y[..., None] > edge, boards, paint)[None].astype(np.float32)


def _move(canvas: Canvas, camera: Array) -> npt.NDArray[np.float32]:
    """Crop the frames ``[F, S, S, 3]`` from the canvas, shifted by ``camera`` pixels ``[F, 2]``, bilinearly."""
    corner = canvas.margin - camera
    whole = np.floor(corner).astype(int)
    part = (corner - whole).astype(np.float32)
    frames = np.empty((len(camera), canvas.size, canvas.size, 3), dtype=np.float32)
    for frame, pixels, (x, y), (right, down) in zip(frames, canvas.pixels, whole, part, strict=True):
        cut = pixels[y : y + canvas.size + 1, x : x + canvas.size + 1]
        rows = cut[:-1] + down * (cut[1:] - cut[:-1])
        frame[:] = rows[:, :-1] + right * (rows[:, 1:] - rows[:, :-1])
    return frames


def _expose(frames: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Apply, in place, directional light that changes over time, its tint, and sensor noise; return uint8 frames."""
    count, size = frames.shape[:2]
    axis = np.linspace(-1, 1, size)
    slope = rng.uniform(-0.15, 0.15, 2)
    window = 1 + slope[0] * axis[None, :] + slope[1] * axis[:, None]
    level = rng.uniform(0.75, 1.1) * (1 + rng.uniform(0, 0.12) * _wave(rng, count))
    light = (level[:, None, None] * window).astype(np.float32)
    tint = rng.uniform(0.94, 1.06, 3).astype(np.float32)
    noise = rng.standard_normal((count, size, size), dtype=np.float32) * np.float32(rng.uniform(0.008, 0.02))
    # In place: each step would otherwise allocate another array of this size.
    frames *= 255 * tint
    frames *= light[..., None]
    frames += 255 * noise[..., None] + np.float32(0.5)
    return np.clip(frames, 0, 255, out=frames).astype(np.uint8)
