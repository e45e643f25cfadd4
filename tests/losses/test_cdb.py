"""CDB after validations that the released codes answer with nan, with few clips, late, and across a restart."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from hoi_train.core.records import TaskStats
from hoi_train.losses.bce import BCE
from hoi_train.losses.class_balanced import CBFocal
from hoi_train.losses.class_difficulty import CDBBCE, CDBCrossEntropy, DifficultyBalanced, TauFormula, dynamic_tau
from hoi_train.losses.cross_entropy import CrossEntropy
from hoi_train.losses.focal import Focal
from hoi_train.losses.weights import ClassWeighting
from tests.losses.loss_cases import COUNTS, MULTI, SINGLE, batch, validation
from tests.losses.test_identities import assert_same

FORMULAS: list[TauFormula] = ["paper", "released_cifar", "released_imagenet"]
NAN = math.nan


def weights(loss: DifficultyBalanced) -> list[float]:
    found = loss.class_weights()
    assert found is not None
    return found.tolist()


def after(*recalls: list[float], **hyper_parameters: object) -> CDBCrossEntropy:
    """Return CDB-CE after one validation with each of the recalls."""
    loss = CDBCrossEntropy(SINGLE, **hyper_parameters)  # type: ignore[arg-type]
    for recall in recalls:
        loss.after_validation(validation(recall))
    return loss


def test_weights_follow_difficulty() -> None:
    assert weights(after([0.9, 0.5, 0.4, 0.2], tau=1.0)) == pytest.approx([0.2, 1.0, 1.2, 1.6])
    squared = [0.01, 0.25, 0.36, 0.64]
    assert weights(after([0.9, 0.5, 0.4, 0.2], tau=2.0)) == pytest.approx([4 * d / sum(squared) for d in squared])


@pytest.mark.parametrize("kind", [CDBCrossEntropy, CDBBCE])
def test_the_weights_of_the_paper_s_text_are_not_scaled(kind: type[CDBCrossEntropy | CDBBCE]) -> None:
    loss = kind(SINGLE if kind is CDBCrossEntropy else MULTI, tau=2.0, normalise="none")
    assert weights(loss) == [1.0] * 4
    loss.after_validation(validation([0.9, 0.5, 0.4, 0.2]))
    assert weights(loss) == pytest.approx([0.01, 0.25, 0.36, 0.64])
    loss.after_validation(validation([1.0] * 4))
    assert weights(loss) == [0.0] * 4


def test_only_the_last_validation_counts() -> None:
    assert weights(after([0.1, 0.2, 0.3, 0.4], [0.9, 0.5, 0.4, 0.2])) == weights(after([0.9, 0.5, 0.4, 0.2]))


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("tau", ["dynamic", 0.0, 0.5, 7.0])
@pytest.mark.parametrize("recall", [1.0, 0.5, 0.0])
def test_equal_recalls_weigh_equally(recall: float, tau: object, formula: TauFormula) -> None:
    assert weights(after([recall] * 4, tau=tau, tau_formula=formula)) == [1.0, 1.0, 1.0, 1.0]


def test_an_absent_class_is_as_difficult_as_the_others_on_average() -> None:
    loss = after([0.5, 0.25, 0.75, NAN], tau=1.0)
    assert loss.difficulty.tolist() == [0.5, 0.75, 0.25, 0.5]
    loss.after_validation(validation([1.0, 1.0, 1.0, NAN]))
    assert loss.difficulty.tolist() == [0.0, 0.0, 0.0, 0.0]
    assert weights(loss) == [1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("formula", FORMULAS)
def test_an_absent_class_has_no_say_in_tau(formula: TauFormula) -> None:
    with_absent, without = after([0.5, 0.4, 0.5, NAN], tau_formula=formula), after([0.5, 0.4, 0.5, 0.5])
    assert with_absent.tau.item() == pytest.approx(dynamic_tau(torch.tensor([0.5, 0.4]), formula))
    assert formula != "paper" or with_absent.tau == without.tau


def test_a_validation_without_any_class_changes_nothing() -> None:
    loss = after([0.9, 0.5, 0.4, 0.2])
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    loss.after_validation(validation([NAN] * 4))
    torch.testing.assert_close(loss.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("reduction", ["mean", "weighted_mean"])
def test_a_perfect_class_costs_nothing_until_it_fails_again(reduction: object) -> None:
    loss = after([1.0, 0.5, 0.4, 0.2], reduction=reduction)
    logits, _ = batch("single")
    target = torch.zeros(5, dtype=torch.int64)
    assert _reduced(loss, logits, target) == 0
    loss.after_validation(validation([0.9, 0.5, 0.4, 0.2]))
    assert _reduced(loss, logits, target) > 0


def _reduced(loss: CDBCrossEntropy, logits: Tensor, target: Tensor) -> Tensor:
    logits = logits.detach().clone().requires_grad_()
    total = loss.reduce(loss(logits, target), target)
    (grad,) = torch.autograd.grad(total, logits)
    assert grad.isfinite().all()
    return total


@pytest.mark.parametrize(
    ("recall", "tau"),
    [
        # by hand: 2 / (1 + exp(1 - A_max / (A_min + eps))) and 1 / (1 + exp(-A_max / (A_min + 0.01)))
        ([0.5, 0.5], (0.9999, 0.7272, 0.9902)),
        ([0.8, 0.0], (2.0, 1.0, 2.0)),
        ([0.0, 0.0], (0.5379, 0.5, 0.5379)),
    ],
)
def test_the_three_formulas_of_tau(recall: list[float], tau: tuple[float, ...]) -> None:
    found = [dynamic_tau(torch.tensor(recall, dtype=torch.float64), formula) for formula in FORMULAS]
    assert found == pytest.approx(tau, abs=5e-5)


def test_a_fixed_tau_stays() -> None:
    assert after([0.9, 0.5, 0.4, 0.2], tau=1.5).tau == 1.5
    assert CDBCrossEntropy(SINGLE, tau=1.5).tau == 1.5


def test_a_restart_changes_nothing() -> None:
    history = [[0.1, 0.0, 0.3, NAN], [0.6, 0.2, NAN, 0.1], [NAN, 0.4, 0.7, 0.3], [0.9, NAN, 0.8, NAN]]
    uninterrupted = after(*history)
    first = after(*history[:2])
    second = CDBCrossEntropy(SINGLE)
    second.load_state_dict(first.state_dict())
    assert weights(second) == weights(first)
    for recall in history[2:]:
        second.after_validation(validation(recall))
    torch.testing.assert_close(second.state_dict(), uninterrupted.state_dict(), rtol=0, atol=0)


def test_momentum_averages_recall_over_validations() -> None:
    recalls = [1.0, 0.5, 0.0, 0.2], [1.0, 0.0, 0.5, 0.4]
    averaged = [0.8 * 0.2 * first + 0.2 * second for first, second in zip(*recalls, strict=True)]
    difficulty = [1 - value for value in averaged]
    expected = [4 * value / sum(difficulty) for value in difficulty]
    assert weights(after(*recalls, tau=1.0, momentum=0.8)) == pytest.approx(expected, rel=1e-6)


# --- classes with few validation clips


def with_support(recall: list[float], support: list[int], **vectors: list[float]) -> TaskStats:
    """Return the statistics of a validation with these recalls of so many clips, and other scores by name."""
    scores = {name: torch.tensor(values, dtype=torch.float64) for name, values in {"recall": recall, **vectors}.items()}
    return replace(validation(recall), support=torch.tensor(support), vectors=scores)


def test_smoothing_draws_the_recall_of_few_clips_to_the_mean() -> None:
    loss = CDBCrossEntropy(SINGLE, tau=1.0, smoothing=4.0)
    loss.after_validation(with_support([0.9, 0.5, 0.1, 1.0], [396, 36, 4, 1]))
    mean = 2.5 / 4
    smooth = [(396 * 0.9 + 4 * mean) / 400, (36 * 0.5 + 4 * mean) / 40, (0.4 + 4 * mean) / 8, (1 + 4 * mean) / 5]
    assert loss.difficulty.tolist() == pytest.approx([1 - value for value in smooth], rel=1e-6)


def test_smoothing_leaves_a_perfect_class_some_weight() -> None:
    stats = with_support([1.0, 0.9, 0.8, 0.5], [5, 400, 100, 50])
    rough, smooth = CDBCrossEntropy(SINGLE), CDBCrossEntropy(SINGLE, smoothing=5.0)
    rough.after_validation(stats)
    smooth.after_validation(stats)
    assert weights(rough)[0] == 0
    assert weights(smooth)[0] > 0.01


def test_smoothing_takes_the_mean_of_the_measured_classes() -> None:
    loss = CDBCrossEntropy(SINGLE, tau=1.0, smoothing=10.0)
    loss.after_validation(with_support([0.5, 0.5, NAN, 0.5], [10, 1, 0, 7]))
    assert loss.difficulty.tolist() == [0.5, 0.5, 0.5, 0.5]
    loss.after_validation(with_support([NAN] * 4, [0] * 4))
    assert loss.difficulty.tolist() == [0.5, 0.5, 0.5, 0.5]


def test_smoothing_comes_before_momentum_and_tau() -> None:
    loss = CDBCrossEntropy(SINGLE, momentum=0.5, smoothing=20.0)
    loss.after_validation(with_support([0.8, 0.4, 0.4, 0.8], [20, 20, 20, 20]))
    assert loss.difficulty.tolist() == pytest.approx([1 - 0.35, 1 - 0.25, 1 - 0.25, 1 - 0.35])
    assert loss.tau.item() == pytest.approx(dynamic_tau(torch.tensor([0.35, 0.25]), "paper"))


def test_without_smoothing_the_support_has_no_say() -> None:
    recall = [0.9, 0.5, 0.1, 0.3]
    few, many = CDBCrossEntropy(SINGLE), CDBCrossEntropy(SINGLE)
    few.after_validation(with_support(recall, [1, 2, 3, 4]))
    many.after_validation(with_support(recall, [1000, 200, 30, 4]))
    torch.testing.assert_close(few.state_dict(), many.state_dict(), rtol=0, atol=0)


# --- from a later epoch


@pytest.mark.parametrize("kind", [CDBCrossEntropy, CDBBCE])
def test_deferred_difficulty_is_learned_and_not_yet_used(kind: type[CDBCrossEntropy | CDBBCE]) -> None:
    label: Any = "single" if kind is CDBCrossEntropy else "multi"
    late, always = kind(COUNTS[label], from_epoch=3, momentum=0.5), kind(COUNTS[label], momentum=0.5)
    plain = CrossEntropy(SINGLE) if kind is CDBCrossEntropy else BCE(MULTI)
    assert late.deferred
    assert not always.deferred
    for epoch, recall in enumerate(([0.9, 0.5, 0.1, 0.3], [0.9, 0.6, 0.2, NAN], [0.8, 0.7, 0.2, 0.3])):
        late.schedule(epoch)
        assert weights(late) == [1.0] * 4
        assert_same(late, plain, label)
        for loss in (late, always):
            loss.after_validation(validation(recall))
    assert weights(late) == [1.0] * 4
    late.schedule(3)
    assert weights(late) == weights(always)
    assert_same(late, always, label)


def test_a_mean_over_deferred_weights_is_the_mean_over_samples() -> None:
    loss = CDBCrossEntropy(SINGLE, from_epoch=3, reduction="weighted_mean")
    loss.after_validation(validation([0.9, 0.5, 0.1, 0.3]))
    assert_same(loss, CrossEntropy(SINGLE), "single")


# --- several labels a sample


def test_several_labels_without_validation_or_exponent_are_binary_cross_entropy() -> None:
    flat = CDBBCE(MULTI, tau=0.0)
    flat.after_validation(validation([1.0, 0.5, 0.25, 0.0]))
    assert_same(flat, BCE(MULTI), "multi")
    assert_same(CDBBCE(MULTI), BCE(MULTI), "multi", soft=True)
    assert_same(CDBBCE(MULTI, gamma=0.5), Focal(MULTI, gamma=0.5), "multi")
    assert_same(CDBBCE(MULTI, gamma=0.5), CBFocal(MULTI, gamma=0.5, beta=0.0), "multi")


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_several_labels_weigh_columns(gamma: float) -> None:
    loss = CDBBCE(MULTI, tau=1.0, gamma=gamma)
    loss.after_validation(validation([0.9, 0.5, 0.4, 0.2]))
    given = ClassWeighting("given", values=(0.2, 1.0, 1.2, 1.6), place="column")
    logits, target = batch("multi")
    torch.testing.assert_close(
        loss(logits, target), Focal(MULTI, gamma=gamma, weights=given)(logits, target), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(("difficulty", "scores"), [("recall", [0.9, 0.5, 0.0, NAN]), ("ap", [0.3, 0.2, 0.1, NAN])])
def test_difficulty_is_of_recall_or_of_average_precision(difficulty: Any, scores: list[float]) -> None:
    loss = CDBBCE(MULTI, difficulty=difficulty, smoothing=0.0)
    loss.after_validation(with_support([0.9, 0.5, 0.0, NAN], [90, 5, 1, 0], ap=[0.3, 0.2, 0.1, NAN]))
    assert loss.difficulty.tolist() == pytest.approx([*(1 - score for score in scores[:3]), 1 - sum(scores[:3]) / 3])
    assert loss.tau.item() == pytest.approx(dynamic_tau(torch.tensor(scores[:3]), "paper"))


def test_an_average_precision_that_rounds_beyond_one_is_one() -> None:
    loss = CDBBCE(MULTI, difficulty="ap", tau=1.5)
    beyond = 1 + 2**-52
    loss.after_validation(with_support([1.0] * 4, [49] * 4, ap=[beyond, 0.5, 0.5, beyond]))
    assert weights(loss) == [0.0, 2.0, 2.0, 0.0]


def test_both_forms_learn_the_same_weights() -> None:
    single, multi = (kind(of, momentum=0.3, smoothing=2.0) for kind, of in ((CDBCrossEntropy, SINGLE), (CDBBCE, MULTI)))
    for recall in ([0.9, 0.5, 0.4, 0.2], [NAN, 0.7, 0.1, 0.0]):
        for loss in (single, multi):
            loss.after_validation(validation(recall))
    assert single.state_dict().keys() == multi.state_dict().keys()
    assert weights(single) == weights(multi)
    torch.testing.assert_close(single.state_dict(), multi.state_dict(), rtol=0, atol=0)
