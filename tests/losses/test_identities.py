"""Losses that must be equal at the hyper-parameters where their formulas meet."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, one_hot

from hoi_train.core.records import ClassCounts, LabelKind
from hoi_train.losses import LOSSES, Loss
from hoi_train.losses.bce import BCE
from hoi_train.losses.class_balanced import CBCrossEntropy, CBFocal
from hoi_train.losses.class_difficulty import CDBCrossEntropy
from hoi_train.losses.cross_entropy import CrossEntropy
from hoi_train.losses.focal import Focal, focal_term, true_class_margin
from hoi_train.losses.weights import ClassWeighting, Scheme
from tests.losses.loss_cases import COUNTS, MULTI, SINGLE, batch, gradient, validation

IFW = ClassWeighting("inverse")


def assert_same(first: Loss, second: Loss, kind: LabelKind, soft: bool = False) -> None:
    """Compare the losses of 200 rows, their logits small to huge, and the gradient of the reduced loss."""
    logits, target = batch(kind, num_samples=200)
    logits = logits * torch.logspace(-2, 2, 200, dtype=torch.float64)[:, None]
    if soft:
        target = 0.9 * target + 0.05
    torch.testing.assert_close(first(logits, target), second(logits, target), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        gradient(first, logits, target), gradient(second, logits, target), rtol=1e-12, atol=1e-14
    )


def test_cross_entropy_is_that_of_torch() -> None:
    logits, target = batch("single")
    plain, weighted = CrossEntropy(SINGLE), CrossEntropy(SINGLE, weights=IFW, reduction="weighted_mean")
    torch.testing.assert_close(plain(logits, target), cross_entropy(logits, target, reduction="none"))
    torch.testing.assert_close(
        weighted.reduce(weighted(logits, target), target),
        cross_entropy(logits, target, weight=weighted.class_weights()),
    )


def test_bce_is_that_of_torch() -> None:
    logits, target = batch("multi")
    loss = BCE(MULTI)
    mean = binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(loss.reduce(loss(logits, target), target), mean)


@pytest.mark.parametrize("weights", [None, IFW])
def test_focal_without_focus_is_cross_entropy(weights: ClassWeighting | None) -> None:
    assert_same(Focal(SINGLE, gamma=0.0, weights=weights), CrossEntropy(SINGLE, weights=weights), "single")
    assert_same(Focal(MULTI, gamma=0.0, weights=weights), BCE(MULTI, weights=weights), "multi")
    assert_same(Focal(MULTI, gamma=0.0, weights=weights), BCE(MULTI, weights=weights), "multi", soft=True)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_with_one_class_there_is_nothing_to_tell_apart(gamma: float) -> None:
    loss = Focal(ClassCounts.single([3]), gamma=gamma)
    logits, target = batch("single", num_classes=1)
    assert (loss(logits, target) == 0).all()
    assert (gradient(loss, logits, target) == 0).all()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_is_the_paper_s_formula_where_that_can_be_computed(gamma: float) -> None:
    logits, target = batch("single")
    p = logits.softmax(1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(Focal(SINGLE, gamma=gamma)(logits, target), -((1 - p) ** gamma) * p.log())
    torch.testing.assert_close(true_class_margin(logits, target).sigmoid(), p)

    logits, target = batch("multi")
    p = torch.where(target == 1, logits.sigmoid(), 1 - logits.sigmoid())
    alpha = torch.where(target == 1, 0.25, 0.75)
    terms = -alpha * (1 - p) ** gamma * p.log()
    torch.testing.assert_close(Focal(MULTI, gamma=gamma, alpha=0.25)(logits, target), terms.mean(1))


def test_labels_between_0_and_1_mix_the_terms_with_their_alpha() -> None:
    loss, logits = Focal(MULTI, alpha=0.3), batch("multi")[0]
    held, missing = (loss(logits, torch.full_like(logits, label)) for label in (1.0, 0.0))
    torch.testing.assert_close(loss(logits, torch.full_like(logits, 0.25)), 0.25 * held + 0.75 * missing)


def test_one_alpha_is_the_same_alpha_for_every_class() -> None:
    assert_same(Focal(MULTI, alpha=0.3), Focal(MULTI, alpha=(0.3,) * 4), "multi")


def test_a_detached_modulator_changes_the_gradient_and_not_the_value() -> None:
    for kind, counts in COUNTS.items():
        full, detached = Focal(counts, gamma=2.0), Focal(counts, gamma=2.0, detach_modulator=True)
        logits, target = batch(kind)
        torch.testing.assert_close(full(logits, target), detached(logits, target), rtol=0, atol=0)
        assert not torch.allclose(gradient(full, logits, target), gradient(detached, logits, target))


def test_alpha_is_refused_where_it_means_nothing() -> None:
    with pytest.raises(ValueError, match="alpha weights positives against negatives, for multi-label tasks"):
        Focal(SINGLE, alpha=0.25)
    with pytest.raises(ValueError, match="alpha: 3 numbers for 4 classes"):
        Focal(MULTI, alpha=[0.1, 0.2, 0.3])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 5.0])
def test_the_focal_term_in_both_tails(gamma: float) -> None:
    margin = torch.tensor([-1e4, -700.0, 700.0, 1e4], dtype=torch.float64, requires_grad=True)
    value = focal_term(margin, gamma)
    (slope,) = torch.autograd.grad(value.sum(), margin)
    torch.testing.assert_close(value[:2], -margin[:2])
    torch.testing.assert_close(slope[:2], -torch.ones(2, dtype=torch.float64))
    assert value[2:].tolist() == pytest.approx([0, 0], abs=1e-300)
    assert slope[2:].tolist() == pytest.approx([0, 0], abs=1e-300)


def test_balance_without_beta_is_no_balance() -> None:
    assert_same(CBCrossEntropy(SINGLE, beta=0.0), CrossEntropy(SINGLE), "single")
    for gamma in (0.0, 0.5, 2.0):
        assert_same(CBFocal(MULTI, gamma=gamma, beta=0.0), Focal(MULTI, gamma=gamma), "multi")


@pytest.mark.parametrize("beta", [0.0, 0.999])
def test_single_label_balance_weighs_the_whole_row_by_its_true_class(beta: float) -> None:
    logits, target = batch("single")
    loss = CBFocal(SINGLE, gamma=2.0, beta=beta)
    weights = loss.class_weights()
    assert weights is not None
    terms = 4 * Focal(MULTI, gamma=2.0)(logits, one_hot(target, 4).double())  # a sum over classes, not a mean
    torch.testing.assert_close(loss(logits, target), weights[target] * terms)


def test_multi_label_balance_weighs_each_column_by_its_class() -> None:
    logits, target = batch("multi")
    loss = CBFocal(MULTI, gamma=0.0, beta=0.999)
    weights = loss.class_weights()
    assert weights is not None
    terms = binary_cross_entropy_with_logits(logits, target, reduction="none")
    torch.testing.assert_close(loss(logits, target), (weights * terms).mean(1))


@pytest.mark.parametrize("kind", ["single", "multi"])
@pytest.mark.parametrize("floor", [None, 5])
def test_class_balanced_weights_are_effective_numbers(kind: LabelKind, floor: int | None) -> None:
    wanted = ClassWeighting("effective", beta=0.9, count_floor=floor).of(COUNTS[kind])
    found = CBFocal(COUNTS[kind], beta=0.9, count_floor=floor).class_weights()
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=0)


@pytest.mark.parametrize("scheme", ["inverse", "sqrt_inverse", "effective", "neg_pos"])
def test_equal_counts_weigh_nothing(scheme: Scheme) -> None:
    weights = ClassWeighting(scheme, beta=0.99 if scheme == "effective" else None)
    single, multi = ClassCounts.single([50] * 4), ClassCounts.multi([50] * 4, 120)
    assert_same(CrossEntropy(single, weights=weights), CrossEntropy(single), "single")
    assert_same(BCE(multi, weights=weights), BCE(multi), "multi")
    assert_same(Focal(multi, weights=weights), Focal(multi), "multi")


def test_difficulty_without_exponent_or_validation_is_cross_entropy() -> None:
    flat = CDBCrossEntropy(SINGLE, tau=0.0)
    flat.after_validation(validation([1.0, 0.5, 0.25, 0.0]))
    assert_same(flat, CrossEntropy(SINGLE), "single")
    assert_same(CDBCrossEntropy(SINGLE), CrossEntropy(SINGLE), "single")


def test_the_table_names_the_losses() -> None:
    assert set(LOSSES) == {
        "cross_entropy",
        "bce",
        "focal",
        "cb_cross_entropy",
        "cb_focal",
        "cdb_ce",
        "cdb_bce",
        "ldam",
        "balanced_softmax",
        "logit_adjustment",
        "vs",
        "asl",
        "distribution_balanced",
        "zlpr",
        "two_way",
        "ghm",
        "eql",
        "eql_softmax",
        "eql_v2",
        "equalized_focal",
        "seesaw",
    }
