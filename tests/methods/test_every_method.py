"""What every method must do: go on from any step bit-identically, and train on two ranks as in one process."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

from hoi_train.config import RunConfig, load_config
from hoi_train.engine.train import train
from hoi_train.methods import METHODS
from hoi_train.tracking.events import read_events
from tests.engine.test_resume import assert_identical, final_state, undisturbed_rows
from tests.small import make_config, make_data

SHORT: dict[str, dict[str, Any]] = {  # what a run of two epochs and few clips needs
    "l2rw": {"per_class": 1},
    "mwn": {"per_class": 1, "lr": 0.1},
    "crt": {"epochs": 1},
    "lws": {"epochs": 1},
    "oltr": {"epochs": 1},
}
every_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def run_of(folder: Path, manifest: Path, method: str, **changes: Any) -> RunConfig:
    """Return a run that keeps the state after each of its steps."""
    method_config = {"name": method, **SHORT.get(method, {})}
    training, kept = {"epochs": 2, **changes.pop("training", {})}, {"every_steps": 1, "keep": 99}
    path = make_config(folder, manifest, method=method_config, training=training, checkpoints=kept, **changes)
    return load_config(path)


@every_method
def test_a_run_goes_on_from_any_step_bit_identically(method: str, manifest: Path, tmp_path: Path) -> None:
    config = run_of(tmp_path / "whole", manifest, method)
    assert train(config, quiet=True) == 0
    whole = config.run_dir
    events, states = read_events(whole / "events.jsonl"), sorted((whole / "checkpoints").iterdir())
    assert len(states) == max(row["step"] for row in events) >= 3
    for number, newest in enumerate(states[:-1]):
        again = run_of(tmp_path / newest.name, manifest, method)
        step = int(newest.name.removeprefix("step_"))
        for state in states[: number + 1]:
            shutil.copytree(state, again.run_dir / "checkpoints" / state.name)
        before = [json.dumps(row) for row in events if row["step"] <= step and row["event"] != "end"]
        (again.run_dir / "events.jsonl").write_text("".join(f"{row}\n" for row in before))
        assert train(again, quiet=True) == 0
        assert_identical(final_state(whole), final_state(again.run_dir), newest.name)
        assert undisturbed_rows(again.run_dir) == undisturbed_rows(whole)


def end_of(method: str, folder: Path, manifest: Path, world: int = 1) -> dict[str, Any]:
    """Return what a run in float64 ends with, without dropout and without statistics of a rank's own batch."""
    training = {"precision": "64-true", "batch_size": 4 // world}
    tasks = {"verb": {"head": {"dropout": 0.0}}}
    own = folder / f"rank{os.environ.get('RANK', 0)}"
    config = run_of(own, manifest, method, training=training, tasks=tasks, runs=str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.BatchNorm3d, "train", lambda module, mode=True: nn.Module.train(module, False))
        assert train(config, quiet=True) == 0
    return final_state(config.run_dir)


def one_rank(rank: int, folder: Path, manifest: Path, port: int) -> None:
    """Be one of two ranks, as torchrun starts them."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(number) for name, number in numbers.items()})
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "test"}
    torch.set_num_threads(1)
    for method in METHODS:
        end_of(method, folder / method, manifest, world=2)
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of runs of every method that two ranks have trained."""
    folder = tmp_path_factory.mktemp("ranks")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    spawn(one_rank, args=(folder, manifest, port), nprocs=2)
    return folder


@every_method
def test_two_ranks_are_one_process_with_the_doubled_batch(
    method: str, ranks: Path, manifest: Path, tmp_path: Path
) -> None:
    joint, alone = final_state(ranks / method / "small-seed3"), end_of(method, tmp_path, manifest)
    for part in ("model.pt", "objective.pt"):
        torch.testing.assert_close(joint[part], alone[part], rtol=1e-9, atol=1e-12)
