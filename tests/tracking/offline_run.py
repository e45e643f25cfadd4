"""Reads wandb's offline runs back with wandb's own reader, ``wandb leet inspect``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class OfflineRun:
    """What an offline run left on disk.

    Args:
        folder: ``offline-run-…``.
        records: everything wandb wrote, in order, each with its ``type``.
    """

    folder: Path
    records: tuple[dict[str, Any], ...]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [record[kind] for record in self.records if record["type"] == kind]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The logged rows without wandb's own columns."""
        return [{k: v for k, v in row["item"].items() if not k.startswith("_")} for row in self.of("history")]

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = dict(self.of("run")[0]["config"]["update"])
        for row in self.of("config"):
            config |= row["update"]
        return config

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = {}
        for row in self.of("summary"):
            summary |= row["update"]
        return summary

    @property
    def axes(self) -> dict[str, str]:
        """Which metrics are drawn against which."""
        return {row["glob_name"]: row["step_metric"] for row in self.of("metric") if "glob_name" in row}

    def table(self, row: dict[str, Any], key: str) -> dict[str, Any]:
        """Return columns and data of a table that a row of the history names."""
        table: dict[str, Any] = json.loads((self.folder / "files" / row[f"{key}.path"]).read_text())
        return table


def offline_runs(run_dir: Path) -> list[OfflineRun]:
    """Return the offline runs below a run directory, oldest first."""
    folders = sorted((run_dir / "wandb").glob("offline-run-*"), key=lambda folder: folder.stat().st_ctime_ns)
    return [OfflineRun(folder, tuple(_inspect(folder))) for folder in folders]


def _inspect(folder: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    quiet = {"WANDB_ERROR_REPORTING": "false", "WANDB_CACHE_DIR": str(folder.parent / "cache")}
    done = subprocess.run(command, env=os.environ | quiet, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]
