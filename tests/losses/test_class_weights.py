"""Weights per class: formulas, traps and messages."""

from __future__ import annotations

import inspect
from dataclasses import replace
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hoi_train.core.records import ClassCounts, LabelKind
from hoi_train.losses import LOSSES, Loss
from hoi_train.losses.bce import BCE
from hoi_train.losses.cross_entropy import CrossEntropy
from hoi_train.losses.focal import Focal
from hoi_train.losses.ldam import LDAM
from hoi_train.losses.weights import ClassWeighting, Place, Scheme, difficulty_weights, sum_to_classes
from tests.losses.loss_cases import COUNTS, KINDS, batch, gradient

COUNT_SCHEMES: list[Scheme] = ["inverse", "sqrt_inverse", "effective", "neg_pos"]
LONG_TAIL = ClassCounts.single([3451, 178, 8, 0])


def weighting(scheme: Scheme, **options: object) -> ClassWeighting:
    """Make a weighting, with a beta where the scheme needs one."""
    return ClassWeighting(scheme, beta=0.9999 if scheme == "effective" else None, **options)  # type: ignore[arg-type]


@given(st.sampled_from(COUNT_SCHEMES), st.lists(st.integers(0, 10**6), min_size=1, max_size=20), st.booleans())
def test_a_class_without_samples_weighs_one_and_changes_no_other(
    scheme: Scheme, positives: list[int], scaled: bool
) -> None:
    of = weighting(scheme, normalise="sum_to_classes" if scaled else "none")
    weights, kept = of.of(ClassCounts.multi(positives, 2 * 10**6)), [n for n in positives if n]
    assert weights[torch.tensor(positives) == 0].tolist() == [1.0] * (len(positives) - len(kept))
    if kept:
        alone = of.of(ClassCounts.multi(kept, 2 * 10**6))
        torch.testing.assert_close(weights[torch.tensor(positives) > 0], alone, rtol=0, atol=0)
    if scaled:
        assert weights.sum().item() == pytest.approx(len(positives))


@pytest.mark.parametrize("scheme", COUNT_SCHEMES)
def test_with_a_floor_a_class_without_samples_is_weighed_like_one_with_the_floor(scheme: Scheme) -> None:
    for floor in (1, 5):
        found = weighting(scheme, count_floor=floor, normalise="none").of(ClassCounts.multi([40, 0], 50))
        at_floor = weighting(scheme, normalise="none").of(ClassCounts.multi([40, floor], 50))
        assert found.isfinite().all()
        assert found[0] == at_floor[0]
        if scheme != "neg_pos":  # its numerator counts negatives, which a floor on positives does not change
            assert found[1] == at_floor[1]
    floored = ClassWeighting("neg_pos", count_floor=1, normalise="none").of(ClassCounts.multi([50, 0], 50))
    assert floored.tolist() == [1 / 50, 50.0]


@pytest.mark.parametrize("count", [1, 2, 10, 1000, 10**6])
@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999, 0.99999999])
def test_effective_number_to_full_precision(beta: float, count: int) -> None:
    with localcontext() as context:
        context.prec = 60
        exact = (1 - Decimal(beta)) / (1 - Decimal(beta) ** count)
    found = ClassWeighting("effective", beta=beta, normalise="none").of(ClassCounts.single([count]))
    assert found.item() == pytest.approx(float(exact), rel=1e-14)


def test_effective_number_meets_inverse_frequency() -> None:
    inverse = ClassWeighting("inverse").of(LONG_TAIL)
    torch.testing.assert_close(ClassWeighting("effective", beta=1 - 1e-9).of(LONG_TAIL), inverse, rtol=1e-5, atol=0)


@given(st.sampled_from(COUNT_SCHEMES), st.lists(st.integers(0, 10**6), min_size=1, max_size=20), st.integers(1, 10))
def test_rare_classes_weigh_at_least_as_much(scheme: Scheme, positives: list[int], floor: int) -> None:
    positives = sorted(positives, reverse=True)
    weights = weighting(scheme, count_floor=floor).of(ClassCounts.multi(positives, 2 * 10**6))
    assert weights.dtype == torch.float64
    assert (weights > 0).all()
    assert (weights.diff() >= -1e-12 * weights[1:]).all()
    assert weights.sum().item() == pytest.approx(len(positives))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0, 7))
def test_difficult_classes_weigh_at_least_as_much(difficulty: list[float], tau: float) -> None:
    weights = difficulty_weights(torch.tensor(sorted(difficulty), dtype=torch.float64), tau)
    assert (weights >= 0).all()
    assert (weights.diff() >= 0).all()
    assert weights.sum().item() == pytest.approx(len(difficulty))


def test_weights_that_are_all_zero_become_ones_and_nan_stays() -> None:
    assert sum_to_classes(torch.zeros(3)).tolist() == [1.0, 1.0, 1.0]
    assert sum_to_classes(torch.tensor([torch.nan, 1.0])).isnan().any()


def test_given_weights() -> None:
    counts = ClassCounts.single([5, 5, 5])
    assert ClassWeighting("given", values=(1, 2, 5), normalise="none").of(counts).tolist() == [1, 2, 5]
    assert ClassWeighting("given", values=(1, 2, 5)).of(counts).tolist() == pytest.approx([3 / 8, 6 / 8, 15 / 8])
    with pytest.raises(ValueError, match=r"weights\.values: 2 numbers for 3 classes"):
        CrossEntropy(counts, weights=ClassWeighting("given", values=(1, 2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "effective"}, "scheme 'effective' needs beta"),
        ({"scheme": "inverse", "beta": 0.9}, "scheme 'inverse' does not use beta; beta belongs to 'effective'"),
        ({"scheme": "given"}, "scheme 'given' needs values"),
        ({"scheme": "neg_pos", "values": (1.0,)}, "'neg_pos' does not use values; values belongs to 'given'"),
        ({"scheme": "effective", "beta": 1.0}, r"beta must be in \[0, 1\), got 1.0"),
        ({"scheme": "effective", "beta": float("nan")}, r"beta must be in \[0, 1\), got nan"),
        ({"scheme": "inverse", "count_floor": 0}, "count_floor must be at least 1, got 0"),
        ({"scheme": "given", "values": (1.0, -1.0)}, "values must be finite numbers >= 0"),
        ({"scheme": "given", "values": (0.0, 0.0)}, "not all 0"),
        ({"scheme": "given", "values": (1.0, float("inf"))}, "values must be finite"),
    ],
)
def test_nonsense_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassWeighting(**options)  # type: ignore[arg-type]


def test_a_batch_whose_weights_are_all_zero_has_no_loss_and_no_nan() -> None:
    nothing = ClassWeighting("given", values=(0, 0, 0, 1))
    loss = CrossEntropy(LONG_TAIL, weights=nothing, reduction="weighted_mean")
    logits, _ = batch("single")
    target = torch.zeros(5, dtype=torch.int64)
    logits.requires_grad_()
    total = loss.reduce(loss(logits, target), target)
    total.backward()
    assert total == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


# --- where weights apply

FOUR = ClassWeighting("given", values=(1, 2, 3, 6), normalise="none")
TERMS = torch.tensor([[1.0, 10.0, 100.0, 1000.0]] * 4)
LABELS = torch.tensor([[1.0, 0, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0], [0.5, 0.25, 0, 0]])


@pytest.mark.parametrize(
    ("place", "factors"),
    [
        (None, [[1, 2, 3, 6]] * 4),
        ("column", [[1, 2, 3, 6]] * 4),
        ("positives", [[1, 1, 1, 6], [1, 2, 3, 6], [1, 1, 1, 1], [1, 1.25, 1, 1]]),
        ("row", [[7 / 2] * 4, [11 / 3] * 4, [1] * 4, [(0.5 * 1 + 0.25 * 2) / 0.75] * 4]),
    ],
)
def test_places_of_a_multi_label_task(place: Place | None, factors: list[list[float]]) -> None:
    loss = BCE(COUNTS["multi"], weights=replace(FOUR, place=place))
    torch.testing.assert_close(loss.weigh(TERMS, LABELS), torch.tensor(factors) * TERMS)
    if place == "row":
        torch.testing.assert_close(loss.weigh(TERMS[:, 1], LABELS), torch.tensor(factors)[:, 1] * 10)


@pytest.mark.parametrize("place", [None, "row"])
def test_a_single_label_task_weighs_rows_by_their_true_class(place: Place | None) -> None:
    loss = CrossEntropy(COUNTS["single"], weights=replace(FOUR, place=place))
    target, factors = torch.tensor([0, 3, 1, 2]), torch.tensor([1.0, 6, 2, 3])
    torch.testing.assert_close(loss.weigh(TERMS[:, 1], target), 10 * factors)
    torch.testing.assert_close(loss.weigh(TERMS, target), factors[:, None] * TERMS)


@pytest.mark.parametrize("place", ["column", "positives"])
def test_a_single_label_task_has_no_columns(place: Place) -> None:
    with pytest.raises(ValueError, match=rf"weights.place: '{place}' is for multi-label tasks; a single-label loss"):
        CrossEntropy(COUNTS["single"], weights=replace(FOUR, place=place))


def test_without_weights_nothing_is_weighed() -> None:
    assert BCE(COUNTS["multi"]).weigh(TERMS, LABELS) is TERMS
    assert BCE(COUNTS["multi"]).class_weights() is None


@pytest.mark.parametrize("kind", [BCE, Focal])
@pytest.mark.parametrize("place", ["row", "column", "positives"])
def test_the_place_reaches_the_loss(kind: type[BCE | Focal], place: Place) -> None:
    logits, target = batch("multi")
    loss, plain = kind(COUNTS["multi"], weights=replace(FOUR, place=place)), kind(ClassCounts.multi([1], 1))
    terms = plain(logits.reshape(-1, 1), target.reshape(-1, 1)).reshape(5, 4)
    torch.testing.assert_close(loss(logits, target), loss.weigh(terms, target).mean(1))
    assert loss(logits[1:2], 0 * target[1:2]).isfinite().all()


def test_weights_have_the_precision_of_the_losses() -> None:
    loss = BCE(COUNTS["multi"], weights=ClassWeighting("given", values=(1, 2, 3, 3)))
    assert loss.weigh(TERMS.double(), LABELS.double()).dtype == torch.float64
    assert loss.weigh(TERMS, LABELS).dtype == torch.float32


# --- from which epoch they apply

WEIGHED = [(name, kind) for name, kind in KINDS if "weights" in inspect.signature(LOSSES[name]).parameters]


def deferred(name: str, kind: LabelKind, **options: object) -> Loss:
    """Build a loss whose weights begin at epoch 3."""
    weights = ClassWeighting("effective", beta=0.999, from_epoch=3)
    return LOSSES[name](COUNTS[kind], weights=weights, **options).eval()


@pytest.mark.parametrize(("name", "kind"), WEIGHED)
def test_deferred_weights_are_none_and_then_all(name: str, kind: LabelKind) -> None:
    logits, target = batch(kind)
    loss, plain = deferred(name, kind), LOSSES[name](COUNTS[kind]).eval()
    always = LOSSES[name](COUNTS[kind], weights=ClassWeighting("effective", beta=0.999)).eval()
    without, with_weights = plain(logits, target), always(logits, target)
    assert not torch.allclose(without, with_weights)
    for epoch in (None, 0, 5, 2, 3, 199, 0):  # before any epoch, and in any order
        if epoch is not None:
            loss.schedule(epoch)
        begun = epoch is not None and epoch >= 3
        torch.testing.assert_close(loss(logits, target), with_weights if begun else without, rtol=0, atol=0)
        weights, expected = loss.class_weights(), always.class_weights()
        assert weights is not None
        assert expected is not None
        assert weights.dtype == torch.float64
        assert weights.tolist() == (expected.tolist() if begun else [1.0] * 4)


@pytest.mark.parametrize(
    ("name", "kind"), [("cb_cross_entropy", "single"), ("cb_focal", "single"), ("cb_focal", "multi")]
)
def test_class_balanced_losses_can_be_deferred(name: str, kind: LabelKind) -> None:
    logits, target = batch(kind)
    loss, always = LOSSES[name](COUNTS[kind], from_epoch=3), LOSSES[name](COUNTS[kind])
    without = LOSSES[name](COUNTS[kind], beta=0.0)
    for epoch, same in ((0, without), (2, without), (3, always), (1, without)):
        loss.schedule(epoch)
        torch.testing.assert_close(loss(logits, target), same(logits, target), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["cross_entropy", "ldam"])
def test_a_mean_over_deferred_weights_is_the_mean_over_samples(name: str) -> None:
    logits, target = batch("single")
    loss, plain = deferred(name, "single", reduction="weighted_mean"), LOSSES[name](COUNTS["single"])
    torch.testing.assert_close(gradient(loss, logits, target), gradient(plain, logits, target))


def test_a_restart_finds_the_epoch_by_itself() -> None:
    weights = ClassWeighting("effective", beta=0.999, from_epoch=3)
    loss, other = LDAM(COUNTS["single"], weights=weights), LDAM(ClassCounts.single([1] * 4), weights=weights)
    loss.schedule(4)
    other.load_state_dict(loss.state_dict())
    other.schedule(4)
    logits, target = batch("single")
    torch.testing.assert_close(other(logits, target), loss(logits, target), rtol=0, atol=0)


def test_weights_from_the_first_epoch_need_no_schedule() -> None:
    assert not CrossEntropy(COUNTS["single"], weights=FOUR).deferred
    assert CrossEntropy(COUNTS["single"], weights=replace(FOUR, from_epoch=1)).deferred
