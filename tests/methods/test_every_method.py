"""What every method must do: go on from any step bit-identically, and train on two ranks as in one process."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

from hoi_train.config import RunConfig, load_config
from hoi_train.engine.experiment import assemble
from hoi_train.engine.train import train
from hoi_train.methods import METHODS
from hoi_train.tracking.events import read_events
from tests.engine.test_resume import assert_identical, final_state, undisturbed_rows
from tests.methods.staged_runs import weights
from tests.small import SMALLEST, make_config

SHORT: dict[str, dict[str, Any]] = {  # what a run of two epochs and few clips needs
    "l2rw": {"per_class": 1},
    "mwn": {"per_class": 1, "lr": 0.1},
    "crt": {"epochs": 1},
    "lws": {"epochs": 1},
    "oltr": {"epochs": 1},
}
TWO_TASKS = {"noun": {"loss": {"name": "cb_focal"}, "groups": {"name": "top_k", "k": 1}}}
RUNS: dict[str, dict[str, Any]] = {
    **{method: {"method": {"name": method, **SHORT.get(method, {})}} for method in METHODS},
    "lws frozen": {"method": {"name": "lws", "epochs": 1, "frozen_statistics": True}},
    "oltr released, averaged": {
        "method": {"name": "oltr", "epochs": 1, "centroid_gradient": "released"},
        "training": {"ema_decay": 0.9},
    },
    "mwn accumulated": {
        "method": {"name": "mwn", "meta_batch_size": 3, **SHORT["mwn"]},
        "loss": "seesaw",
        "training": {"batch_size": 2, "accumulate": 2},
        "data": {"workers": 1},
    },
    "mwn label_noise mixed": {
        "method": {"name": "mwn", "per_class": 2, "split": "train", "form": "label_noise"},
        "loss": "cross_entropy",
        "tasks": TWO_TASKS,
        "data": {"mixing": "mixup"},
    },
}
every_method = pytest.mark.parametrize("method", METHODS)


def run_of(folder: Path, manifest: Path, name: str, **changes: Any) -> RunConfig:
    """Return a run that keeps the state after each of its steps."""
    asked = {**RUNS[name], "model": SMALLEST, **changes}
    asked["training"] = {"epochs": 2, **RUNS[name].get("training", {}), **changes.get("training", {})}
    return load_config(make_config(folder, manifest, checkpoints={"every_steps": 1, "keep": 99}, **asked))


@pytest.mark.parametrize(
    ("name", "every"),
    [*((name, 2) for name in METHODS), *(pytest.param(name, 1, marks=pytest.mark.slow) for name in RUNS)],
)
def test_a_run_goes_on_from_any_step_bit_identically(name: str, every: int, manifest: Path, tmp_path: Path) -> None:
    config = run_of(tmp_path / "whole", manifest, name)
    assert train(config, quiet=True) == 0
    whole = config.run_dir
    events, states = read_events(whole / "events.jsonl"), sorted((whole / "checkpoints").iterdir())
    assert len(states) == max(row["step"] for row in events) >= 3
    for number, newest in list(enumerate(states[:-1]))[::every]:
        again = run_of(tmp_path / newest.name, manifest, name, data={**RUNS[name].get("data", {}), "workers": 0})
        step = int(newest.name.removeprefix("step_"))
        for state in states[: number + 1]:
            shutil.copytree(state, again.run_dir / "checkpoints" / state.name)
        before = [json.dumps(row) for row in events if row["step"] <= step and row["event"] != "end"]
        (again.run_dir / "events.jsonl").write_text("".join(f"{row}\n" for row in before))
        assert train(again, quiet=True) == 0
        assert_identical(final_state(whole), final_state(again.run_dir), newest.name)
        assert undisturbed_rows(again.run_dir) == undisturbed_rows(whole)
    if name.startswith("mwn"):
        fresh = assemble(config).method.state_dict()["net"]
        assert not torch.equal(final_state(whole)["method.pt"]["net"]["0.weight"], fresh["0.weight"])


def end_of(method: str, folder: Path, manifest: Path, world: int = 1, **changes: Any) -> dict[str, Any]:
    """Return what a run in float64 ends with, without dropout and without statistics of a rank's own batch."""
    training = {"precision": "64-true", "batch_size": 4 // world}
    tasks = {"verb": {"head": {"dropout": 0.0}}}
    own = folder / f"rank{os.environ.get('RANK', 0)}"
    config = run_of(own, manifest, method, training=training, tasks=tasks, runs=str(folder), **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.BatchNorm3d, "train", lambda module, mode=True: nn.Module.train(module, False))
        assert train(config, quiet=True) == 0
    return final_state(config.run_dir)


def one_rank(rank: int, folder: Path, manifest: Path, port: int) -> None:
    """Be one of two ranks, as torchrun starts them: the store that they meet at is the launcher's."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(number) for name, number in numbers.items()})
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    torch.set_num_threads(1)
    for method in METHODS:
        end_of(method, folder / method, manifest, world=2)
    end_of("oltr", folder / "mixed", manifest, world=2, data={"mixing": "mixup"})
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs of every method that two ranks have trained."""
    folder = tmp_path_factory.mktemp("ranks")
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    spawn(one_rank, args=(folder, manifest, store.port), nprocs=2)
    return folder


@pytest.mark.process
@every_method
def test_two_ranks_are_one_process_with_the_doubled_batch(
    method: str, ranks: Path, manifest: Path, tmp_path: Path
) -> None:
    joint, alone = final_state(ranks / method / "small-seed3"), end_of(method, tmp_path, manifest)
    for part in ("model.pt", "objective.pt"):
        torch.testing.assert_close(joint[part], alone[part], rtol=1e-9, atol=1e-12)


@pytest.mark.process
def test_two_ranks_go_through_the_change_of_stage_with_mixed_clips(ranks: Path) -> None:
    """Each rank mixes the clips of its own batch, so that no single process trains the same."""
    ended, before = (weights(ranks / "mixed" / "small-seed3", step) for step in (6, 3))
    moved = {key for key in ended if not torch.equal(ended[key], before[key])}
    assert {f"heads.verb.{name}" for name in ("selector.weight", "classifier.weight", "centroids")} <= moved
    assert ended["heads.verb.remembers"]
    assert not before["heads.verb.remembers"]
