"""Classifiers set without training: tau-normalisation, nearest class mean, post-hoc logit adjustment."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from hoi_train.core.records import ClassCounts, ClassList, Task
from hoi_train.losses.logit_adjustment import logit_shift
from hoi_train.methods.adjusted import NCM, SWEEP, PostHocLogitAdjustment, TauNorm, best_tau, normalised
from hoi_train.methods.fit import Context, Features
from hoi_train.models.heads import LinearHead
from hoi_train.models.nearest_mean import NearestMean, class_means
from hoi_train.tracking.events import read_events
from tests.engine.processes import run
from tests.methods.staged_runs import (
    NOUN,
    assert_evaluate_repeats_training,
    config_of,
    experiment,
    finished,
    weights,
)
from tests.small import TRAIN_VERBS

RUNS: dict[str, Any] = {
    "tau_norm": "tau_norm",
    "tau_norm fixed": {"name": "tau_norm", "tau": 0.5},
    "ncm": "ncm",
    "post_hoc": {"name": "post_hoc_logit_adjustment", "tau": 1.5},
}
LAST = 9  # steps of the three epochs that train


@pytest.fixture(scope="module")
def plain(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The network of a plain run that has trained as long."""
    run_dir = finished(tmp_path_factory.mktemp("plain"), manifest, "fit", training={"epochs": 3})
    return weights(run_dir, LAST)


@pytest.fixture(scope="module", params=RUNS)
def done(request: pytest.FixtureRequest, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The name of a run, and its directory once it has come to its end."""
    return request.param, finished(tmp_path_factory.mktemp("runs"), manifest, RUNS[request.param])


def test_the_last_epoch_is_validated_and_trains_nothing(done: tuple[str, Path]) -> None:
    events = read_events(done[1] / "events.jsonl")
    assert [row["step"] for row in events if row["event"] == "train"] == list(range(1, LAST + 1))
    validations = [row for row in events if row["event"] == "evaluation" and row["split"] == "val"]
    assert [row["epoch"] for row in validations] == [0, 1, 2, 3]


def test_all_but_the_classifier_is_as_a_plain_run_left_it(done: tuple[str, Path], plain: dict[str, Tensor]) -> None:
    name, run_dir = done
    found = weights(run_dir, LAST)
    prefix = "heads.verb.head.linear" if name == "ncm" else "heads.verb.linear"
    weight, bias = found[f"{prefix}.weight"], found[f"{prefix}.bias"]
    before = plain["heads.verb.linear.weight"], plain["heads.verb.linear.bias"]
    for key in plain:
        assert key.startswith("heads.") or torch.equal(found[key], plain[key]), key
    if name == "ncm":
        assert torch.equal(weight, before[0])
        assert torch.equal(bias, before[1])
        assert found["heads.verb.fitted"]
        assert found["heads.verb.centroids"].any(1).all()
    elif name == "post_hoc":
        shift = logit_shift(ClassCounts.single([TRAIN_VERBS.count(verb) for verb in range(3)]), 1.5)
        assert torch.equal(weight, before[0])
        assert torch.equal(bias, before[1] - shift.float())
    else:
        state = torch.load(run_dir / f"checkpoints/step_{LAST:08d}/method.pt", weights_only=True)
        tau = state["tau"]["verb"]
        assert tau == 0.5 if name.endswith("fixed") else tau in SWEEP
        assert torch.equal(weight, normalised(before[0], tau))
        assert not bias.any()


def test_evaluate_gives_the_numbers_of_training_again(done: tuple[str, Path], tmp_path: Path) -> None:
    assert_evaluate_repeats_training(done[1], tmp_path / "log")


def given(features: Tensor, **targets: Tensor) -> Any:
    """Return what gives these features for every split."""
    return lambda split: Features(features, targets)


def test_tau_is_the_best_of_the_sweep() -> None:
    draw = torch.Generator().manual_seed(1)
    task = Task("verb", ClassList(tuple("abcd")), "single")
    for _ in range(20):
        lengths = torch.tensor([8.0, 3.0, 1.0, 0.3])[:, None]
        weight = lengths * torch.randn(4, 6, generator=draw)
        features, target = torch.randn(60, 6, generator=draw), torch.randint(3, (60,), generator=draw)  # d is absent
        features += 2 * torch.nn.functional.normalize(weight, dim=1)[target]
        recalls = []
        for tau in torch.linspace(0, 2, 21, dtype=torch.float64).tolist():
            hits = {c: [] for c in range(3)}
            for x, y in zip(features.double(), target.tolist(), strict=True):
                scores = [float(x @ w / w.norm() ** tau) for w in weight.double()]
                hits[y].append(scores.index(max(scores)) == y)
            recalls.append(sum(sum(found) / len(found) for found in hits.values()) / 3)
        best = max(recalls)
        found = best_tau(weight, features, target, task)
        assert found == pytest.approx(0.1 * next(i for i, value in enumerate(recalls) if value > best - 1e-12))


def test_tau_of_equal_recalls_is_the_smallest() -> None:
    task = Task("verb", ClassList(("a", "b")), "single")
    assert best_tau(torch.eye(2), torch.eye(2), torch.arange(2), task) == 0


def test_the_chosen_tau_is_applied_and_kept(manifest: Path, tmp_path: Path) -> None:
    parts = experiment(tmp_path, manifest, "tau_norm")
    linear, method = cast(LinearHead, parts.model.heads["verb"]).linear, cast(TauNorm, parts.method)
    with torch.no_grad():
        linear.weight.mul_(torch.tensor([[9.0], [1.0], [0.1]]))
    before = linear.weight.detach().clone()
    target = torch.arange(30) % 3
    features = torch.randn(30, before.shape[1], generator=torch.Generator().manual_seed(0))
    features += 3 * torch.nn.functional.normalize(before, dim=1)[target]
    method.begin_stage(0, parts.model, pytest.fail)
    assert torch.equal(linear.weight, before)
    method.begin_stage(1, parts.model, given(features, verb=target))
    tau = best_tau(before, features, target, parts.data.tasks["verb"])
    assert tau > 0
    assert torch.equal(linear.weight, normalised(before, tau))
    assert method.state_dict() == {"tau": {"verb": tau}}
    again = TauNorm(method.context)
    again.load_state_dict(method.state_dict())
    assert again.chosen == method.chosen


def test_a_class_vector_of_zeros_stays() -> None:
    assert normalised(torch.zeros(2, 3), 1.0).tolist() == torch.zeros(2, 3).tolist()


@pytest.mark.parametrize("distance", ["l2", "cosine"])
@pytest.mark.parametrize("kind", ["un", "l2n", "cl2n"])
def test_nearest_mean_against_a_plain_loop(kind: Any, distance: Any) -> None:
    draw = torch.Generator().manual_seed(2)
    features, queries = (torch.randn(n, 4, generator=draw, dtype=torch.float64) + 1 for n in (20, 7))
    target = torch.randint(3, (20,), generator=draw)  # class 3 has no samples
    mean = [sum(row[j] for row in features.tolist()) / 20 for j in range(4)]

    def prepared(x: list[float]) -> list[float]:
        y = [a - b for a, b in zip(x, mean, strict=True)] if kind == "cl2n" else x
        length = sum(a * a for a in y) ** 0.5 if kind != "un" else 1.0
        return [a / length for a in y]

    centroids = []
    for c in range(3):
        members = [prepared(row) for row, label in zip(features.tolist(), target.tolist(), strict=True) if label == c]
        centroids.append([sum(column) / len(members) for column in zip(*members, strict=True)])
    wanted = []
    for row in queries.tolist():
        x = prepared(row)
        if distance == "l2":
            scores = [-sum((a - b) ** 2 for a, b in zip(x, m, strict=True)) for m in centroids]
        else:
            scores = [sum(a * b for a, b in zip(x, m, strict=True)) / 4 for m in centroids]
        wanted.append(scores)
    head = NearestMean(nn.Linear(4, 4), 4, 4, features=kind, distance=distance).double()
    assert torch.equal(head(queries), head.head(queries)), "before it is fitted it is the head"
    head.fit(features, target)
    logits = head(queries)
    torch.testing.assert_close(logits[:, :3], torch.tensor(wanted, dtype=torch.float64))
    assert (logits[:, 3] < logits[:, :3].amin(1)).all(), "a class without samples comes last"
    assert head(torch.zeros(1, 4).double()).isfinite().all()
    again = NearestMean(nn.Linear(4, 4), 4, 4, features=kind, distance=distance).double()
    again.load_state_dict(head.state_dict())
    assert torch.equal(again(queries), logits), "a checkpoint is enough to evaluate"


def test_features_in_half_precision_are_compared_in_full() -> None:
    head = NearestMean(nn.Linear(4, 2), 4, 2, features="un", distance="l2")
    head.fit(torch.tensor([[100.0, 0, 0, 0], [100.5, 0, 0, 0]]), torch.arange(2))
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(torch.tensor([[100.5, 0, 0, 0]], dtype=torch.bfloat16))
    assert logits.tolist() == [[-0.25, 0.0]]


def test_class_means_of_no_samples_are_zero() -> None:
    means, seen = class_means(torch.ones(2, 3), torch.tensor([1, 1]), 3)
    assert means.tolist() == [[0] * 3, [1] * 3, [0] * 3]
    assert seen.tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["tau_norm", "ncm", "post_hoc"])
def test_heads_of_several_labels(name: str, manifest: Path, tmp_path: Path) -> None:
    parts = experiment(tmp_path, manifest, RUNS[name], tasks={"noun": NOUN})
    head = cast(LinearHead, parts.model.heads["noun"])
    before = {key: value.clone() for key, value in head.state_dict().items()}
    width = before["linear.weight"].shape[1]
    noun = torch.zeros(6, 2)
    parts.method.begin_stage(1, parts.model, given(torch.randn(6, width), verb=torch.arange(6) % 3, noun=noun))
    assert torch.equal(head.linear.weight, before["linear.weight"])
    shift = logit_shift(parts.data.counts["train"]["noun"], 1.5).float() if name == "post_hoc" else torch.zeros(2)
    assert torch.equal(head.linear.bias, before["linear.bias"] - shift)
    assert torch.equal(shift, torch.zeros(2)) == (name != "post_hoc")


@pytest.mark.parametrize("method", [TauNorm, NCM, PostHocLogitAdjustment])
def test_one_epoch_is_not_enough(method: Any, manifest: Path, tmp_path: Path) -> None:
    context = replace(experiment(tmp_path, manifest, "fit").method.context, epochs=1)
    with pytest.raises(ValueError, match=r"training\.epochs must be at least 2"):
        method(context)


def context_of(folder: Path, manifest: Path, **changes: Any) -> Context:
    return replace(experiment(folder, manifest, "fit", tasks={"noun": NOUN}).method.context, **changes)


def test_a_tau_cannot_be_chosen_without_validation(manifest: Path, tmp_path: Path) -> None:
    context = context_of(tmp_path, manifest)
    without = replace(context, data=replace(context.data, labels={"train": context.data.labels["train"]}))
    with pytest.raises(ValueError, match="needs clips in the split 'val', and there are none; give tau a number"):
        TauNorm(without)
    assert TauNorm(without, tau=0.7).fixed == 0.7


@pytest.mark.parametrize("method", [TauNorm, NCM])
def test_a_run_of_multi_label_tasks_is_refused(method: Any, manifest: Path, tmp_path: Path) -> None:
    context = context_of(tmp_path, manifest)
    context = replace(context, data=replace(context.data, tasks={"noun": context.data.tasks["noun"]}))
    with pytest.raises(ValueError, match="for single-label tasks only, and noun is multi-label"):
        method(context)


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("tau_norm", {"head": "cosine"}, "method.tau_norm: changes class vectors and biases: tasks.verb.head must be"),
        ("post_hoc_logit_adjustment", {"head": "cosine"}, "tasks.verb.head must be linear"),
        ({"name": "tau_norm", "tau": "best"}, {}, "method.tau"),
        ({"name": "ncm", "features": "l2"}, {}, "method.features: 'l2' is not one of 'un', 'l2n' or 'cl2n'"),
    ],
)
def test_what_does_not_fit_the_run_is_refused(
    method: Any, changes: dict[str, Any], message: str, manifest: Path, tmp_path: Path
) -> None:
    path = config_of(tmp_path, manifest, method, tasks={"verb": {"groups": {"name": "top_k", "k": 1}, **changes}})
    assert run(["train", str(path)], tmp_path / "log") == 2
    text = (tmp_path / "log").read_text()
    assert message in text
    assert "Traceback" not in text
