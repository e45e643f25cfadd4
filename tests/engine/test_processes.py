"""What a program printed is never lost: of each rank, of one that fails, of one that hangs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.engine.processes import program, torchrun

RANK = """
import os, sys, time
print("rank", os.environ["RANK"], "is here", flush=True)
if os.environ["RANK"] == "1":
    print("what went wrong", file=sys.stderr, flush=True)
    sys.exit(3)
time.sleep(30)
"""


@pytest.mark.process
def test_the_output_of_every_rank_is_in_the_message(tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(RANK)
    with pytest.raises(AssertionError) as caught:
        torchrun([tmp_path / "rank.py"], tmp_path / "log")
    for line in ("]:rank 0 is here", "]:rank 1 is here", "]:what went wrong", "exitcode  : 3"):
        assert line in str(caught.value)


def test_a_program_that_hangs_is_ended_and_its_output_shown(tmp_path: Path) -> None:
    code = "import time; print('begun', flush=True); time.sleep(600)"
    with pytest.raises(AssertionError, match=r"exit code none after 1 s of .*; it printed:\nbegun\n"):
        program([sys.executable, "-S", "-c", code], tmp_path / "log", timeout=1.0)
    assert program([sys.executable, "-S", "-c", "print('ended')"], tmp_path / "log") == "ended\n"
