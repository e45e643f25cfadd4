"""Seesaw loss against its formula with the counts so far."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hoi_train.losses.cross_entropy import CrossEntropy
from hoi_train.losses.seesaw import Seesaw
from tests.losses.loss_cases import SINGLE, batch, gradient, training


def slow_seesaw(logits: Tensor, target: Tensor, counts: list[int], p: float, q: float, eps: float) -> list[float]:
    found = []
    for row, y in zip(logits.tolist(), target.tolist(), strict=True):
        scores = [math.exp(z) / sum(math.exp(other) for other in row) for z in row]
        total = 0.0
        for j, z in enumerate(row):
            mitigation = min(1.0, max(counts[j], 1) / max(counts[y], 1)) ** p
            compensation = max(1.0, scores[j] / max(scores[y], eps)) ** q
            total += (1.0 if j == y else mitigation * compensation) * math.exp(z)
        found.append(math.log(total) - row[y])
    return found


@pytest.mark.parametrize(("p", "q"), [(0.8, 2.0), (0.0, 2.0), (0.8, 0.0), (0.0, 0.0)])
def test_seesaw_is_the_formula_with_the_counts_so_far(p: float, q: float) -> None:
    loss, counts = Seesaw(SINGLE, p=p, q=q), [0, 0, 0, 0]
    for logits, target in training("single"):
        counts = [n + int((target == c).sum()) for c, n in enumerate(counts)]
        found = loss(logits, target)
        assert loss.counts.tolist() == counts
        wanted = torch.tensor(slow_seesaw(logits, target, counts, p, q, 0.01), dtype=torch.float64)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)
        if p == q == 0:
            torch.testing.assert_close(found, CrossEntropy(SINGLE)(logits, target))


def test_seesaw_factors_are_constants_in_the_gradient() -> None:
    loss = Seesaw(SINGLE)
    logits, target = batch("single")
    loss(logits, target)
    loss.eval()
    truth = one_hot(target, 4).double()
    n = loss.counts.clamp(min=1).double()
    scores = logits.softmax(1)
    own = scores.gather(1, target[:, None]).clamp(min=0.01)
    factors = torch.where(
        truth == 1, 1, (n / n[target][:, None]).clamp(max=1) ** 0.8 * (scores / own).clamp(min=1) ** 2
    )
    weighed = factors * logits.exp()
    wanted = (weighed / weighed.sum(1, keepdim=True) - truth) / 5
    torch.testing.assert_close(gradient(loss, logits, target), wanted)


def test_seesaw_goes_on_counting_where_float32_would_not() -> None:
    loss = Seesaw(SINGLE)
    loss.counts.fill_(2**24)
    loss(torch.zeros(1, 4), torch.tensor([1]))
    assert loss.counts[1] == 2**24 + 1


@pytest.mark.parametrize("label", [-1, 4])
def test_a_class_id_out_of_range_leaves_seesaw_s_counts_alone(label: int) -> None:
    loss = Seesaw(SINGLE)
    with pytest.raises((IndexError, RuntimeError), match="out of bounds"):
        loss(torch.zeros(2, 4), torch.tensor([0, label]))
    assert loss.counts.sum() == 0
