"""GHM against a loop over its bins, and what its moving average remembers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hoi_train.losses.bce import BCE
from hoi_train.losses.ghm import GHM, Formula, GradientDensity
from tests.losses.loss_cases import MULTI, SINGLE, batch

FORMULAS: list[Formula] = ["paper", "released"]


def slow_ghm(batches: list[Tensor], bins: int, momentum: float, formula: Formula) -> list[list[float]]:
    """Weigh each batch of norms with the definition, one bin and one norm at a time."""
    average, found = [0.0] * bins, []
    for step, norms in enumerate(batches, start=1):
        members = [[g for g in norms.tolist() if min(int(g * bins), bins - 1) == j] for j in range(bins)]
        for j, of_bin in enumerate(members):
            if of_bin or formula == "paper":
                average[j] = momentum * average[j] + (1 - momentum) * len(of_bin)
        started = 1 - momentum**step if formula == "paper" else 1.0
        regions = bins if formula == "paper" else sum(bool(of_bin) for of_bin in members)
        weights = [len(norms) * started / (s * regions) if s else math.nan for s in average]
        found.append([weights[min(int(g * bins), bins - 1)] for g in norms.tolist()])
    return found


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("momentum", [0.0, 0.75])
@pytest.mark.parametrize("bins", [1, 4, 30])
def test_ghm_weighs_as_a_slow_loop_over_bins(bins: int, momentum: float, formula: Formula) -> None:
    draw = torch.Generator().manual_seed(bins)
    sizes, ceilings = (40, 7, 40, 1), (1.0, 0.5, 1.0, 0.1)  # the second and the last leave bins empty
    batches = [c * torch.rand(n, generator=draw).double() for n, c in zip(sizes, ceilings, strict=True)]
    density = GradientDensity(bins=bins, momentum=momentum, formula=formula).double()
    for norms, wanted in zip(batches, slow_ghm(batches, bins, momentum, formula), strict=True):
        found = density(norms.reshape(-1, 1))[:, 0]
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=0)


def test_ghm_edges_belong_to_the_bin_above_and_the_last_bin_is_closed() -> None:
    density = GradientDensity(bins=4, momentum=0.0)
    density(torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0, 0.9999]))
    assert density.mean_counts.tolist() == [1, 1, 1, 3]


def test_ghm_edges_are_rounded_to_float32_as_in_the_official_code() -> None:
    density = GradientDensity(bins=10, momentum=0.0)
    rounded = torch.tensor(0.1).double()  # 0.1 in float32 is a little more than 0.1
    density(torch.stack([torch.tensor(0.1, dtype=torch.float64), rounded]))
    assert density.mean_counts.tolist()[:2] == [1, 1]


def test_ghm_momentum_starts_without_the_released_factor() -> None:
    norms = torch.rand(50, generator=torch.Generator().manual_seed(0))
    plain = GradientDensity(bins=5, momentum=0.0)(norms)
    torch.testing.assert_close(GradientDensity(bins=5, momentum=0.75)(norms), plain)
    released = GradientDensity(bins=5, momentum=0.75, formula="released")(norms)
    torch.testing.assert_close(released, 4 * plain)  # 1 / (1 - 0.75); all five bins are filled


def test_ghm_forgets_a_bin_that_stays_empty_and_the_released_code_does_not() -> None:
    paper, released = (GradientDensity(bins=2, momentum=0.5, formula=formula) for formula in FORMULAS)
    for density in (paper, released):
        density(torch.tensor([0.9] * 8))
        for _ in range(20):
            density(torch.tensor([0.1] * 8))
    assert paper.mean_counts[1] == 4 / 2**20
    assert released.mean_counts[1] == 4


def test_ghm_of_one_bin_is_bce() -> None:
    for soft in (0.0, 0.1):
        logits, target = batch("multi")
        target = (1 - 2 * soft) * target + soft
        torch.testing.assert_close(GHM(MULTI, bins=1)(logits, target), BCE(MULTI)(logits, target))


def test_ghm_of_a_single_label_task_is_that_of_its_one_hot_labels() -> None:
    logits, target = batch("single")
    wanted = GHM(MULTI)(logits, one_hot(target, 4).double())
    torch.testing.assert_close(GHM(SINGLE)(logits, target), wanted, rtol=0, atol=0)


@pytest.mark.parametrize("formula", FORMULAS)
def test_ghm_in_evaluation(formula: Formula) -> None:
    density = GradientDensity(bins=2, momentum=0.5, formula=formula).eval()
    norms = torch.tensor([0.1, 0.9])
    assert density(norms).tolist() == [1, 1]  # nothing learnt
    density.train()(torch.tensor([0.1] * 6 + [0.9] * 2))
    torch.testing.assert_close(density.eval()(norms), torch.tensor([8 / 12, 8 / 4]))
    density.train()(torch.tensor([]))
    assert density.eval()(norms).isfinite().all()


def test_ghm_in_evaluation_weighs_an_unseen_bin_as_its_first_sample() -> None:
    density = GradientDensity(bins=2, momentum=0.5)
    density(torch.tensor([0.1] * 8))
    assert density.eval()(torch.tensor([0.1, 0.9])).tolist() == [0.5, 8 / (0.5 * 2)]
