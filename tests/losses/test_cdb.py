"""CDB-CE after validations that the released codes answer with nan, and across a restart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hoi_train.losses.class_difficulty import CDBCrossEntropy, TauFormula, dynamic_tau
from tests.losses.loss_cases import SINGLE, batch, validation

FORMULAS: list[TauFormula] = ["paper", "released_cifar", "released_imagenet"]
NAN = math.nan


def weights(loss: CDBCrossEntropy) -> list[float]:
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


def test_only_the_last_validation_counts() -> None:
    assert weights(after([0.1, 0.2, 0.3, 0.4], [0.9, 0.5, 0.4, 0.2])) == weights(after([0.9, 0.5, 0.4, 0.2]))


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("tau", ["dynamic", 0.0, 0.5, 7.0])
@pytest.mark.parametrize("recall", [1.0, 0.5, 0.0])
def test_equal_recalls_weigh_equally(recall: float, tau: object, formula: TauFormula) -> None:
    assert weights(after([recall] * 4, tau=tau, tau_formula=formula)) == [1.0, 1.0, 1.0, 1.0]


def test_an_absent_class_starts_as_difficult_and_keeps_its_last_difficulty() -> None:
    loss = after([0.5, 0.5, 0.5, NAN], tau=1.0)
    assert loss.difficulty.tolist() == [0.5, 0.5, 0.5, 1.0]
    loss.after_validation(validation([0.5, 0.5, NAN, 0.75]))
    assert loss.difficulty.tolist() == [0.5, 0.5, 0.5, 0.25]
    loss.after_validation(validation([1.0, 1.0, 1.0, NAN]))
    assert loss.difficulty.tolist() == [0.0, 0.0, 0.0, 0.25]
    assert weights(loss) == [0.0, 0.0, 0.0, 4.0]


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
