"""Heads: shapes, dropout, the prior's probability, gradients; every entry of the table."""

from __future__ import annotations

import inspect
import typing

import pytest
import torch

from hoi_train.models.heads import HEADS, CosineHead, LinearHead, MlpHead, SplitHead

REQUIRED: dict[str, dict[str, typing.Any]] = {"split": {"first": (3, 0)}}


@pytest.mark.parametrize("name", HEADS)
def test_contract_of_every_head(name: str) -> None:
    head = HEADS[name](16, 5, **REQUIRED.get(name, {}))
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


def test_mlp_by_hand() -> None:
    head = MlpHead(2, 1, hidden=3, dropout=0.5).eval()
    with torch.no_grad():
        head.hidden.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0], [2.0, 2.0]]))
        head.hidden.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
        head.classifier.weight.copy_(torch.tensor([[10.0, 100.0, 1000.0]]))
        head.classifier.bias.fill_(0.5)
    assert head(torch.tensor([[1.0, 2.0], [-1.0, 0.5]])).tolist() == [[5010.5], [50.5]]
    assert not torch.equal(head.train()(torch.ones(9, 2)), head.eval()(torch.ones(9, 2)))


@pytest.mark.parametrize("name", ["mlp", "split"])
def test_prior_of_heads_with_a_hidden_layer(name: str) -> None:
    torch.manual_seed(0)
    head = HEADS[name](512, 50, hidden=128, prior=0.02, **REQUIRED.get(name, {}))
    assert head(torch.rand(64, 512)).sigmoid().mean().item() == pytest.approx(0.02, rel=0.1)


def test_columns_of_the_split_head_are_in_the_tasks_order_and_groups_share_nothing() -> None:
    torch.manual_seed(0)
    head, features = SplitHead(8, 5, first=(3, 0), hidden=4), torch.randn(6, 8)
    logits = head(features)
    torch.testing.assert_close(logits[:, [3, 0]], head.first(features))
    torch.testing.assert_close(logits[:, [1, 2, 4]], head.second(features))
    logits[:, [0, 3]].sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in head.second.parameters())
    assert all(p.grad is not None and p.grad.any() for p in head.first.classifier.parameters())
    assert {key.split(".")[0] for key in head.state_dict()} == {"first", "second"}


@pytest.mark.parametrize(
    ("first", "message"),
    [
        ((0, 5), r"first: \[5\] are no class ids; those of the task are 0 to 4"),
        ((-1, 7), r"first: \[-1, 7\] are no class ids"),
        ((2, 1, 2), r"first: every class id once, got \[2, 1, 2\]"),
        ((), r"first: must have 1 to 4 of the 5 classes, got 0"),
        ((0, 1, 2, 3, 4), r"first: must have 1 to 4 of the 5 classes, got 5"),
    ],
)
def test_what_is_no_group_of_classes_is_refused(first: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SplitHead(8, 5, first=first)


@pytest.mark.parametrize("scale", [1.0, 16.0])
def test_cosines_by_hand(scale: float) -> None:
    head = CosineHead(2, 3, scale=scale)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.5], [-3.0, -3.0]]))
    found = head(torch.tensor([[3.0, 4.0], [0.0, 1e-3]])) / scale
    wanted = torch.tensor([[0.6, 0.8, -0.7 * 2**0.5], [0.0, 1.0, -(0.5**0.5)]])
    torch.testing.assert_close(found, wanted)


def test_lengths_have_no_say() -> None:
    torch.manual_seed(0)
    head, features = CosineHead(16, 5, scale=1.0), torch.randn(8, 16)
    before = head(features)
    assert before.abs().max() < 1
    with torch.no_grad():
        head.weight.mul_(torch.tensor([[1e-3], [1.0], [7.0], [1e3], [1e6]]))
    torch.testing.assert_close(head(1e4 * features), before)


def test_vectors_start_on_the_unit_sphere() -> None:
    torch.manual_seed(0)
    weight = CosineHead(64, 500).weight
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(500))
    assert weight.mean(0).norm().item() == pytest.approx(500**-0.5, rel=0.2)  # no direction is preferred


def test_features_of_zeros_have_no_direction_and_a_finite_gradient() -> None:
    head, features = CosineHead(4, 3, scale=1.0), torch.zeros(2, 4, requires_grad=True)
    logits = head(features)
    assert (logits == 0).all()
    logits.sum().backward()
    assert features.grad is not None
    assert features.grad.abs().max() < 10
    assert head.weight.grad is not None
    assert (head.weight.grad == 0).all()


def test_cosines_are_computed_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    head, features = CosineHead(64, 5), torch.randn(8, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = head(features)
    torch.testing.assert_close(logits, head(features), rtol=0, atol=0)


def test_gradient_of_cosines() -> None:
    head = CosineHead(4, 3, scale=30.0).double()
    features = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head, features)


def test_dropout_of_the_cosine_head_acts_in_training_only() -> None:
    torch.manual_seed(0)
    head, features = CosineHead(100, 3, dropout=0.5), torch.rand(1, 100)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))
