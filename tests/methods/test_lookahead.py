"""Looking ahead: values known by hand, the same by a gradient of a gradient, and what must stay as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hoi_train.core.records import ClassCounts, LabelKind
from hoi_train.data.mixing import Mixup
from hoi_train.losses import LOSSES
from hoi_train.losses.objective import Objective
from hoi_train.methods import METHODS
from hoi_train.methods.learning_to_reweight import LearningToReweight, normalised
from hoi_train.methods.lookahead import SampleLosses, inner_products, mean_gradient, pull_back, trainable
from hoi_train.methods.meta_set import MetaWeighted
from hoi_train.methods.meta_weight_net import Form, MetaWeightNet
from hoi_train.models.backbones import BACKBONES
from hoi_train.models.heads import CosineHead
from hoi_train.models.preprocessing import PREPROCESSING
from hoi_train.models.recognizer import Recognizer
from tests.losses import loss_cases
from tests.methods.meta_cases import Linear, Rows, by_double_backward, clips, context, network, objective, step

ROWS = list(range(5, 13))
META = list(range(6))
DEFAULTS: dict[LabelKind, str] = {"single": "cross_entropy", "multi": "bce"}
FORMS: tuple[Form, ...] = ("class_imbalance", "label_noise")


def test_a_linear_network_by_hand() -> None:
    # Two classes, weights 0: every softmax score is 1/2, and the gradient of a clip is (p - onehot) x^T.
    batch = Rows(torch.tensor([[2.0], [1.0], [-3.0]]), {"verb": torch.tensor([0, 1, 0])})
    meta = Rows(torch.tensor([[1.0]]), {"verb": torch.tensor([0])})
    net = Linear(torch.zeros(2, 1), torch.zeros(2))
    of = Objective({"verb": LOSSES["cross_entropy"](ClassCounts.single([2, 1]))})
    method = LearningToReweight(context())
    found = method.weights(cast(Any, batch), cast(Any, meta), step(net, of))
    # <g_i, g> = 1/2 (x_i x + 1) for the same class and minus that for the other: 3/2, -1, -1.
    products = inner_products(
        SampleLosses(step(net, of), cast(Any, batch)),
        trainable(net),
        mean_gradient(SampleLosses(step(net, of), cast(Any, meta)), trainable(net)),
    )
    torch.testing.assert_close(products, torch.tensor([1.5, -1.0, -1.0]))
    assert found.tolist() == [1.0, 0.0, 0.0]


def test_the_weights_are_all_0_where_no_clip_helps() -> None:
    assert normalised(torch.tensor([-1.0, 0.0, -1e-30])).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_learning_to_reweight_is_the_gradient_of_a_gradient(kind: LabelKind, norm: bool) -> None:
    net, of = network(norm), objective(DEFAULTS[kind], kind)
    batch, meta = clips("train", ROWS, kind), clips("val", META, kind)
    epsilon = torch.zeros(len(batch), dtype=torch.float64, requires_grad=True)
    _, loss = by_double_backward(net, batch, meta, of, 1.0, lambda losses: epsilon)
    helpful = -torch.autograd.grad(loss, epsilon)[0].clamp(max=0)
    assert 0 < (helpful > 0).sum() < len(batch)
    weights = LearningToReweight(context(kind)).weights(batch, meta, step(net, of))
    torch.testing.assert_close(weights, helpful / helpful.sum(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_meta_weight_net_is_the_gradient_of_a_gradient(kind: LabelKind, form: Form, norm: bool) -> None:
    net, of, lr = network(norm), objective(DEFAULTS[kind], kind), 0.3
    batch, meta = clips("train", ROWS, kind), clips("val", META, kind)
    method = MetaWeightNet(context(kind), form=form, hidden=7)
    method.net.double()
    before = [value.clone() for value in method.net.state_dict().values()]

    def weights(losses: Tensor) -> Tensor:
        inputs = losses if form == "class_imbalance" else losses.detach()
        raw = cast(Tensor, method.net(inputs[:, None])[:, 0]).sigmoid()
        return raw / (raw.sum() if form == "class_imbalance" else len(raw))

    losses, loss = by_double_backward(net, batch, meta, of, lr, weights)
    wanted = torch.autograd.grad(loss, list(method.net.parameters()))
    weighed = method.weights(batch, meta, step(net, of, lr))
    for value, gradient in zip(method.net.parameters(), wanted, strict=True):
        assert value.grad is not None
        torch.testing.assert_close(value.grad, gradient, rtol=1e-10, atol=1e-16)
    assert not all(torch.equal(a, b) for a, b in zip(before, method.net.state_dict().values(), strict=True))
    torch.testing.assert_close(weighed, weights(losses.detach()), rtol=1e-12, atol=0)  # by V as it is now


@pytest.mark.parametrize("score", [-1e4, -200.0, 1e4])
def test_weights_of_a_saturated_net_are_defined(score: float) -> None:
    method = MetaWeightNet(context())
    with torch.no_grad():
        cast(nn.Linear, method.net[2]).bias.fill_(score)
    losses = torch.tensor([0.5, 2.0, 3.0])
    weights, coefficients = method.weigh(losses), method.coefficients(losses)
    torch.testing.assert_close(weights.sum().item(), 1.0)
    assert coefficients.isfinite().all()
    method.learn(losses, torch.tensor([1e6, -1e6, 0.0]), lr=1.0)
    assert all(value.isfinite().all() for value in method.net.parameters())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_products_through_the_real_backbone_are_those_of_single_samples(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    tiny = BACKBONES["tiny_resnext3d"](cardinality=2).build()
    net = Recognizer(tiny, {"verb": CosineHead(512, 3, scale=5.0)}, PREPROCESSING["kinetics_2020"])
    net = net.double().to(memory_format=layout).train()
    video = torch.randint(0, 256, (3, 3, 4, 32, 32), dtype=torch.uint8)
    batch, of = Rows(video, {"verb": torch.tensor([0, 2, 1])}), objective("cross_entropy", "single")
    at, now = SampleLosses(step(net, of), cast(Any, batch)), trainable(net)
    direction = {name: torch.randn_like(value) for name, value in now.items()}
    found = inner_products(at, now, direction)
    for row in range(3):
        _, gradient = pull_back(at, now)
        of_row = gradient(torch.eye(3)[row])
        wanted = torch.stack([(of_row[name] * direction[name]).sum() for name in now]).sum()
        torch.testing.assert_close(found[row], wanted, rtol=1e-8, atol=0)


@pytest.mark.parametrize(("name", "kind"), loss_cases.KINDS)
def test_every_loss_can_be_looked_ahead_of(name: str, kind: LabelKind) -> None:
    logits, target = loss_cases.batch(kind, num_samples=6)
    of = Objective({"verb": loss_cases.make(name, kind)})
    batch = Rows(logits, {"verb": target})
    net = Linear(torch.randn(4, 4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64))
    at, now = SampleLosses(step(net, of), cast(Any, batch)), trainable(net)
    direction = {key: torch.randn_like(value) for key, value in now.items()}
    found = inner_products(at, now, direction)
    assert not found.requires_grad
    for row in range(6):
        _, gradient = pull_back(at, now)
        of_row = gradient(torch.eye(6)[row])
        wanted = torch.stack([(of_row[key] * direction[key]).sum() for key in now]).sum()
        torch.testing.assert_close(found[row], wanted, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", ["l2rw", "mwn"])
def test_looking_ahead_leaves_the_network_the_losses_and_the_draws_as_they_were(name: str) -> None:
    net, of = network(norm=True, dropout=0.5), objective("seesaw", "single")
    method = cast(MetaWeighted, METHODS[name](context()))
    before = {key: value.clone() for key, value in (*net.state_dict().items(), *of.state_dict().items())}
    torch.manual_seed(5)
    draws = torch.get_rng_state()
    method.weights(clips("train", ROWS, "single"), clips("val", META, "single"), step(net, of))
    assert torch.equal(torch.get_rng_state(), draws)
    after = {**net.state_dict(), **of.state_dict()}
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert all(value.grad is None for value in net.parameters())
    assert of.training


@pytest.mark.parametrize("name", ["l2rw", "mwn"])
def test_the_step_that_follows_trains_losses_and_buffers_once(name: str) -> None:
    nets, objectives = [network(norm=True) for _ in range(2)], [objective("seesaw", "single") for _ in range(2)]
    batch = clips("train", ROWS, "single")
    method = cast(MetaWeighted, METHODS[name](context()))
    method.begin_epoch(0, 0, 1)
    method.training_loss(nets[0], batch, step(nets[0], objectives[0])).backward()
    step(nets[1], objectives[1]).objective(batch, nets[1](**batch.inputs)).backward()
    for one, other in zip((nets[0], objectives[0]), (nets[1], objectives[1]), strict=True):
        assert [torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True)].count(False) == 0


def test_dropout_drops_the_same_in_each_pass_and_in_the_step() -> None:
    net, of = network(dropout=0.5), objective("cross_entropy", "single")
    batch = clips("train", ROWS, "single")
    torch.manual_seed(8)
    at, now = SampleLosses(step(net, of), batch), trainable(net)
    first, _ = pull_back(at, now)
    assert torch.equal(at(now), first)
    assert torch.equal(of.samples(net(**batch.inputs), batch.targets).detach(), first)
    assert not torch.equal(of.samples(net(**batch.inputs), batch.targets).detach(), first)


@pytest.mark.parametrize("name", ["l2rw", "mwn"])
def test_meta_clips_whose_loss_is_not_finite_are_noted(name: str) -> None:
    batch, meta = (Rows(torch.ones(3, 1), {"verb": torch.tensor([0, 1, 2])}) for _ in range(2))
    meta.video[1] = torch.inf
    net, of = Linear(torch.ones(3, 1), torch.zeros(3)), objective("cross_entropy", "single")
    noted: dict[int, list[bool]] = {}
    here = replace(step(net, of), note=lambda of, sound: noted.update({id(of): sound.tolist()}))
    cast(MetaWeighted, METHODS[name](context())).weights(cast(Any, batch), cast(Any, meta), here)
    assert noted[id(meta)] == [True, False, True]
    batch.video[0], meta.video[1] = torch.inf, 1.0
    cast(MetaWeighted, METHODS[name](context())).weights(cast(Any, batch), cast(Any, meta), here)
    assert noted[id(meta)] == [True] * 3, "the parameters that look ahead are not finite, no clip of the meta batch"


def test_frozen_parameters_have_no_say() -> None:
    net, of = network(), objective("cross_entropy", "single")
    net.backbone.requires_grad_(False)
    batch, meta = clips("train", ROWS, "single"), clips("val", META, "single")
    weights = LearningToReweight(context()).weights(batch, meta, step(net, of))
    with torch.no_grad():
        features, held = net.features(batch.video), net.features(meta.video)
    head = cast(nn.Sequential, net.heads["verb"])[1]

    def gradient(x: Tensor, y: Tensor) -> Tensor:
        found = torch.autograd.grad(cross_entropy(head(x), y), list(head.parameters()))
        return torch.cat([value.flatten() for value in found])

    towards = gradient(held, meta.targets["verb"])
    rows = [gradient(features[i : i + 1], batch.targets["verb"][i : i + 1]) @ towards for i in range(len(batch))]
    torch.testing.assert_close(weights, normalised(torch.stack(rows)))


@pytest.mark.parametrize("name", ["l2rw", "mwn"])
def test_mixed_precision_looks_ahead_in_it_and_multiplies_in_float32(name: str) -> None:
    net, of = network(norm=True).float(), objective("cross_entropy", "single")
    method = cast(MetaWeighted, METHODS[name](context()))
    batch, meta = clips("train", ROWS, "single"), clips("val", META, "single")
    entered = []

    def autocast() -> torch.autocast:
        entered.append(1)
        return torch.autocast("cpu", torch.bfloat16)

    plain = method.weights(batch, meta, step(net, of))
    mixed = method.weights(batch, meta, replace(step(net, of), autocast=autocast))
    assert len(entered) == {"l2rw": 1, "mwn": 2}[name]
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, plain)
    torch.testing.assert_close(mixed, plain, rtol=0.05, atol=0.02)


def test_mixed_clips_are_weighed_by_the_mixture_of_their_losses() -> None:
    net, of = network(), objective("cross_entropy", "single")
    torch.manual_seed(2)
    batch = Mixup(alpha=1.0)(clips("train", ROWS, "single"), np.random.default_rng(0))
    mixture = batch.mixture
    assert mixture is not None

    now = trainable(net)
    direction = {name: torch.ones_like(value) for name, value in now.items()}
    targets = batch.targets["verb"]
    mixed, own, other = (
        inner_products(SampleLosses(step(net, of), each), now, direction)
        for each in (
            batch,
            replace(batch, mixture=None),
            replace(batch, mixture=None, targets={"verb": targets[mixture.partners]}),
        )
    )
    torch.testing.assert_close(mixed, mixture.share * own + (1 - mixture.share) * other)
