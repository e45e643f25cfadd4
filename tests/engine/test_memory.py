"""Memory that is freed and allocated again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import sys

import torch

from hoi_train.engine.memory import keep_freed_memory

assert sys.argv[1] == "no" or keep_freed_memory()
for step in range(20):
    if step == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    kept = [torch.ones(2**24) for _ in range(2)]  # 64 MiB each
    del kept
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.process
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_steps_that_allocate_the_same_do_not_ask_the_system_again() -> None:
    """Each tensor of the last ten steps is 2 ** 14 pages; a system that gives larger pages faults less."""
    faults = {
        keep: int(
            subprocess.run([sys.executable, "-c", FAULTS, keep], capture_output=True, text=True, check=True).stdout
        )
        for keep in ("no", "yes")
    }
    assert faults["no"] > 10 * 2**14
    assert faults["yes"] < 100
