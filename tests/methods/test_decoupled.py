"""cRT and LWS: what the second stage moves, what it draws, and that runs survive kills and ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from hoi_train.methods.decoupled import ScaledHead, TwoStages
from hoi_train.models.heads import LinearHead
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
from tests.small import TRAIN_VERBS

CRT = {"name": "crt", "epochs": 2}
LWS = {"name": "lws", "epochs": 2}
RUNS: dict[str, dict[str, Any]] = {  # with the small configuration's own loss, cdb_ce
    "crt": CRT,
    "crt frozen": {**CRT, "frozen_statistics": True},
    "lws": LWS,
    "lws frozen": {**LWS, "frozen_statistics": True},
}
CLASSIFIER = {"crt": {"heads.verb.linear.weight", "heads.verb.linear.bias"}, "lws": {"heads.verb.scale"}}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module", params=RUNS)
def done(request: pytest.FixtureRequest, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The name of a run, and its directory once it has come to its end."""
    return request.param, finished(tmp_path_factory.mktemp("runs"), manifest, RUNS[request.param])


def method_of(folder: Path, manifest: Path, method: Any, **changes: Any) -> TwoStages:
    return cast(TwoStages, experiment(folder, manifest, method, **changes).method)


def test_the_second_stage_moves_the_classifier_alone(done: tuple[str, Path]) -> None:
    name, run_dir = done
    moved = changed(run_dir, before=6, after=12)
    learned = {key for key in moved if not key.endswith(STATISTICS)}
    assert learned == CLASSIFIER[name.split()[0]]
    assert (moved == learned) == name.endswith("frozen")


def test_the_first_stage_moves_all_but_the_scales(done: tuple[str, Path]) -> None:
    name, run_dir = done
    still = weights(run_dir, 1).keys() - changed(run_dir, before=1, after=6)
    assert {key for key in still if not key.startswith("normalize.")} == (
        {"heads.verb.scale"} if name.startswith("lws") else set()
    )
    if name.startswith("lws"):
        assert weights(run_dir, 6)["heads.verb.scale"].tolist() == [1, 1, 1]


def test_evaluate_gives_the_numbers_of_training_again(done: tuple[str, Path], tmp_path: Path) -> None:
    assert_evaluate_repeats_training(done[1], tmp_path / "log")


def test_crt_draws_new_heads_as_configured(manifest: Path, tmp_path: Path) -> None:
    parts = experiment(tmp_path, manifest, CRT, tasks={"noun": NOUN})
    before = {name: head.state_dict()["linear.weight"].clone() for name, head in parts.model.heads.items()}
    parts.method.begin_stage(0, parts.model, pytest.fail)
    assert all(torch.equal(head.linear.weight, before[name]) for name, head in parts.model.heads.items())
    torch.manual_seed(5)
    parts.method.begin_stage(1, parts.model, pytest.fail)
    torch.manual_seed(5)
    for name, head in parts.model.heads.items():
        fresh = parts.method.context.make_head(name, parts.model.backbone.num_features)
        assert all(torch.equal(value, fresh.state_dict()[key]) for key, value in head.state_dict().items())
        assert not torch.equal(head.linear.weight, before[name])
    noun = cast(LinearHead, parts.model.heads["noun"])
    assert noun.linear.bias.sigmoid().tolist() == pytest.approx([0.1, 0.1])  # the prior, which a plain reset loses


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("name", ["crt", "lws"])
def test_the_schedule_is_a_function_of_the_epoch(name: str, frozen: bool, manifest: Path, tmp_path: Path) -> None:
    parts = experiment(tmp_path, manifest, {"name": name, "epochs": 2, "frozen_statistics": frozen})

    def seen(epoch: int) -> tuple[list[bool], bool, bool]:
        parts.model.train()
        parts.method.schedule(epoch, parts.model)
        flags = [parameter.requires_grad for parameter in parts.model.parameters()]
        return flags, any(module.training for module in parts.model.backbone.modules()), parts.model.heads.training

    first, second = seen(0), seen(2)
    assert (seen(1), seen(3), seen(3), seen(0)) == (first, second, second, first)
    assert first[1:] == (True, True)
    assert second[1:] == (not frozen, True)
    assert sum(second[0]) == (2 if name == "crt" else 1)


@pytest.mark.parametrize(
    ("sampling", "shares"), [("class_balanced", [1, 1, 1]), ("square_root", [7**0.5, 3**0.5, 2**0.5])]
)
def test_the_second_stage_draws_by_its_rule(sampling: str, shares: list[float], manifest: Path, tmp_path: Path) -> None:
    method = method_of(
        tmp_path, manifest, {"name": "crt", "epochs": 400, "sampling": sampling}, training={"epochs": 401}
    )
    assert method.sampler(0) is None
    drawn = [method.sampler(epoch) for epoch in range(1, 401)]
    assert all(found is not None and len(found) == len(TRAIN_VERBS) for found in drawn)
    verbs = torch.tensor(TRAIN_VERBS)[torch.cat(cast(list[torch.Tensor], drawn))]
    measured = torch.bincount(verbs) / len(verbs)
    assert measured.tolist() == pytest.approx([share / sum(shares) for share in shares], abs=0.03)


def test_the_second_stage_may_draw_clips_as_they_come(manifest: Path, tmp_path: Path) -> None:
    method = method_of(tmp_path, manifest, {**CRT, "sampling": "instance"}, data={"sampling": "class_balanced"})
    assert [method.sampler(epoch) is None for epoch in range(4)] == [False, False, True, True]


def test_a_progressive_first_stage_ends_with_the_stage(manifest: Path, tmp_path: Path) -> None:
    method = method_of(tmp_path, manifest, {**CRT, "epochs": 1}, data={"sampling": "progressive"})
    labels = method.context.data.labels["train"]["verb"]
    rule = method.context.sampling
    assert rule.draw(labels, 2, 3, seed=3).tolist() == method.sampler(2).tolist()


def test_classes_of_the_chosen_task_are_balanced(manifest: Path, tmp_path: Path) -> None:
    balanced = {"name": "lws", "epochs": 400, "task": "noun"}
    method = method_of(tmp_path, manifest, balanced, training={"epochs": 401}, tasks={"noun": NOUN})
    drawn = torch.cat([cast(torch.Tensor, method.sampler(epoch)) for epoch in range(1, 401)])
    carried = method.context.data.labels["train"]["noun"][drawn].float()
    assert carried.any(1).all()  # a clip without a noun is drawn by no noun
    assert carried.mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.03)


def test_scales_multiply_the_bias_too() -> None:
    head = ScaledHead(LinearHead(4, 3), 3)
    features = torch.randn(5, 4)
    plain = head.head(features)
    assert torch.equal(head(features), plain)
    head.scale.data.copy_(torch.tensor([2.0, 0.5, -1.0]))
    assert torch.equal(head(features), plain * torch.tensor([2.0, 0.5, -1.0]))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "crt", "epochs": 4}, "method.crt: epochs = 4 for the second stage leave none of training.epochs = 4"),
        ({**LWS, "task": "verbs"}, "method.lws: task: no task 'verbs'; this run has verb; did you mean 'verb'?"),
        ({**CRT, "sampling": "progressive"}, "method.sampling: 'progressive' is not one of 'class_balanced'"),
    ],
)
def test_what_does_not_fit_the_run_is_refused(
    method: dict[str, Any], message: str, manifest: Path, tmp_path: Path
) -> None:
    assert run(["train", str(config_of(tmp_path, manifest, method))], tmp_path / "log") == 2
    text = (tmp_path / "log").read_text()
    assert message in " ".join(text.split())
    assert "Traceback" not in text
