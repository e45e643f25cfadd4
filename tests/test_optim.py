from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from hoi_train.optim import OPTIMIZERS, Cosine, MultiStep, parameter_groups, set_learning_rate


def layers() -> list[list[nn.Parameter]]:
    """The parameters of a stem with a batch norm, a layer above it, and a head."""
    modules = (nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4)), nn.Conv3d(4, 4, 1), nn.Linear(4, 2))
    return [list(module.parameters()) for module in modules]


def test_weight_decay_leaves_out_biases_and_norms_unless_asked() -> None:
    found = layers()
    decayed, exempt = parameter_groups(found, 0.1, decay_all=False)
    assert decayed == {"params": [p for layer in found for p in layer if p.ndim >= 2], "weight_decay": 0.1}
    assert exempt == {"params": [p for layer in found for p in layer if p.ndim < 2], "weight_decay": 0.0}
    (everything,) = parameter_groups(found, 0.1, decay_all=True)
    assert everything == {"params": [p for layer in found for p in layer], "weight_decay": 0.1}


def test_frozen_parameters_are_in_no_group() -> None:
    found = layers()
    for parameter in found[0]:
        parameter.requires_grad_(False)
    assert sum(len(group["params"]) for group in parameter_groups(found, 0.1, decay_all=False)) == 4


def test_the_head_learns_faster_and_the_stem_slowest() -> None:
    stem, middle, head = layers()
    groups = parameter_groups([stem, middle, head], 0.1, decay_all=False, head_factor=10.0, layer_decay=0.5)
    rates = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert [{rates[id(p)] for p in layer} for layer in (stem, middle, head)] == [{0.25}, {0.5}, {10.0}]
    decays = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert all(decays[id(p)] == (0.1 if p.ndim >= 2 else 0.0) for p in (*stem, *middle, *head))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_the_learning_rate_of_the_schedule(name: str) -> None:
    optimizer = OPTIMIZERS[name](layers(), lr=0.5)
    assert set_learning_rate(optimizer, 0.5, 0.1) == 0.05
    assert {group["lr"] for group in optimizer.param_groups} == {0.05}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_schedule_keeps_the_factors_of_the_groups_after_a_restart_too(name: str) -> None:
    def make() -> torch.optim.Optimizer:
        return OPTIMIZERS[name](layers(), lr=0.5, head_factor=10.0, layer_decay=0.5)

    optimizer, again = make(), make()
    set_learning_rate(optimizer, 0.5, 0.1)
    again.load_state_dict(optimizer.state_dict())
    assert set_learning_rate(again, 0.5, 0.2) == 0.1
    assert {group["lr"] for group in again.param_groups} == {0.1 * 0.25, 0.1 * 0.5, 0.1 * 10}


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
