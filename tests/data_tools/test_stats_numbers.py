"""Numbers made from class counts, against their definitions and known values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_tools.stats.numbers import by_count, gini, imbalance, jensen_shannon, share_ratios, shots, spread

COUNTS = st.lists(st.integers(0, 10**6), min_size=1, max_size=30)


@given(COUNTS)
def test_gini_is_the_mean_difference_over_twice_the_mean(counts: list[int]) -> None:
    values = np.array(counts, float)
    found = gini(counts)
    if not values.sum():
        assert math.isnan(found)
        return
    assert found == pytest.approx(np.abs(values[:, None] - values).mean() / (2 * values.mean()), abs=1e-9)
    assert found == pytest.approx(gini([3 * count for count in counts]), abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=20))
def test_jensen_shannon_is_a_symmetric_divergence(pairs: list[tuple[int, int]]) -> None:
    one, other = ([pair[k] for pair in pairs] for k in (0, 1))
    found = jensen_shannon(one, other)
    if not (sum(one) and sum(other)):
        assert math.isnan(found)
        return
    assert -1e-12 <= found <= 1 + 1e-12
    assert found == pytest.approx(jensen_shannon(other, one), abs=1e-12)
    first, second = np.array(one) / sum(one), np.array(other) / sum(other)

    def entropy(shares: np.ndarray) -> float:
        held = shares[shares > 0]
        return -float(held @ np.log2(held))

    expected = entropy((first + second) / 2) - (entropy(first) + entropy(second)) / 2
    assert found == pytest.approx(expected, abs=1e-9)


@given(COUNTS)
def test_every_class_is_of_one_kind(counts: list[int]) -> None:
    assert sum(shots(counts).values()) == len(counts)


def test_known_values() -> None:
    assert imbalance([0, 4, 100]) == 25
    assert math.isnan(imbalance([0, 0]))
    assert shots([101, 100, 20, 19, 1, 0]) == {"many": 1, "medium": 2, "few": 2, "none": 1}
    assert share_ratios([8, 2, 0], [0, 5, 5])[:2].tolist() == [0, 2.5]
    assert math.isnan(share_ratios([8, 2, 0], [0, 5, 5])[2])
    assert by_count({"train": (1, 2, 2), "val": (9, 0, 0)}) == [1, 2, 0]
    assert spread([]) is None
    assert spread([1, 2, 6]) == {"min": 1, "median": 2, "mean": 3, "max": 6}
