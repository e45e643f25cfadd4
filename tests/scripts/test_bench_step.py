"""The bench of the training step, at a size where it takes seconds."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.process
def test_all_peers_take_turns() -> None:
    sizes = {"frames": 2, "size": 32, "clips": 4, "steps": 1, "rounds": 2, "threads": 2}
    small = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "scripts/bench_step.py", "--backbone", "tiny_resnext3d", "--ranks", *small]
    shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=240).stdout
    rows = dict(re.findall(r"^\| (\w+) \| (\d+) \| \d\.\d{3} \(\d\.\d{3}–\d+\.\d{3}\) \| \d+ \|$", shown, re.MULTILINE))
    assert list(rows) == ["bare", "same", "best", "ranks"]
