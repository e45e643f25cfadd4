"""Whole runs of methods of two stages on the small data set, and what they leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hoi_train.config import load_config
from hoi_train.engine.experiment import Experiment, assemble
from hoi_train.tracking.events import read_events
from tests.engine.processes import run
from tests.small import SMALLEST, make_config

NOUN: dict[str, Any] = {
    "loss": {"name": "cb_focal"},
    "groups": {"name": "top_k", "k": 1},
    "head": {"name": "linear", "prior": 0.1},
}


def experiment(folder: Path, manifest: Path, method: Any, **changes: Any) -> Experiment:
    """Return the parts of a run of 4 epochs."""
    return assemble(load_config(config_of(folder, manifest, method, **changes)))


def config_of(folder: Path, manifest: Path, method: Any, **changes: Any) -> Path:
    """Write the configuration of a run of 4 epochs that keeps every checkpoint."""
    training = {"epochs": 4, **changes.pop("training", {})}
    kept = {"every_steps": 1, "keep": 99}
    changes = {"model": SMALLEST, **changes}
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
