"""Draw boxes, lines between pairs and labels into frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from hoi_train.core.palette import ORANGE, SKY, rgb

Corners = tuple[float, float, float, float]
Colour = tuple[int, int, int]
Picture = npt.NDArray[np.uint8]

PERSON, OBJECT = rgb(ORANGE), rgb(SKY)
WHITE, BLACK, SHADE = (255, 255, 255), (0, 0, 0), (0, 0, 0, 170)
SHORTEST = 240  # pixels of the short side in which words can be read; smaller frames are enlarged
LETTERS = 24  # height of the picture over that of the letters, from 264 pixels on
SMALLEST = 11


@dataclass(frozen=True)
class Box:
    """A person or object with its name, in pixels of the frame."""

    corners: Corners
    label: str
    is_person: bool


@dataclass(frozen=True)
class Link:
    """The boxes of a person and an object, and the words beside the line between them."""

    person: Corners
    object_box: Corners
    words: tuple[str, ...]


def enlargement(height: int, width: int) -> int:
    """Return the whole number by which ``draw`` enlarges frames of a size."""
    return max(1, math.ceil(SHORTEST / min(height, width)))


def draw(frame: Picture, boxes: Sequence[Box] = (), links: Sequence[Link] = (), corner: Sequence[str] = ()) -> Picture:
    """Return a frame with boxes, links, and lines of text in its upper left corner.

    Args:
        frame: uint8 ``[H, W, 3]``, RGB.
        boxes: persons orange, objects blue.
        links: white.
        corner: lines of text.

    Returns:
        uint8 ``[kH, kW, 3]`` with k from ``enlargement``.
    """
    factor = enlargement(*frame.shape[:2])
    size = (frame.shape[1] * factor, frame.shape[0] * factor)
    sheet = _Sheet(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC), factor)
    if corner:
        sheet.write(corner, [(0.0, 0.0)], WHITE, SHADE)
    boxes = [replace(box, corners=_cut(box.corners, frame)) for box in boxes]
    links = [replace(link, person=_cut(link.person, frame), object_box=_cut(link.object_box, frame)) for link in links]
    for box in sorted(boxes, key=lambda box: box.is_person):
        sheet.outline(box.corners, PERSON if box.is_person else OBJECT)
    for link in links:
        sheet.line(_middle(link.person), _middle(link.object_box))
    for box in boxes:
        sheet.name(box)
    for link in links:
        sheet.label(link)
    return np.asarray(sheet.image, dtype=np.uint8)


class _Sheet:
    """A picture being drawn on, and the places taken by words."""

    def __init__(self, image: Image.Image, factor: int) -> None:
        self.image, self.factor = image, factor
        self.pen = ImageDraw.Draw(image, "RGBA")
        short = min(image.size)
        self.font, self.width = _font(max(SMALLEST, short // LETTERS)), max(2, short // 180)
        self.taken: list[Corners] = []

    def outline(self, corners: Corners, colour: Colour) -> None:
        x0, y0, x1, y1 = (value * self.factor for value in corners)
        for colour_, width in ((BLACK, self.width + 2), (colour, self.width)):  # a dark rim, for bright frames
            self.pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=colour_, width=width)

    def line(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        points = [value * self.factor for value in (*start, *end)]
        self.pen.line(points, fill=BLACK, width=self.width + 2)
        self.pen.line(points, fill=WHITE, width=self.width)

    def name(self, box: Box) -> None:
        x0, y0, x1, y1 = (value * self.factor for value in box.corners)
        width, height = self.extent([box.label])
        places = [(x0, y0 - height), (x0, y1), (x1 - width, y0 - height), (x1 - width, y1), (x0, y0), (x1, y0)]
        self.write([box.label], places, BLACK, PERSON if box.is_person else OBJECT)

    def label(self, link: Link) -> None:
        width, height = self.extent(link.words)
        (a, b), (c, d) = ((value * self.factor for value in _middle(box)) for box in (link.person, link.object_box))
        along = [(a + (c - a) * part - width / 2, b + (d - b) * part - height / 2) for part in (0.5, 0.65, 0.8, 1.0)]
        beside = [
            (x + across * width, y + down * height)
            for across, down in ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1), (0, 2), (0, -2))
            for x, y in (along[1],)
        ]
        self.write(link.words, along + beside, WHITE, SHADE)

    def extent(self, lines: Sequence[str]) -> tuple[float, float]:
        """Return the width and height of lines of text with their margins."""
        return max(self.font.getlength(line) for line in lines) + 6, len(lines) * self.step + 2

    @property
    def step(self) -> int:
        ascent, descent = self.font.getmetrics()
        return ascent + descent

    def write(
        self,
        lines: Sequence[str],
        places: Sequence[tuple[float, float]],
        colour: Colour,
        ground: tuple[int, ...],
    ) -> None:
        """Write lines at the place, moved into the picture, that covers the least of earlier words."""
        width, height = self.extent(lines)
        frames = [self._moved_in(x, y, width, height) for x, y in places]
        x, y, right, bottom = chosen = min(frames, key=lambda frame: sum(_overlap(frame, old) for old in self.taken))
        self.taken.append(chosen)
        self.pen.rectangle((x, y, right - 1, bottom - 1), fill=ground)
        for number, line in enumerate(lines):
            self.pen.text((x + 3, y + 1 + number * self.step), line, fill=colour, font=self.font)

    def _moved_in(self, x: float, y: float, width: float, height: float) -> Corners:
        x, y = (max(0.0, min(v, side - n)) for v, side, n in zip((x, y), self.image.size, (width, height), strict=True))
        return x, y, x + width, y + height


def _cut(box: Corners, frame: Picture) -> Corners:
    """Return the part of a box that the frame shows."""
    height, width = frame.shape[:2]
    return max(0.0, box[0]), max(0.0, box[1]), min(float(width), box[2]), min(float(height), box[3])


def _middle(box: Corners) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _overlap(one: Corners, other: Corners) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, across) * max(0.0, down)


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)
