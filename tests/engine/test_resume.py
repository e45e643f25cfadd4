"""Promises R1 and R6: killed at any moment, the same command goes on and ends with bit-identical weights."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hoi_train.tracking.events import read_events
from tests.engine.processes import run, start
from tests.small import make_config

VARIANTS: dict[str, dict[str, Any]] = {
    "cdb_ce in two stages": {"loss": "cdb_ce", "method": {"name": "crt", "epochs": 1}},
    "cdb_ce accumulated averaged": {
        "loss": "cdb_ce",
        "optimizer": {"name": "adamw", "lr": 0.002},
        "training": {"batch_size": 2, "accumulate": 2, "ema_decay": 0.9, "clip_norm": 1.0},
        "data": {"workers": 1},
    },
}


def final_state(run_dir: Path) -> dict[str, Any]:
    newest = max((run_dir / "checkpoints").iterdir())
    return {path.name: torch.load(path, weights_only=True) for path in sorted(newest.glob("*.pt"))}


def assert_identical(one: object, other: object, where: str = "") -> None:
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        assert torch.equal(one.nan_to_num(7.0), other.nan_to_num(7.0)), where
    elif isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_identical(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list) and isinstance(other, list):
        assert_identical(dict(enumerate(one)), dict(enumerate(other)), where)
    else:
        assert one == other, where


def kill(process: Any, log: Path, moment: Callable[[], bool], jitter: float) -> bool:
    """Send SIGKILL at a moment; return whether the process was still alive then."""
    deadline = time.monotonic() + 250  # a data worker of its own takes half a minute to start on a busy machine
    while process.exitcode is None and not moment():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.001)
        process.join(0)
    time.sleep(jitter)
    process.kill()
    process.join()
    return bool(process.exitcode == -signal.SIGKILL)


def last_step(run_dir: Path) -> int:
    """Return the last step in the log; a line may be half written."""
    path = run_dir / "events.jsonl"
    found = re.findall(r'"event": "train", "step": (\d+)', path.read_text()) if path.exists() else []
    return int(found[-1]) if found else 0


def rows(run_dir: Path, event: str) -> int:
    path = run_dir / "events.jsonl"
    return path.read_text().count(f'"event": "{event}"') if path.exists() else 0


@pytest.mark.process
@pytest.mark.timeout(900)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_killed_run_ends_bit_identical_to_an_undisturbed_one(variant: str, manifest: Path, tmp_path: Path) -> None:
    asked = {"checkpoints": {"every_steps": 1}, **VARIANTS[variant]}  # a model slow enough to save that kills hit it
    quiet = make_config(tmp_path / "quiet", manifest, **asked)
    assert run(["train", str(quiet)], tmp_path / "quiet.log") == 0, (tmp_path / "quiet.log").read_text()
    disturbed = make_config(tmp_path / "disturbed", manifest, **asked)
    folder, log, dice = tmp_path / "disturbed" / "small-seed3", tmp_path / "disturbed.log", random.Random(variant)

    def reached(step: int) -> Callable[[], bool]:
        return lambda: last_step(folder) >= step

    def writing() -> bool:
        checkpoints = folder / "checkpoints"
        return checkpoints.exists() and any(not p.name.startswith("step_") for p in checkpoints.iterdir())

    # Steps 1, 5 and 8 lie in the middle of epochs 0, 1 and 2; 3, 6 and 9 are followed by a validation.
    moments = (reached(1), writing, reached(3), reached(5), writing, reached(6), reached(8))
    killed = []
    for moment in moments:
        process = start(["train", str(disturbed)], log)
        if kill(process, log, moment, dice.uniform(0, 0.02)):
            killed.append(last_step(folder))
    assert len({step // 3 for step in killed}) >= 2, f"killed after steps {killed}, which is too few epochs"
    assert run(["train", str(disturbed)], log) == 0, log.read_text()
    assert_identical(final_state(tmp_path / "quiet" / "small-seed3"), final_state(folder))
    assert undisturbed_rows(folder) == undisturbed_rows(tmp_path / "quiet" / "small-seed3")


def undisturbed_rows(run_dir: Path) -> list[Any]:
    """Return what the log says of the training, without times and speeds."""
    kept = []
    for row in read_events(run_dir / "events.jsonl"):
        if row["event"] == "train":
            kept.append([row["step"], row["scalars"]["loss"], row["scalars"]["lr"], row["scalars"]["gradient_norm"]])
        elif row["event"] in ("evaluation", "weights"):
            kept.append({key: value for key, value in row.items() if key != "time"})
    return kept


@pytest.mark.process
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_the_state_and_says_so(number: int, code: int, manifest: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, manifest, training={"epochs": 40})
    folder, log = tmp_path / "small-seed3", tmp_path / "log"
    process = start(["train", str(config)], log)
    while rows(folder, "train") < 4:
        assert process.exitcode is None, log.read_text()
        time.sleep(0.01)
        process.join(0)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == code, log.read_text()
    assert "state saved; the same command goes on" in log.read_text()
    steps = [row["step"] for row in read_events(folder / "events.jsonl") if row["event"] == "checkpoint"]
    assert steps[-1] == max(row["step"] for row in read_events(folder / "events.jsonl"))


def test_a_changed_configuration_is_refused_with_the_difference(manifest: Path, tmp_path: Path) -> None:
    config, log = make_config(tmp_path, manifest, training={"epochs": 1}), tmp_path / "log"
    assert run(["train", str(config)], log) == 0, log.read_text()
    assert run(["train", str(config), "optimizer.lr=0.5"], log) == 2
    assert "was made with another configuration:\n  optimizer.lr: 0.02 -> 0.5" in log.read_text()
    assert run(["train", str(config)], log) == 0
    assert "is finished" in log.read_text()


def test_a_run_from_before_a_key_was_new_goes_on_with_its_default(manifest: Path, tmp_path: Path) -> None:
    """R23."""
    config, log = make_config(tmp_path, manifest, training={"epochs": 1}), tmp_path / "log"
    assert run(["train", str(config)], log) == 0, log.read_text()
    kept = tmp_path / "small-seed3" / "config.yaml"
    kept.write_text("".join(line for line in kept.read_text().splitlines(True) if "bad_clips" not in line))
    assert run(["train", str(config)], log) == 0, log.read_text()
    assert run(["train", str(config), "data.bad_clips=quarantine", "data.quarantine=q.json"], log) == 2
    assert "data.bad_clips: stop -> quarantine" in log.read_text()


@pytest.mark.process
def test_a_run_killed_before_its_first_checkpoint_begins_again(manifest: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, manifest, training={"epochs": 1})
    folder, log = tmp_path / "small-seed3", tmp_path / "log"
    assert kill(start(["train", str(config)], log), log, lambda: last_step(folder) >= 1, 0), log.read_text()
    for damaged in (folder / "checkpoints").glob("*"):
        shutil.rmtree(damaged)
    assert run(["train", str(config)], log) == 0, log.read_text()
    events = read_events(folder / "events.jsonl")
    assert [row["step"] for row in events if row["event"] == "train"] == [1, 2, 3]
    assert [row["event"] for row in events].count("start") == 1
