"""Losses that shift or scale logits by class counts, and the multi-label losses: identities and values by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, softplus

from hoi_train.core.records import ClassCounts
from hoi_train.losses import Loss
from hoi_train.losses.asymmetric import ASL
from hoi_train.losses.bce import BCE
from hoi_train.losses.cross_entropy import CrossEntropy
from hoi_train.losses.distribution_balanced import DistributionBalanced
from hoi_train.losses.focal import Focal
from hoi_train.losses.ldam import LDAM, class_margins
from hoi_train.losses.logit_adjustment import (
    BalancedSoftmax,
    LogitAdjustment,
    as_float32_pair,
    from_float32_pair,
    logit_shift,
)
from hoi_train.losses.two_way import TwoWay
from hoi_train.losses.vs import VS
from hoi_train.losses.weights import ClassWeighting
from hoi_train.losses.zlpr import ZLPR, log_sum_exp
from tests.losses.loss_cases import MULTI, SINGLE, batch, gradient
from tests.losses.test_identities import assert_same

EVEN, EVEN_MULTI = ClassCounts.single([50] * 4), ClassCounts.multi([50] * 4, 100)
IFW = ClassWeighting("inverse")
DB_NEUTRAL = {"alpha": 0.5, "beta": 0.0, "neg_scale": 1.0, "kappa": 0.0, "scale": 1.0}


@pytest.mark.parametrize(
    ("loss", "same"),
    [
        (LogitAdjustment(SINGLE, tau=0.0), CrossEntropy(SINGLE)),
        (LogitAdjustment(SINGLE, tau=0.0, weights=IFW), CrossEntropy(SINGLE, weights=IFW)),
        (LogitAdjustment(EVEN, tau=2.0), CrossEntropy(EVEN)),
        (BalancedSoftmax(EVEN), CrossEntropy(EVEN)),
        (BalancedSoftmax(SINGLE), LogitAdjustment(SINGLE, tau=1.0)),
        (BalancedSoftmax(SINGLE, weights=IFW), LogitAdjustment(SINGLE, tau=1.0, weights=IFW)),
        (VS(SINGLE, gamma=0.0, tau=0.7), LogitAdjustment(SINGLE, tau=0.7)),
        (VS(SINGLE, gamma=0.0, tau=0.0, weights=IFW), CrossEntropy(SINGLE, weights=IFW)),
        (VS(EVEN, gamma=0.5, tau=2.0), CrossEntropy(EVEN)),
    ],
)
def test_single_label_identities(loss: Loss, same: Loss) -> None:
    assert_same(loss, same, "single")


@pytest.mark.parametrize(
    ("loss", "same"),
    [
        (LogitAdjustment(MULTI, tau=0.0), BCE(MULTI)),
        (LogitAdjustment(EVEN_MULTI, tau=2.0), BCE(EVEN_MULTI)),  # every class in half of the samples
        (LogitAdjustment(MULTI, tau=0.0, weights=IFW), BCE(MULTI, weights=IFW)),
        (DistributionBalanced(MULTI, gamma=2.0, **DB_NEUTRAL), Focal(MULTI, gamma=2.0)),
        (DistributionBalanced(MULTI, gamma=0.0, **DB_NEUTRAL), BCE(MULTI)),
    ],
)
def test_multi_label_identities(loss: Loss, same: Loss) -> None:
    assert_same(loss, same, "multi")
    assert_same(loss, same, "multi", soft=True)


@pytest.mark.parametrize("weights", [None, IFW])
@pytest.mark.parametrize("soft", [False, True])
def test_asymmetric_without_asymmetry_is_focal_and_without_focus_bce(
    weights: ClassWeighting | None, soft: bool
) -> None:
    logits, target = batch("multi", num_samples=32)
    target = 0.9 * target + 0.05 if soft else target
    for gamma in (0.0, 2.0):
        loss = ASL(MULTI, gamma_neg=gamma, gamma_pos=gamma, clip=0.0, weights=weights)
        focal = Focal(MULTI, gamma=gamma, weights=weights)
        torch.testing.assert_close(loss(logits, target) / 4, focal(logits, target))  # a sum over classes, not a mean
        torch.testing.assert_close(gradient(loss, logits, target) / logits.numel(), gradient(focal, logits, target))


# --- margins


def test_without_a_margin_ldam_is_cross_entropy() -> None:
    logits, target = batch("single")
    small = LDAM(SINGLE, max_margin=1e-300, scale=30.0)
    torch.testing.assert_close(small(logits, target), CrossEntropy(SINGLE)(logits, target))


def test_ldam_by_hand() -> None:
    loss = LDAM(ClassCounts.single([160, 10, 0]), max_margin=0.4, scale=10.0)
    logits = torch.tensor([[0.7, 0.1, -0.3], [0.2, 0.9, 0.4]], dtype=torch.float64)
    moved = torch.tensor([[0.5, 0.1, -0.3], [0.2, 0.5, 0.4]], dtype=torch.float64)
    target = torch.tensor([0, 1])
    torch.testing.assert_close(loss(10 * logits, target), cross_entropy(10 * moved, target, reduction="none"))


def test_rare_classes_have_larger_margins() -> None:
    margins = class_margins(ClassCounts.single([10000, 1000, 100, 1, 0]), max_margin=0.3, count_floor=1)
    assert margins.tolist() == pytest.approx([0.03, 0.3 * 1000**-0.25, 0.3 * 100**-0.25, 0.3, 0.3])


@pytest.mark.parametrize("reduction", ["mean", "weighted_mean"])
def test_ldam_reduces_like_cross_entropy(reduction: str) -> None:
    logits, target = batch("single", num_samples=16)
    loss = LDAM(SINGLE, weights=IFW, reduction=reduction)  # type: ignore[arg-type]
    weights, losses = loss.class_weights(), loss(logits, target)
    assert weights is not None
    total = weights[target].sum() if reduction == "weighted_mean" else 16
    torch.testing.assert_close(loss.reduce(losses, target), losses.sum() / total)


# --- shifts and factors


def test_shift_of_a_single_label_task_is_the_log_frequency() -> None:
    counts = ClassCounts.single([9000, 990, 10, 0])
    exact = torch.tensor([0.9, 0.099, 0.001, 0.0001], dtype=torch.float64)  # none counts as one
    torch.testing.assert_close(logit_shift(counts, 1.0).exp(), exact, rtol=1e-7, atol=0)
    torch.testing.assert_close(logit_shift(counts, 1.5), 1.5 * exact.log(), rtol=1e-6, atol=0)
    assert logit_shift(counts, 100.0).min().item() == pytest.approx(math.log(1e-12))
    assert logit_shift(ClassCounts.single([0, 0]), 1.0).tolist() == pytest.approx([0, 0], abs=1e-11)


def test_shift_of_a_multi_label_task_is_the_log_odds() -> None:
    counts = ClassCounts.multi([900, 500, 0, 1000], num_samples=1000)
    odds = torch.tensor([9.0, 1.0, 1 / 1000, 1000.0], dtype=torch.float64)  # none, or all, but one
    torch.testing.assert_close(logit_shift(counts, 2.0), 2 * odds.log())


def test_a_network_without_signal_learns_logits_of_zero() -> None:
    """With the class frequencies in the shift, their share of the gradient is gone: the best constant logit is 0."""
    target = torch.tensor([0] * 9 + [1] * 90 + [2])
    single = LogitAdjustment(ClassCounts.single([9, 90, 1]))
    slope = gradient(single, torch.zeros(100, 3, dtype=torch.float64), target).sum(0)
    torch.testing.assert_close(slope, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-9)

    labels = torch.zeros(100, 2, dtype=torch.float64)
    labels[:30, 0], labels[:2, 1] = 1, 1
    multi = LogitAdjustment(ClassCounts.multi([30, 2], num_samples=100))
    slope = gradient(multi, torch.zeros(100, 2, dtype=torch.float64), labels).sum(0)
    torch.testing.assert_close(slope, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_post_hoc_undoes_what_training_adds() -> None:
    logits, target = batch("single")
    shift = logit_shift(SINGLE, 1.3)
    trained = LogitAdjustment(SINGLE, tau=1.3)(logits - shift, target)
    torch.testing.assert_close(trained, CrossEntropy(SINGLE)(logits, target))


def test_vs_by_hand() -> None:
    counts = ClassCounts.single([810, 10, 0])  # divisors 1, 3, 810^(1/4); frequencies 810/820, 10/820, 1/820
    logits, target = torch.tensor([[1.0, 6.0, -2.0]], dtype=torch.float64), torch.tensor([1])
    divisor = torch.tensor([1.0, 3.0, 810**0.25], dtype=torch.float64)
    shift = 0.5 * torch.tensor([810 / 820, 10 / 820, 1 / 820], dtype=torch.float64).log()
    wanted = cross_entropy(logits / divisor + shift, target, reduction="none")
    torch.testing.assert_close(VS(counts, gamma=0.25, tau=0.5)(logits, target), wanted, rtol=1e-9, atol=0)


@pytest.mark.parametrize("make", [LogitAdjustment, BalancedSoftmax, VS, LDAM])
def test_rare_classes_are_held_to_more(make: type[Loss]) -> None:
    losses = make(ClassCounts.single([900, 90, 9, 1]))(torch.zeros(4, 4), torch.arange(4))
    assert (losses.diff() > 0).all()


def test_pairs_of_float32_keep_twelve_digits() -> None:
    values = torch.tensor([-27.631021115928547, 1 / 3, 1e-9, 12345678.9], dtype=torch.float64)
    pair = as_float32_pair(values)
    assert pair.dtype == torch.float32
    torch.testing.assert_close(from_float32_pair(pair, torch.float64), values, rtol=1e-13, atol=0)
    torch.testing.assert_close(from_float32_pair(pair, torch.float32), values.float(), rtol=0, atol=0)


# --- asymmetric loss


def test_asymmetric_by_hand() -> None:
    loss = ASL(ClassCounts.multi([1, 1, 1], 3), gamma_neg=3.0, gamma_pos=1.0, clip=0.2)
    p = torch.tensor([[0.3, 0.7, 0.15]], dtype=torch.float64)
    wanted = -0.7 * math.log(0.3) - 0.5**3 * math.log(0.5)  # the third is below the clip and costs nothing
    found = loss(p.logit(), torch.tensor([[1.0, 0.0, 0.0]]))
    assert found.item() == pytest.approx(wanted, rel=1e-12)


def test_the_sum_is_the_default_reduction_of_the_asymmetric_loss() -> None:
    logits, target = batch("multi")
    summed, averaged = ASL(MULTI), ASL(MULTI, reduction="mean")
    losses = summed(logits, target)
    torch.testing.assert_close(summed.reduce(losses, target), losses.sum(), rtol=0, atol=0)
    torch.testing.assert_close(averaged.reduce(losses, target), losses.mean())
    torch.testing.assert_close(gradient(summed, logits, target), 5 * gradient(averaged, logits, target))


def test_only_the_released_clamp_makes_wrong_positives_deaf() -> None:
    logits, target = torch.full((1, 4), -30.0, dtype=torch.float64), torch.ones(1, 4)
    paper, released = ASL(MULTI), ASL(MULTI, eps=1e-8)
    assert paper(logits, target).item() == pytest.approx(4 * 30)
    assert released(logits, target).item() == pytest.approx(4 * -math.log(1e-8))
    assert (gradient(paper, logits, target) < -0.9).all()
    assert (gradient(released, logits, target) == 0).all()
    torch.testing.assert_close(paper(-logits, target), released(-logits, target), rtol=1e-6, atol=0)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("clip", [1e-12, 0.05, 0.9])
def test_the_edge_of_the_clip_is_smooth_to_compute(gamma: float, clip: float) -> None:
    edge = math.log(clip / (1 - clip))
    logits = edge + torch.tensor([[-1e3, -1e-6, 0.0, 1e-6]], dtype=torch.float64)
    loss = ASL(MULTI, gamma_neg=gamma, clip=clip)
    for dtype in (torch.float64, torch.float32):
        losses = loss(logits.to(dtype), torch.zeros(1, 4))
        assert 0 <= losses.item() < 1e-5
        assert gradient(loss, logits.to(dtype), torch.zeros(1, 4)).isfinite().all()
    assert (gradient(loss, logits, torch.zeros(1, 4))[0, :2] == 0).all()


def test_just_above_the_clip_rounding_makes_no_negative_loss() -> None:
    edge = torch.tensor(0.01, dtype=torch.float64).logit().float()
    logits = (edge * (1 + 6e-8 * torch.arange(-4000, 4000)))[:, None]
    loss = ASL(ClassCounts.multi([1], 1), gamma_neg=0.0, clip=0.01)
    assert (loss(logits, torch.zeros_like(logits)) >= 0).all()


def test_detached_focus_changes_the_gradient_and_not_the_value() -> None:
    logits, target = batch("multi")
    full, detached = ASL(MULTI, gamma_pos=1.0), ASL(MULTI, gamma_pos=1.0, detach_modulator=True)
    torch.testing.assert_close(full(logits, target), detached(logits, target), rtol=0, atol=0)
    assert not torch.allclose(gradient(full, logits, target), gradient(detached, logits, target))


# --- distribution-balanced loss


def test_rebalancing_by_hand() -> None:
    loss = DistributionBalanced(ClassCounts.multi([100, 25, 0], 200), alpha=0.1, beta=2.0, mu=0.3)
    target = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=torch.float64)
    ratio = torch.tensor(
        [[1, 4, 100], [0.2, 0.8, 20], [0.01, 0.04, 1], [math.inf] * 3],
        dtype=torch.float64,
    )
    torch.testing.assert_close(loss.rebalance(target), 0.1 + (2 * (ratio - 0.3)).sigmoid())


def test_distribution_balanced_by_hand() -> None:
    counts = ClassCounts.multi([80, 20], num_samples=100)
    loss = DistributionBalanced(counts, alpha=0.5, beta=0.0, neg_scale=5.0, kappa=0.5, gamma=0.0, scale=3.0)
    shifted = torch.tensor([1 + 0.1 * math.log(4), -1 - 0.1 * math.log(4)], dtype=torch.float64)
    wanted = 3 * (softplus(-shifted[0]) + softplus(5 * shifted[1]) / 5) / 2
    found = loss(torch.tensor([[1.0, -1.0]], dtype=torch.float64), torch.tensor([[1.0, 0.0]]))
    assert found.item() == pytest.approx(wanted.item(), rel=1e-12)


def test_without_slope_a_row_without_labels_weighs_like_any_other() -> None:
    loss = DistributionBalanced(MULTI, **DB_NEUTRAL)
    assert (loss.rebalance(batch("multi")[1]) == 1).all()


def test_the_caller_s_logits_stay_as_they_are() -> None:
    logits, target = batch("multi")
    before = logits.clone()
    DistributionBalanced(MULTI)(logits, target)
    assert torch.equal(logits, before)


# --- losses that rank labels


def test_zlpr_is_its_definition() -> None:
    logits, target = batch("multi", num_samples=16)
    negative = ((1 - target) * logits.exp()).sum(1)
    positive = (target * (-logits).exp()).sum(1)
    torch.testing.assert_close(ZLPR(MULTI)(logits, target), (1 + negative).log() + (1 + positive).log())
    soft = 0.8 * target + 0.1
    negative = ((1 - soft) * logits.exp()).sum(1)
    positive = (soft * (-logits).exp()).sum(1)
    torch.testing.assert_close(ZLPR(MULTI)(logits, soft), (1 + negative).log() + (1 + positive).log())


def test_zlpr_of_one_class_is_binary_cross_entropy() -> None:
    counts, (logits, target) = ClassCounts.multi([3], 9), batch("multi", num_classes=1)
    torch.testing.assert_close(ZLPR(counts)(logits, target), BCE(counts)(logits, target))


def test_nothing_to_sum_has_no_gradient_and_hides_no_nan() -> None:
    values = torch.tensor([[1.0, 2.0]], requires_grad=True)
    nothing = log_sum_exp(values, torch.zeros(1, 2), dim=1)
    (slope,) = torch.autograd.grad(softplus(nothing).sum(), values)
    assert nothing.item() < -1e38
    assert (slope == 0).all()
    assert log_sum_exp(torch.tensor([[torch.nan, 0.0]]), torch.ones(1, 2), dim=1).isnan().all()
    assert log_sum_exp(torch.zeros(1, 2), torch.tensor([[torch.nan, 1.0]]), dim=1).isnan().all()


def two_way(logits: torch.Tensor, target: torch.Tensor, positive: float, negative: float) -> torch.Tensor:
    """Compute the two-way loss set by set, as the paper defines it."""

    def mean(sets: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
        found = []
        for z, t in sets:
            if (t == 1).any():
                below = ((z[t == 0] / negative).exp().sum()) ** negative
                above = ((-z[t == 1] / positive).exp().sum()) ** positive
                found.append((1 + below * above).log())
        return torch.stack(found).mean()

    return mean(list(zip(logits, target, strict=True))) + mean(list(zip(logits.T, target.T, strict=True)))


@pytest.mark.parametrize(("positive", "negative"), [(4.0, 1.0), (1.0, 1.0), (0.5, 2.0)])
@pytest.mark.parametrize("num_samples", [1, 5, 16])
def test_two_way_is_its_definition(positive: float, negative: float, num_samples: int) -> None:
    logits, target = batch("multi", num_samples=num_samples, seed=3)
    target[0, 2] = 1
    loss = TwoWay(MULTI, temperature_pos=positive, temperature_neg=negative)
    found = loss.reduce(loss(logits, target), target)
    torch.testing.assert_close(found, two_way(logits, target, positive, negative))


def test_two_way_without_labels_or_without_others_costs_nothing() -> None:
    loss, (logits, _) = TwoWay(MULTI), batch("multi")
    for target in (torch.zeros_like(logits), torch.ones_like(logits)):
        assert (loss(logits, target) == 0).all()
        assert (gradient(loss, logits, target) == 0).all()
    torch.testing.assert_close(loss(logits, target)[:0], loss(logits[:0], target[:0]))
