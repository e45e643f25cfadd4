from __future__ import annotations

import math

import pytest
from torch import nn

from hoi_train.optim import OPTIMIZERS, Cosine, MultiStep, parameter_groups, set_learning_rate


def network() -> nn.Module:
    return nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4), nn.Flatten(), nn.Linear(4, 2))


def test_weight_decay_leaves_out_biases_and_norms_unless_asked() -> None:
    decayed, exempt = parameter_groups(network(), 0.1, decay_all=False)
    assert (len(decayed["params"]), decayed["weight_decay"]) == (2, 0.1)
    assert (len(exempt["params"]), exempt["weight_decay"]) == (4, 0.0)
    (everything,) = parameter_groups(network(), 0.1, decay_all=True)
    assert len(everything["params"]) == 6


def test_frozen_parameters_are_in_no_group() -> None:
    model = network()
    model[0].requires_grad_(False)
    assert sum(len(group["params"]) for group in parameter_groups(model, 0.1, decay_all=False)) == 4


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_the_learning_rate_of_the_schedule(name: str) -> None:
    optimizer = OPTIMIZERS[name](network(), lr=0.5)
    assert set_learning_rate(optimizer, 0.5, 0.1) == 0.05
    assert {group["lr"] for group in optimizer.param_groups} == {0.05}


def test_multi_step_is_the_paper_recipe() -> None:
    schedule = MultiStep(milestones=(60,), gamma=0.1)
    assert [schedule.factor(epoch, 100) for epoch in (0, 59.99, 60, 99)] == [1, 1, 0.1, 0.1]


def test_cosine_falls_from_one_to_final() -> None:
    schedule = Cosine(final=0.1)
    factors = [schedule.factor(epoch, 10) for epoch in range(11)]
    assert factors[0] == 1
    assert factors[5] == pytest.approx(0.55)
    assert factors[10] == pytest.approx(0.1)
    assert factors == sorted(factors, reverse=True)


@pytest.mark.parametrize("schedule", [MultiStep(warmup_epochs=2), Cosine(warmup_epochs=2)])
def test_warm_up_rises_and_then_lets_go(schedule: MultiStep | Cosine) -> None:
    rising = [schedule.factor(epoch / 4, 100) for epoch in range(8)]
    assert rising == sorted(rising)
    assert 0 < rising[0] < 1e-3
    assert schedule.factor(2, 100) == 1
    assert math.isfinite(schedule.factor(0, 1))
