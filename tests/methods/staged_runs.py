"""Whole runs of methods of two stages on the small data set, and what they leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hoi_train.config import load_config
from hoi_train.engine.experiment import Experiment, assemble
from hoi_train.tracking.events import read_events
from tests.engine.processes import run, start
from tests.engine.test_resume import assert_identical, final_state, kill, last_step, rows, undisturbed_rows
from tests.small import make_config

NOUN: dict[str, Any] = {
    "loss": {"name": "cb_focal"},
    "groups": {"name": "top_k", "k": 1},
    "head": {"name": "linear", "prior": 0.1},
}
FIRST_STAGE = 2  # epochs, of 3 steps each


def experiment(folder: Path, manifest: Path, method: Any, **changes: Any) -> Experiment:
    """Return the parts of a run of 4 epochs."""
    return assemble(load_config(config_of(folder, manifest, method, **changes)))


def config_of(folder: Path, manifest: Path, method: Any, **changes: Any) -> Path:
    """Write the configuration of a run of 4 epochs that keeps every checkpoint."""
    training = {"epochs": 4, **changes.pop("training", {})}
    kept = {"every_steps": 1, "keep": 99}
    return make_config(folder, manifest, method=method, training=training, checkpoints=kept, **changes)


def finished(folder: Path, manifest: Path, method: Any, **changes: Any) -> Path:
    """Train to the end and return the run directory."""
    log = folder / "log"
    path = config_of(folder, manifest, method, **changes)
    assert run(["train", str(path)], log) == 0, log.read_text()
    return folder / "small-seed3"


def weights(run_dir: Path, step: int) -> dict[str, Tensor]:
    """Return the network as it was saved after a step."""
    state: dict[str, Tensor] = torch.load(run_dir / f"checkpoints/step_{step:08d}/model.pt", weights_only=True)
    return state


def changed(run_dir: Path, before: int, after: int) -> set[str]:
    """Return the tensors of the network that differ between two steps."""
    one, two = weights(run_dir, before), weights(run_dir, after)
    assert one.keys() == two.keys()
    return {key for key in one if not torch.equal(one[key], two[key])}


def assert_evaluate_repeats_training(run_dir: Path, log: Path) -> None:
    """Check that evaluating the last checkpoint gives the numbers of the last epoch again."""
    assert run(["evaluate", str(run_dir), "--split", "val", "--checkpoint", "last"], log) == 0, log.read_text()
    again = json.loads((run_dir / "evaluation_val.json").read_text())
    events = read_events(run_dir / "events.jsonl")
    last = [row for row in events if row["event"] == "evaluation" and row["split"] == "val"][-1]
    assert last["epoch"] == 3
    assert again["tasks"]["verb"]["confusion"] == last["tasks"]["verb"]["confusion"]
    for name, value in last["scalars"].items():
        if not name.endswith("/loss"):  # the weights of CDB have moved on since
            assert again["scalars"][name] == value, name


def assert_resumes(folder: Path, manifest: Path, method: Any, quiet: Path, **changes: Any) -> None:
    """Kill a run where a stage begins and within the second stage; it must end as the undisturbed one did."""
    path, log, run_dir = config_of(folder, manifest, method, **changes), folder / "log", folder / "small-seed3"
    trains = max(row["step"] for row in read_events(quiet / "events.jsonl")) > 3 * FIRST_STAGE + 3
    moments = [
        lambda: last_step(run_dir) >= 2,
        lambda: rows(run_dir, "evaluation") >= (FIRST_STAGE if trains else 3),  # the last one of the first stage
        lambda: last_step(run_dir) >= 3 * FIRST_STAGE + 2 if trains else rows(run_dir, "evaluation") >= 4,
    ]
    killed = 0
    for moment in moments:
        killed += kill(start(["train", str(path)], log), log, moment, jitter=0.0)
    assert killed >= 2, log.read_text()
    assert run(["train", str(path)], log) == 0, log.read_text()
    assert_identical(final_state(quiet), final_state(run_dir))
    assert undisturbed_rows(run_dir) == undisturbed_rows(quiet)


def train_on_two_ranks(folder: Path, manifest: Path, method: Any, **changes: Any) -> Path:
    """Train on two gloo ranks, each with half the batch, and return the run directory."""
    path = config_of(folder, manifest, method, training={"batch_size": 2}, **changes)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*torchrun, "scripts/train.py", str(path)], capture_output=True, env=environment, timeout=200, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "small-seed3"
