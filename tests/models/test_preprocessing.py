"""Preprocessing: every entry by hand."""

from __future__ import annotations

import pytest
import torch

from hoi_train.models.preprocessing import PREPROCESSING, Normalize, Preprocessing

RED, GREEN, BLUE = 200, 100, 50
BY_HAND = {
    "kinetics_2020": [
        (200 / 255 - 0.4345) / 0.2768,
        (100 / 255 - 0.4051) / 0.2713,
        (50 / 255 - 0.3775) / 0.2737,
    ],
    "k3d_2018": [200 - 114.7748, 100 - 107.7354, 50 - 99.4750],
    "cdb_released": [50.0, 100.0, 200.0],
}


def one_colour() -> torch.Tensor:
    return torch.tensor([RED, GREEN, BLUE], dtype=torch.uint8).view(1, 3, 1, 1, 1).expand(2, 3, 4, 5, 5)


@pytest.mark.parametrize("name", PREPROCESSING)
def test_values_by_hand(name: str) -> None:
    video = one_colour()
    result = Normalize(PREPROCESSING[name])(video)
    assert (result.dtype, result.shape) == (torch.float32, video.shape)
    torch.testing.assert_close(result, torch.tensor(BY_HAND[name]).view(1, 3, 1, 1, 1).expand_as(result))
    assert video.equal(one_colour()), "the batch must not change"


@pytest.mark.parametrize("given", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("wanted", [torch.contiguous_format, torch.channels_last_3d])
def test_result_has_the_type_and_the_layout_of_the_module(
    given: torch.memory_format, wanted: torch.memory_format
) -> None:
    video = torch.arange(2 * 3 * 4 * 5 * 5, dtype=torch.uint8).view(2, 3, 4, 5, 5).contiguous(memory_format=given)
    module = Normalize(PREPROCESSING["cdb_released"]).double().to(memory_format=wanted)
    result = module(video)
    assert result.dtype == torch.float64
    assert result.is_contiguous(memory_format=wanted)
    assert result.equal(video.flip(1).double())


def test_nothing_is_added_to_state_dicts() -> None:
    assert Normalize(PREPROCESSING["k3d_2018"]).state_dict() == {}


@pytest.mark.parametrize("wrong", [torch.zeros(2, 3, 4, 5, 5), torch.zeros(2, 4, 3, 5, 5, dtype=torch.uint8)])
def test_anything_but_uint8_rgb_video_is_refused(wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"video must be uint8 \[N, 3, T, H, W\], got torch\.\w+ \(2, "):
        Normalize(PREPROCESSING["k3d_2018"])(wrong)


def test_a_division_by_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="preprocessing 'x': scale and std must be above 0"):
        Preprocessing("x", 1.0, (0.0, 0.0, 0.0), (1.0, 0.0, 1.0), "RGB")
