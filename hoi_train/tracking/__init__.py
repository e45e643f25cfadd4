"""The record of a run: local JSONL is the truth, wandb mirrors it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Tracker(Protocol):
    """What a run writes its records to. A record is a JSON-able mapping whose ``"event"`` says what it is."""

    def write(self, record: Mapping[str, Any]) -> None:
        """Take one record."""

    def close(self) -> None:
        """Finish; called once more it does nothing."""
