"""The run directory: configuration, event log and checkpoints of a run.

::

    runs/<name>-seed<seed>/
      config.yaml        the configuration, every default written out
      events.jsonl       every metric and event
      wandb_id           the id of the run in wandb
      lock               held by the process that writes
      checkpoints/       step_00000120/ …
      thresholds.json    per-class decision thresholds, if they were fitted
      evaluation_*.json  the last results of hoi-train evaluate, by split
      wandb/, tensorboard/   what these trackers keep
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError
from torch import Tensor

from hoi_train.config import RunConfig, differences, parse_config
from hoi_train.core.disk import write_whole
from hoi_train.core.records import ClassList, Task, recorded_tasks
from hoi_train.core.strict_json import read_json
from hoi_train.core.strict_yaml import ConfigError
from hoi_train.engine import checkpoint
from hoi_train.engine.checkpoint import Checkpoint
from hoi_train.engine.lock import RunLock
from hoi_train.engine.signals import Signals
from hoi_train.tracking import Mirror, Tracker
from hoi_train.tracking.events import EventLog, read_events

CONFIG_FILE, EVENTS_FILE, CHECKPOINTS = "config.yaml", "events.jsonl", "checkpoints"
THRESHOLDS_FILE = "thresholds.json"


class Run:
    """The open run directory of one process; only rank 0 writes.

    Args:
        config: the run's configuration.
        signals: says whether the run was asked to stop.
        trackers: take every record, the local log first; empty on other ranks.
    """

    def __init__(self, config: RunConfig, signals: Signals, trackers: tuple[Tracker, ...]) -> None:
        self.config, self.signals, self.trackers = config, signals, trackers
        self.folder = config.run_dir

    @property
    def stop_requested(self) -> bool:
        """Whether a signal asked the run to save its state and stop."""
        return self.signals.stop_requested

    def record(self, record: Mapping[str, Any]) -> None:
        """Write a record to the local log, then to its mirrors."""
        for tracker in self.trackers:
            tracker.write(dict(record))

    def save(self, state: Mapping[str, Any], cursor: Mapping[str, int], metric: float) -> None:
        """Save a checkpoint, then remove those that are neither among the newest nor the best."""
        folder, settings = self.folder / CHECKPOINTS, self.config.checkpoints
        extra = {"metric": metric, "config": self.config.plain()}
        saved = checkpoint.save(folder, state, cursor, extra)
        checkpoint.prune(folder, keep=settings.keep, mode=settings.mode)
        self.record({"event": "checkpoint", "step": cursor["step"], "path": saved.name})


RunMaker = Callable[[RunConfig, Signals, tuple[Tracker, ...]], Run]


@contextmanager
def open_run(config: RunConfig, *, writer: bool, make: RunMaker = Run) -> Iterator[Run]:
    """Open a new or existing run directory; the writing process holds its lock.

    Raises:
        ConfigError: the directory was made with another configuration.
        LockError: another process writes the directory.
    """
    folder = config.run_dir
    _check_same(config, folder)
    with ExitStack() as stack:
        signals = stack.enter_context(Signals())
        trackers: tuple[Tracker, ...] = ()
        if writer:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(RunLock(folder))
            write_whole(folder / CONFIG_FILE, yaml.safe_dump(config.plain(), sort_keys=False))
            trackers = (EventLog(folder / EVENTS_FILE), *_mirrors(config))
            for tracker in trackers:
                stack.callback(tracker.close)
        yield make(config, signals, trackers)


def finished(config: RunConfig) -> bool:
    """Return whether the run has ended; raises ``ConfigError`` if its directory has another configuration."""
    _check_same(config, config.run_dir)
    return has_recorded(config.run_dir, "end")


def read_run(folder: Path) -> RunConfig:
    """Read the configuration of a run directory; raises ``ConfigError`` if it is none."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ConfigError(f"{folder}: not a run directory, it has no {CONFIG_FILE}")
    return parse_config(_recorded(path), path)


def has_recorded(folder: Path, event: str) -> bool:
    """Return whether a run's log has an event, such as its ``start`` or its ``end``."""
    path = folder / EVENTS_FILE
    return path.is_file() and any(row.get("event") == event for row in read_events(path))


def check_same_data(folder: Path, config: RunConfig, facts: Mapping[str, Any]) -> None:
    """Raise if the data differ from those recorded when the run began.

    Args:
        folder: the run directory; one without a record of its start is taken as it is.
        config: of the run.
        facts: some of ``RunData.facts``, of the present data.

    Raises:
        ConfigError: something differs.
    """
    start = _start(folder)
    changed = [key for key, now in facts.items() if key in start and start[key] != now]
    if not changed:
        return
    way_out = "or begin a new run with another name (name=…) or seed"
    if "left_out" in changed:  # the counts follow
        listed = config.data.quarantine
        text = f"data.quarantine: {listed} does not list the clips that {folder} left out when it began"
        raise ConfigError(f"{text}; give it the old list, {way_out}")
    words = ", ".join(key.replace("_", " ") for key in changed)
    text = f"data.manifest: {config.data.manifest} has changed since {folder} began, in: {words}"
    raise ConfigError(f"{text}; give it the old manifest and dataset.json, {way_out}")


def read_tasks(folder: Path) -> tuple[dict[str, Task], ClassList | None]:
    """Read the tasks and object classes of a run from its event log.

    Raises:
        ConfigError: the record is missing, or of a run that did not record them.
        EventLogError: it is damaged.
    """
    path = folder / EVENTS_FILE
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; it records the run's tasks and classes")
    start = _start(folder)
    if "labels" not in start:
        raise ConfigError(f"{path}: does not record the run's tasks and classes; train the run again")
    return recorded_tasks(start), ClassList(tuple(start["object_classes"])) if start["object_classes"] else None


def _start(folder: Path) -> dict[str, Any]:
    """Return the ``start`` row of a run's event log, empty if it has none."""
    path = folder / EVENTS_FILE
    return next((row for row in read_events(path) if row.get("event") == "start"), {}) if path.is_file() else {}


def chosen_checkpoint(run: Path, config: RunConfig, which: str) -> Checkpoint:
    """Return the ``best`` or ``last`` valid checkpoint of a run; raises ``CheckpointError`` if it has none."""
    folder = run / CHECKPOINTS
    best = checkpoint.best(folder, mode=config.checkpoints.mode) if which == "best" else None
    found = best or checkpoint.latest(folder)
    if found is None:
        raise checkpoint.CheckpointError(f"{folder}: no valid checkpoint; train the run first")
    return found


def write_thresholds(
    folder: Path, chosen: Checkpoint, tasks: Mapping[str, Task], thresholds: Mapping[str, Tensor]
) -> None:
    """Write the thresholds fitted for a checkpoint, float64 ``[C]`` per task."""
    by_class = {name: dict(zip(tasks[name].classes, row.tolist(), strict=True)) for name, row in thresholds.items()}
    content = {"checkpoint": chosen.path.name, "split": "val", "thresholds": by_class}
    write_whole(folder / THRESHOLDS_FILE, json.dumps(content, indent=1))


def read_thresholds(folder: Path, chosen: Checkpoint, tasks: Mapping[str, Task]) -> dict[str, Tensor]:
    """Read the thresholds of a checkpoint, float64 ``[C]`` by task; empty if they were fitted for another."""
    path = folder / THRESHOLDS_FILE
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
        if content["checkpoint"] != chosen.path.name:
            return {}
        return {
            name: torch.tensor([float(by_class[each]) for each in tasks[name].classes], dtype=torch.float64)
            for name, by_class in content["thresholds"].items()
        }
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        text = f"{path}: damaged ({type(error).__name__}: {error}); fit the thresholds again (--fit-thresholds)"
        raise ConfigError(f"{text}, or remove the file") from None


def versions() -> dict[str, str]:
    """Return the versions that a run's numbers may depend on."""
    packages = ("hoi_train", "torch", "torchvision", "pytorchvideo", "lightning-fabric", "av")
    return {"python": platform.python_version(), "machine": platform.machine()} | {p: version(p) for p in packages}


def _check_same(config: RunConfig, folder: Path) -> None:
    path = folder / CONFIG_FILE
    if not path.is_file():
        return
    old = _recorded(path)
    with suppress(ValidationError):  # keys newer than the run get their defaults
        old = type(config).model_validate_json(json.dumps(old)).plain()
    changed = differences(old, config.plain())
    if changed:
        lines = "\n".join(f"  {line}" for line in changed)
        raise ConfigError(
            f"{folder} was made with another configuration:\n{lines}\n"
            "resume it with the old one, or give the new one another name (name=…) or seed"
        )


def _recorded(path: Path) -> dict[str, Any]:
    """Read the recorded configuration as plain values."""
    try:
        recorded = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: damaged, not readable as YAML: {error}") from None
    if not isinstance(recorded, dict):
        raise ConfigError(f"{path}: damaged, it must hold keys and values, got {type(recorded).__name__}")
    return recorded


def _mirrors(config: RunConfig) -> list[Mirror]:
    plain = config.plain()
    return [Mirror(name, config.run_dir, plain, settings) for name, settings in config.trackers.settings().items()]
