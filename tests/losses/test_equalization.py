"""The equalization losses by hand: which terms they drop, and which gradients they add up."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from hoi_train.core.records import LabelKind
from hoi_train.losses import Loss
from hoi_train.losses.bce import BCE
from hoi_train.losses.cross_entropy import CrossEntropy
from hoi_train.losses.equalization import EQL, Draw, EQLSoftmax
from hoi_train.losses.equalization_v2 import EQLv2, GradientBalance
from hoi_train.losses.equalized_focal import EqualizedFocal
from hoi_train.losses.focal import Focal
from tests.losses.loss_cases import COUNTS, MULTI, SINGLE, batch, gradient, training


def test_eql_drops_the_negatives_of_rare_classes_only() -> None:
    logits, target = batch("multi", num_samples=16)
    rare = torch.tensor([n / MULTI.num_samples < 0.03 for n in MULTI.positives])
    assert rare.tolist() == [False, False, True, True]
    kept = (target == 1) | ~rare | (target.sum(1, keepdim=True) == 0)
    terms = binary_cross_entropy_with_logits(logits, target, reduction="none")
    for mode in (True, False):  # without draws, evaluation is no other
        torch.testing.assert_close(EQL(MULTI).train(mode)(logits, target), (kept * terms).mean(1))


@pytest.mark.parametrize("loss", [EQL(SINGLE, gamma=0.0), EQL(SINGLE, threshold=0.0), EQL(MULTI, threshold=0.0)])
def test_eql_without_rare_classes_or_drops_is_bce(loss: Loss) -> None:
    logits, target = batch(loss.kind)
    labels = one_hot(target, 4).double() if loss.kind == "single" else target
    mean = BCE(MULTI)(logits, labels)
    torch.testing.assert_close(loss(logits, target), 4 * mean if loss.kind == "single" else mean)


@pytest.mark.parametrize("draw", ["batch", "element"])
def test_eql_drawn_for_certain_is_eql_without_draws(draw: Draw) -> None:
    logits, target = batch("multi", num_samples=16)  # also for rows without a class, which drop nothing
    torch.testing.assert_close(EQL(MULTI, draw=draw, gamma=1.0)(logits, target), EQL(MULTI)(logits, target))


def test_eql_draws_once_a_batch_or_once_an_element() -> None:
    logits, target = torch.zeros(500, 4), torch.zeros(500, dtype=torch.int64)
    by_batch, by_element = (EQL(SINGLE, gamma=0.7, draw=draw) for draw in ("batch", "element"))  # type: ignore[arg-type]
    torch.manual_seed(0)
    means = torch.stack([by_batch(logits, target) for _ in range(300)]) / math.log(2)  # 2 or 4 terms are kept
    assert (means == means[:, :1]).all()
    assert (means[:, 0] < 3).double().mean() == pytest.approx(0.7, abs=0.08)
    kept = by_element(logits, target) / math.log(2)
    assert len(kept.unique()) == 3
    assert kept.mean() == pytest.approx(4 - 0.7 * 2, abs=0.1)
    for loss in (by_batch, by_element):  # evaluation takes the mean and draws nothing
        before = torch.get_rng_state()
        torch.testing.assert_close(loss.eval()(logits, target) / math.log(2), torch.full((500,), 4 - 0.7 * 2))
        assert torch.equal(torch.get_rng_state(), before)


def test_eql_with_the_same_seed_draws_the_same() -> None:
    logits, target = batch("single", num_samples=64)
    for loss in (EQL(SINGLE, draw="element"), EQLSoftmax(SINGLE, threshold=0.5)):
        results = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            results.append(loss(logits, target))
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])


def test_eql_softmax_is_the_cross_entropy_of_the_classes_kept() -> None:
    logits, _ = batch("single", num_samples=4)
    target = torch.arange(4)
    found = EQLSoftmax(SINGLE, threshold=0.03, gamma=1.0)(logits, target)
    for row, label in enumerate(target.tolist()):
        kept = [c for c in range(4) if c == label or SINGLE.positives[c] / SINGLE.num_samples >= 0.03]
        wanted = cross_entropy(logits[row, kept][None], torch.tensor([kept.index(label)]))
        torch.testing.assert_close(found[row], wanted)


def test_eql_softmax_evaluates_with_the_mean_weight() -> None:
    logits, target = batch("single")
    weights = 1 - 0.9 * torch.tensor([0.0, 0, 1, 1]).double() * (1 - one_hot(target, 4))
    wanted = -(logits.exp().gather(1, target[:, None])[:, 0] / (weights * logits.exp()).sum(1)).log()
    torch.testing.assert_close(EQLSoftmax(SINGLE, threshold=0.03).eval()(logits, target), wanted)


@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_eql_softmax_at_the_ends_draws_alike_in_training_and_evaluation(gamma: float) -> None:
    logits, target = batch("single", num_samples=64)
    loss = EQLSoftmax(SINGLE, gamma=gamma, threshold=0.03)
    trained = loss(logits, target)
    torch.testing.assert_close(trained, loss.eval()(logits, target), rtol=0, atol=0)
    if gamma == 0:
        torch.testing.assert_close(trained, CrossEntropy(SINGLE)(logits, target))


def logit_gradients(terms: Tensor, logits: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(terms.sum(), logits, retain_graph=True)
    return found.abs()


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_eql_v2_accumulates_the_gradients_of_its_own_terms(kind: LabelKind) -> None:
    loss = EQLv2(COUNTS[kind], gamma=12.0, mu=0.8, alpha=4.0).double()
    positive, negative = torch.zeros(2, 4, dtype=torch.float64)
    for step, (logits, target) in enumerate(training(kind)):
        logits = logits.requires_grad_()
        labels = one_hot(target, 4).double() if kind == "single" else target
        fall = torch.ones(4).double() if step == 0 else 1 / (1 + torch.exp(-12 * (positive / negative - 0.8)))
        weights = labels * (1 + 4 * (1 - fall)) + (1 - labels) * fall
        terms = weights * binary_cross_entropy_with_logits(logits, labels, reduction="none")
        wanted = terms.sum(1) if kind == "single" else terms.mean(1)
        torch.testing.assert_close(loss(logits, target), wanted)
        found = logit_gradients(terms, logits)
        positive, negative = positive + (found * labels).sum(0), negative + (found * (1 - labels)).sum(0)
        torch.testing.assert_close(loss.balance.positive, positive)
        torch.testing.assert_close(loss.balance.negative, negative)


def test_eql_v2_begins_as_bce_and_a_class_not_met_stays_so() -> None:
    logits, target = batch("multi")
    torch.testing.assert_close(EQLv2(MULTI)(logits, target), BCE(MULTI)(logits, target))
    balance = GradientBalance(2)
    balance.add(torch.tensor([[0.5, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert balance.ratio().tolist() == [0, math.inf]


def test_eql_v2_brings_an_unbalanced_class_towards_balance() -> None:
    loss = EQLv2(MULTI)
    loss.balance.positive.copy_(torch.tensor([1.0, 1, 8, 100]))
    loss.balance.negative.copy_(torch.tensor([100.0, 4, 10, 1]))
    rise, fall = loss.factors()
    assert all(a > b for a, b in pairwise(rise.tolist()[:3]))
    assert rise[0] == pytest.approx(5, abs=1e-3)
    assert fall.tolist() == pytest.approx([0, 0, 0.5, 1], abs=2e-3)
    assert rise[3] == 1


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_equalized_focal_accumulates_the_gradients_of_its_own_terms(kind: LabelKind) -> None:
    loss = EqualizedFocal(COUNTS[kind], gamma=2.0, scale=8.0, alpha=0.25).double()
    positive, negative = torch.zeros(2, 4, dtype=torch.float64)
    for step, (logits, target) in enumerate(training(kind)):
        logits = logits.requires_grad_()
        labels = one_hot(target, 4).double() if kind == "single" else target
        ratio = torch.ones(4).double() if step == 0 else (positive / negative).clamp(0, 1)
        gamma = 2 + 8 * (1 - ratio)
        p = torch.where(labels == 1, logits.sigmoid(), 1 - logits.sigmoid())
        terms = -torch.where(labels == 1, 0.25, 0.75) * gamma / 2 * (1 - p) ** gamma * p.log()
        torch.testing.assert_close(loss(logits, target), terms.sum(1) if kind == "single" else terms.mean(1))
        found = logit_gradients(terms, logits)
        positive, negative = positive + (found * labels).sum(0), negative + (found * (1 - labels)).sum(0)
        torch.testing.assert_close(loss.balance.positive, positive)
        torch.testing.assert_close(loss.balance.negative, negative)


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_equalized_focal_in_balance_is_focal(gamma: float) -> None:
    logits, target = batch("multi")
    focal = Focal(MULTI, gamma=gamma, alpha=0.25)
    fresh, balanced, flat = (EqualizedFocal(MULTI, gamma=gamma, scale=scale).eval() for scale in (8.0, 8.0, 0.0))
    balanced.balance.positive.fill_(3.0)
    balanced.balance.negative.fill_(2.0)  # more than balance is balance
    flat.balance.negative.fill_(2.0)  # out of balance, but without scale
    for loss in (fresh, balanced, flat):
        torch.testing.assert_close(loss(logits, target), focal(logits, target))
        torch.testing.assert_close(gradient(loss, logits, target), gradient(focal, logits, target))


def test_equalized_focal_focuses_most_where_positives_push_least() -> None:
    loss = EqualizedFocal(MULTI).eval()
    loss.balance.positive.copy_(torch.tensor([0.0, 0.5, 1, 1]))
    loss.balance.negative.fill_(1.0)
    losses = [loss(torch.full((1, 4), 4.0), one_hot(torch.tensor([c]), 4).double()) for c in range(4)]
    easy = [loss(torch.where(torch.arange(4) == c, -2.0, -50.0)[None], torch.zeros(1, 4)).item() for c in range(4)]
    assert easy[0] < easy[1] < easy[2] == easy[3]
    assert all(value.isfinite() for value in losses)
