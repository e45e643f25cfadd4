"""The record of a run: local JSONL is the truth; the entries of ``TRACKERS`` mirror it.

A new tracker is a file beside this one and a line in the table; its keyword-only parameters are the keys of
``trackers: {<name>: …}`` in the configuration.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from hoi_train.tracking.tensorboard_tracker import TensorboardTracker
from hoi_train.tracking.wandb_tracker import WandbTracker

_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """What a run writes its records to. A record is a JSON-able mapping; its ``"event"`` names its kind."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Take one record."""

    def close(self) -> None:
        """Finish; a second call does nothing."""


TRACKERS: dict[str, Callable[..., Tracker]] = {"wandb": WandbTracker, "tensorboard": TensorboardTracker}
"""Called as ``tracker(run_dir, config, **settings)`` with the configuration as plain values."""


class Mirror:
    """A tracker that cannot stop the training: its first failure ends it with one warning.

    Args:
        name: in ``TRACKERS``.
        run_dir: the run directory.
        config: the run's configuration as plain values.
        settings: the tracker's keyword arguments.
    """

    def __init__(self, name: str, run_dir: Path, config: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        self._name = name
        self._tracker: Tracker | None = None
        self._try(lambda: setattr(self, "_tracker", TRACKERS[name](run_dir, config, **settings)))

    def write(self, record: Mapping[str, Any]) -> None:
        """Pass one record on; do nothing after a failure."""
        if (tracker := self._tracker) is not None:
            self._try(lambda: tracker.write(record))

    def close(self) -> None:
        """Let the tracker finish."""
        if (tracker := self._tracker) is not None:
            self._try(tracker.close)

    def _try(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception as error:
            self._tracker = None
            _log.warning(
                "%s no longer mirrors this run: %s: %s. Training goes on and the event log has every record",
                self._name,
                type(error).__name__,
                " ".join(str(error).split()),
            )
