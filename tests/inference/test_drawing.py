"""Words in a picture: none is cut off or lies on another, and the colours are those promised."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hoi_train.inference.drawing import OBJECT, PERSON, Box, Link, _overlap, _Sheet, draw, enlargement


def test_small_frames_are_enlarged_until_words_can_be_read() -> None:
    assert [enlargement(*size) for size in ((240, 320), (720, 1280), (96, 96), (239, 500), (48, 64))] == [1, 1, 3, 2, 5]
    assert draw(np.zeros((48, 64, 3), np.uint8)).shape == (240, 320, 3)


def test_a_frame_without_findings_stays_as_it_is() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    assert np.array_equal(draw(frame), frame)


@pytest.mark.parametrize(("is_person", "colour"), [(True, PERSON), (False, OBJECT)])
def test_boxes_have_the_colour_of_their_kind(is_person: bool, colour: tuple[int, int, int]) -> None:
    shown = draw(np.zeros((240, 320, 3), np.uint8), [Box((100, 100, 200, 180), "it 3", is_person)])
    assert (shown[140, 101] == colour).all()
    assert (shown[179 - 1, 150] == colour).all()
    assert not shown[140, 150].any()


def test_words_stay_inside_and_apart() -> None:
    corners = [(2, 2, 60, 80), (20, 30, 90, 100), (250, 180, 319, 239), (120, 0, 200, 30)]
    sheet = _Sheet(Image.new("RGB", (320, 240)), 1)
    sheet.write(["take 0.97"], [(0.0, 0.0)], (255, 255, 255), (0, 0, 0))
    for number, box in enumerate(corners):
        sheet.name(Box(box, f"cupboard {number}", number == 0))
    for box in corners[1:]:
        sheet.label(Link(corners[0], box, ("in_front_of", "next_to")))
    assert len(sheet.taken) == 8
    for number, place in enumerate(sheet.taken):
        assert min(place) >= 0
        assert place[2] <= 320
        assert place[3] <= 240
        assert all(_overlap(place, other) == 0 for other in sheet.taken[:number])
