"""OLTR: its formulas against plain loops, what each stage trains, and that runs survive kills and ranks."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from hoi_train.core.batches import ClipBatch, Mixture
from hoi_train.methods import oltr
from hoi_train.methods.fit import Features, Step
from hoi_train.methods.oltr import OLTR, centroid_loss
from hoi_train.models.heads import LinearHead
from hoi_train.models.meta_embedding import CosineNorm, MetaEmbedding
from tests.engine.processes import run
from tests.methods.staged_runs import (
    NOUN,
    assert_evaluate_repeats_training,
    changed,
    config_of,
    experiment,
    finished,
    weights,
)

METHOD = {"name": "oltr", "epochs": 2}
LATER = {f"heads.verb.{name}" for name in ("selector.weight", "selector.bias", "classifier.weight", "centroids")}


@pytest.fixture(scope="module")
def done(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with the small configuration's own loss, cdb_ce, that has come to its end."""
    return finished(tmp_path_factory.mktemp("runs"), manifest, METHOD)


def test_each_stage_trains_its_own(done: Path) -> None:
    still = {key for key in weights(done, 1).keys() - changed(done, 1, 6) if not key.startswith("normalize.")}
    assert still == LATER | {"heads.verb.remembers"}
    assert not weights(done, 6)["heads.verb.remembers"]
    moved = changed(done, 7, 12)
    assert {key for key in weights(done, 7).keys() - moved if not key.startswith("normalize.")} == {
        "heads.verb.remembers"
    }


def test_evaluate_gives_the_numbers_of_training_again(done: Path, tmp_path: Path) -> None:
    assert_evaluate_repeats_training(done, tmp_path / "log")


def loop_loss(x: Tensor, y: Tensor, m: Tensor, weight: float, margin: float, repulsion: float) -> float:
    """Return the loss, number by number."""
    features, centroids, labels = x.tolist(), m.tolist(), y.tolist()
    attraction = distance = 0.0
    for row, label in zip(features, labels, strict=True):
        for c, centroid in enumerate(centroids):
            squared = sum((a - b) ** 2 for a, b in zip(row, centroid, strict=True))
            attraction += squared / (2 * len(features)) if c == label else 0.0
            distance += squared / (len(features) * len(centroids)) if c != label else 0.0
    return weight * (attraction + repulsion * max(margin - distance, 0.0))


def example(scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    x = scale * torch.randn(6, 3, generator=draw, dtype=torch.float64)
    m = scale * torch.randn(4, 3, generator=draw, dtype=torch.float64)
    return x.requires_grad_(), torch.tensor([0, 0, 0, 2, 3, 2]), m.requires_grad_()


@pytest.mark.parametrize("scale", [1.0, 9.0])  # within the margin, and beyond it
@pytest.mark.parametrize("weight", [1.0, 0.01])
def test_the_loss_of_the_centroids_against_a_plain_loop(scale: float, weight: float) -> None:
    x, y, m = example(scale)
    options: dict[str, Any] = {"weight": weight, "margin": 10.0, "repulsion": 0.5}
    loss = centroid_loss(x, y, m, **options)
    assert loss.item() == pytest.approx(loop_loss(x, y, m, **options), rel=1e-12)
    assert torch.autograd.gradcheck(lambda a, b: centroid_loss(a, y, b, **options), (x, m))
    repelled = torch.autograd.grad(loss, m)[0][1].abs().max()  # no sample has class 1
    assert (repelled > 0) == (scale == 1.0)


@pytest.mark.parametrize("weight", [1.0, 0.01])
def test_the_released_gradient_of_the_centroids(weight: float) -> None:
    x, y, m = example(9.0)
    exact, released = (centroid_loss(x, y, m, weight=weight, gradient=kind) for kind in ("exact", "released"))
    assert released.item() == pytest.approx(exact.item(), rel=1e-12)
    (ours, ours_m), (theirs, theirs_m) = (torch.autograd.grad(loss, (x, m)) for loss in (exact, released))
    torch.testing.assert_close(theirs, ours)
    for c in range(4):
        members = [i for i in range(6) if y[i] == c]
        pull = sum((m[c] - x[i] for i in members), start=torch.zeros(3).double()).detach()
        torch.testing.assert_close(ours_m[c], weight * pull / 6)
        torch.testing.assert_close(theirs_m[c], pull / ((1 + len(members)) * 6))


@pytest.mark.parametrize(("margin", "pushes"), [(3.0, True), (2.4, False)])
def test_two_ranks_equal_one_with_the_doubled_batch(
    margin: float, pushes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y, m = example()
    shards = [(x[:3], y[:3]), (x[3:], y[3:])]
    spaces: list[Tensor] = []
    with monkeypatch.context() as patch:
        patch.setattr(oltr, "sum_over_ranks", lambda space: spaces.append(space) or space)
        for shard in shards:
            centroid_loss(*shard, m, margin=margin)
        one, other = (bool(space > 0) for space in spaces)
        assert one != other, "one shard alone is within the margin, the other beyond it"
        patch.setattr(oltr, "sum_over_ranks", lambda _: sum(spaces))
        halves = [centroid_loss(*shard, m, margin=margin, weight=1.0, repulsion=0.5) for shard in shards]
    ranks = torch.stack(halves).mean()
    whole = centroid_loss(x, y, m, margin=margin, weight=1.0, repulsion=0.5)
    torch.testing.assert_close(ranks, whole)
    ranks_gradient, gradient = (torch.autograd.grad(loss, m)[0] for loss in (ranks, whole))
    torch.testing.assert_close(ranks_gradient, gradient)
    assert bool(gradient[1].any()) == pushes  # no sample has class 1


def test_the_released_gradient_is_the_same_on_two_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, m = example()
    whole = centroid_loss(x, y, m, margin=0.0, gradient="released")
    with monkeypatch.context() as patch:
        counts = y.bincount(minlength=4)  # of both ranks
        patch.setattr(oltr, "sum_over_ranks", lambda mine: mine if mine.is_floating_point() else counts)
        ranks = ([0, 1, 3], [2, 4, 5])
        halves = [centroid_loss(x[rows], y[rows], m, margin=0.0, gradient="released") for rows in ranks]
    joint, gradient = (torch.autograd.grad(loss, m)[0] for loss in (torch.stack(halves).mean(), whole))
    torch.testing.assert_close(joint, gradient)


def test_the_meta_embedding_against_a_plain_loop() -> None:
    torch.manual_seed(0)
    asked = LinearHead(4, 3)
    head = MetaEmbedding(asked, 4, 3, reach=5.0, scale=8.0).double()
    features = torch.randn(6, 4).double()
    assert torch.equal(head(features), asked(features)), "before it remembers it is the wrapped head"
    centroids = torch.randn(3, 4).double()
    head.remember(centroids)
    head.requires_grad_(False)
    logits = head(features)
    for i, x in enumerate(features):
        asks = [math.exp(float(asked.linear.weight[c] @ x + asked.linear.bias[c])) for c in range(3)]
        memory = sum(ask / sum(asks) * m for ask, m in zip(asks, centroids, strict=True))
        selector = torch.tanh(head.selector.weight @ x + head.selector.bias)
        reach = 5.0 / min(float((x - m).norm()) for m in centroids)
        infused = reach * (x + selector * memory)
        length = float(infused.norm())
        for c, w in enumerate(head.classifier.weight):
            wanted = 8.0 * length / (1 + length) * float(infused @ w) / (length * float(w.norm()))
            assert float(logits[i, c]) == pytest.approx(wanted, rel=1e-9)


def test_classification_moves_all_but_the_centroids() -> None:
    head = MetaEmbedding(LinearHead(4, 3), 4, 3)
    head.remember(torch.randn(3, 4))
    head(torch.randn(5, 4)).square().sum().backward()
    still = {name for name, parameter in head.named_parameters() if parameter.grad is None}
    assert still == {"centroids"}


@pytest.mark.parametrize("feature", [torch.zeros(1, 4), torch.ones(1, 4), torch.full((1, 4), 1e4)])
def test_a_feature_on_a_centroid_and_extreme_ones_are_finite(feature: Tensor) -> None:
    head = MetaEmbedding(LinearHead(4, 3), 4, 3)
    head.remember(torch.stack([torch.zeros(4), torch.ones(4), -torch.ones(4)]))
    features = feature.clone().requires_grad_()
    logits = head(features)
    logits.sum().backward()
    assert logits.isfinite().all()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert (logits.abs() <= 16).all()


def test_the_cosine_of_no_feature_is_zero_and_has_a_gradient() -> None:
    features = torch.zeros(1, 4, requires_grad=True)
    logits = CosineNorm(4, 2)(features)
    logits.sum().backward()
    assert logits.tolist() == [[0, 0]]
    assert features.grad is not None
    assert features.grad.isfinite().all()


def test_half_precision_is_computed_in_full() -> None:
    head = MetaEmbedding(LinearHead(8, 3), 8, 3)
    head.remember(100 + torch.randn(3, 8))
    features = (100 + torch.randn(5, 8)).bfloat16().float()
    with torch.no_grad():
        head.head.linear.weight.zero_()  # the wrapped head computes as any head does
        full = head(features)
        with torch.autocast("cpu", torch.bfloat16):
            half = head(features.bfloat16())
    torch.testing.assert_close(half, full, rtol=1e-2, atol=1e-2)


def test_the_second_stage_begins_with_the_class_means(manifest: Path, tmp_path: Path) -> None:
    parts = experiment(tmp_path, manifest, METHOD, tasks={"noun": NOUN})
    head, width = cast(MetaEmbedding, parts.model.heads["verb"]), parts.model.backbone.num_features
    train = torch.randn(6, width)
    found = Features(train, {"verb": torch.tensor([0, 0, 1, 1, 1, 0]), "noun": torch.zeros(6, 2)})
    noun = {key: value.clone() for key, value in parts.model.heads["noun"].state_dict().items()}
    parts.method.begin_stage(0, parts.model, pytest.fail)
    assert not head.remembers
    parts.method.begin_stage(1, parts.model, lambda split: found)
    assert head.remembers
    torch.testing.assert_close(head.centroids[0], train[[0, 1, 5]].mean(0))
    torch.testing.assert_close(head.centroids[1], train[[2, 3, 4]].mean(0))
    torch.testing.assert_close(head.centroids[2], train.mean(0))  # verb 2 has no clip
    assert all(torch.equal(value, noun[key]) for key, value in parts.model.heads["noun"].state_dict().items())


class Pooled(nn.Module):
    """A recognizer whose features are given."""

    def __init__(self, heads: nn.ModuleDict, features: Tensor) -> None:
        super().__init__()
        self.heads, self.given = heads, features

    def forward(self, video: Tensor) -> dict[str, Tensor]:
        return {task: head(self.given) for task, head in self.heads.items()}


@pytest.mark.parametrize("mixed", [False, True])
def test_the_loss_is_the_objective_and_that_of_the_centroids(mixed: bool, manifest: Path, tmp_path: Path) -> None:
    parts = experiment(tmp_path, manifest, {**METHOD, "weight": 0.5, "margin": 3.0})
    method, head = cast(OLTR, parts.method), cast(MetaEmbedding, parts.model.heads["verb"])
    features, target = torch.randn(4, parts.model.backbone.num_features), torch.tensor([0, 1, 2, 0])
    model = Pooled(parts.model.heads, features).train()
    batch = ClipBatch(torch.zeros(4, 3, 1, 2, 2, dtype=torch.uint8), {"verb": target}, torch.arange(4), tuple("abcd"))
    share, partners = 0.7, torch.tensor([3, 2, 1, 0])
    if mixed:
        batch = replace(batch, mixture=Mixture(partners, share))
    objective: Any = lambda batch, logits, weights=None: logits["verb"].sum() * 0 + 7.0  # noqa: E731
    step = Step(objective, pytest.fail, cast(Any, model), 0.1, pytest.fail)
    assert method.training_loss(model, batch, step).item() == 7.0, "the first stage has the objective alone"
    head.remember(torch.randn(3, features.shape[1]))
    own, theirs = (
        float(centroid_loss(features, labels, head.centroids, weight=0.5, margin=3.0).detach())
        for labels in (target, target[partners])
    )
    wanted = share * own + (1 - share) * theirs if mixed else own
    loss = method.training_loss(model, batch, step)
    assert loss.item() == pytest.approx(7.0 + wanted, rel=1e-6)
    assert head.take_features() is None, "nothing of the batch is kept"


@pytest.mark.parametrize(
    ("method", "tasks", "message"),
    [
        ({"name": "oltr"}, ["verb"], "method.oltr: epochs = 60 for the second stage leave none of training.epochs = 4"),
        ({"name": "oltr", "epochs": 2}, ["noun"], "method.oltr: for single-label tasks only, and noun is multi"),
        ({"name": "oltr", "epochs": 2, "centroid_gradient": "true"}, ["verb"], "is not one of 'exact' or 'released'"),
    ],
)
def test_what_does_not_fit_the_run_is_refused(
    method: Any, tasks: list[str], message: str, manifest: Path, tmp_path: Path
) -> None:
    path = config_of(tmp_path, manifest, method, tasks={"noun": NOUN} if "noun" in tasks else {})
    text = path.read_text()
    if "verb" not in tasks:
        import yaml

        config = yaml.safe_load(text)
        del config["tasks"]["verb"]
        path.write_text(yaml.safe_dump(config))
    assert run(["train", str(path)], tmp_path / "log") == 2
    log = (tmp_path / "log").read_text()
    assert message in log
    assert "Traceback" not in log
