"""The bench of losses and methods, at a size where it takes seconds."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from hoi_train.losses import LOSSES
from tests.conftest import ROOT


@pytest.mark.process
def test_every_loss_and_method_has_its_rows() -> None:
    few = ["--repeats", "2", "--steps", "2", "--classes", "3", "5", "--batches", "4"]
    small = ["--backbone", "tiny_resnext3d", "--frames", "2", "--size", "32", *few]
    command = [sys.executable, "scripts/bench_losses.py", *small]
    shown = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=240).stdout
    losses = re.findall(r"^\| (\w+) \| (single|multi) \| ([35]) \| 4 \| [\d.]+ \| -?[\d.]+ \| [\d.]+ \|$", shown, re.M)
    assert losses == [(name, kind, n) for name, loss in LOSSES.items() for kind in sorted(loss.labels) for n in "35"]
    methods = dict(re.findall(r"^\| (\w+) \| (\d+\.\d\d) \|$", shown, re.M))
    assert list(methods) == ["crt", "lws", "oltr", "l2rw", "mwn"]
    assert float(methods["mwn"]) > 1
