"""Which clips an epoch draws under each rule, against the papers' probabilities."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hoi_train.data.class_sampling import SAMPLING, class_counts, draw_by_class

IDS = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
HOT = torch.zeros(1000, 3, dtype=torch.bool)
HOT[:900, 0] = HOT[850:950, 1] = HOT[940:950, 2] = True  # 50 clips carry nothing, some two classes


def shares_of(drawn: Tensor | None, labels: Tensor) -> list[float]:
    assert drawn is not None
    return (class_counts(labels[drawn]).double() / len(drawn)).tolist()


@pytest.mark.parametrize(
    ("name", "epoch", "expected"),
    [
        ("class_balanced", 0, [1 / 3, 1 / 3, 1 / 3]),
        ("square_root", 0, [30 / 42.65, 9.487 / 42.65, 3.162 / 42.65]),
        ("progressive", 0, [0.9, 0.09, 0.01]),
        ("progressive", 5, [(0.9 + 1 / 3) / 2, (0.09 + 1 / 3) / 2, (0.01 + 1 / 3) / 2]),
        ("progressive", 10, [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_classes_are_drawn_as_the_paper_says(name: str, epoch: int, expected: list[float]) -> None:
    rule = SAMPLING[name]()
    draws = [rule.draw(IDS, epoch, 11, seed) for seed in range(20)]
    assert all(len(drawn) == len(IDS) for drawn in draws if drawn is not None)
    found = torch.tensor([shares_of(drawn, IDS) for drawn in draws]).mean(0)
    assert found.tolist() == pytest.approx(expected, abs=0.015)  # 20000 draws: three deviations are 0.010


def test_every_clip_of_a_class_comes_before_any_comes_again() -> None:
    drawn = SAMPLING["class_balanced"]().draw(IDS, 0, 1, 0)
    assert drawn is not None
    for class_id, members in ((0, 900), (2, 10)):
        times = torch.bincount(drawn[IDS[drawn] == class_id] - int((class_id > 1) * 990), minlength=members)
        assert times.max() - times.min() <= 1


def test_a_multi_label_clip_is_drawn_through_each_of_its_classes() -> None:
    drawn = draw_by_class(HOT, torch.tensor([0.0, 0.0, 1.0]), seed=0, epoch=0)
    assert set(drawn.tolist()) == set(range(940, 950))
    balanced = SAMPLING["class_balanced"]().draw(HOT, 0, 1, 0)
    assert balanced is not None
    assert HOT[balanced].any(1).all(), "a clip without a label is not drawn by class"
    assert (HOT[balanced, 2].float().mean() > 0.3).item()


def test_a_draw_is_a_function_of_seed_and_epoch_alone() -> None:
    rule = SAMPLING["square_root"]()
    first, state = rule.draw(IDS, 3, 9, 7), torch.get_rng_state()
    torch.rand(5)
    again, other_epoch, other_seed = rule.draw(IDS, 3, 9, 7), rule.draw(IDS, 4, 9, 7), rule.draw(IDS, 3, 9, 8)
    assert torch.equal(first, again)
    assert not torch.equal(first, other_epoch)
    assert not torch.equal(first, other_seed)
    torch.set_rng_state(state)


def test_instances_are_left_to_the_loader() -> None:
    assert SAMPLING["instance"]().draw(IDS, 0, 1, 0) is None


def test_a_class_without_clips_is_never_drawn() -> None:
    drawn = SAMPLING["class_balanced"]().draw(torch.tensor([0, 2, 2]), 0, 1, 0)
    assert drawn is not None
    assert set(drawn.tolist()) <= {0, 1, 2}


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(ValueError, match="no clip of the training split carries a class"):
        SAMPLING["class_balanced"]().draw(torch.zeros(4, 3, dtype=torch.bool), 0, 1, 0)
