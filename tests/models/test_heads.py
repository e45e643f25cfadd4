"""Heads: shapes, dropout, the prior's probability, gradients; every entry of the table."""

from __future__ import annotations

import inspect
import typing

import pytest
import torch

from hoi_train.models.heads import HEADS, LinearHead


@pytest.mark.parametrize("name", HEADS)
def test_contract_of_every_head(name: str) -> None:
    head = HEADS[name](16, 5)
    logits = head(torch.randn(3, 16))
    assert logits.shape == (3, 5)
    logits.sum().backward()
    assert all(p.grad is not None for p in head.parameters())
    given, *hyper = list(inspect.signature(HEADS[name]).parameters.values())[1:]
    assert given.name == "num_classes"
    assert all(p.kind is p.KEYWORD_ONLY for p in hyper)
    assert {p.name for p in hyper} <= typing.get_type_hints(HEADS[name].__init__, include_extras=True).keys()


@pytest.mark.parametrize("prior", [0.01, 0.2, 0.5])
def test_prior_is_the_first_probability(prior: float) -> None:
    torch.manual_seed(0)
    head = LinearHead(2048, 50, prior=prior)
    probability = head(torch.rand(64, 2048)).sigmoid()
    assert head(torch.zeros(1, 2048)).sigmoid().tolist()[0] == pytest.approx([prior] * 50, rel=1e-6)
    assert probability.mean().item() == pytest.approx(prior, rel=0.1)


def test_plain_start_is_that_of_the_published_classifier() -> None:
    torch.manual_seed(0)
    head = LinearHead(100, 400)
    assert 0.09 < head.linear.weight.abs().max().item() <= 0.1
    assert head.linear.bias.abs().max().item() <= 0.1


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    head, features = LinearHead(1000, 1, dropout=0.5), torch.ones(1, 1000)
    torch.nn.init.ones_(head.linear.weight)
    torch.nn.init.zeros_(head.linear.bias)
    assert head(features).item() != 1000.0
    assert head(features).item() == pytest.approx(1000, rel=0.15)
    assert head.eval()(features).item() == 1000.0
