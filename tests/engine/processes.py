"""Run ``hoi-train`` here, forked or as a program; the message of a test that fails holds what it printed."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path

from hoi_train.cli import main
from tests.conftest import ROOT

SLOW_IMPORTS = [
    "hoi_train.engine.train",
    "hoi_train.data.transforms",
    "torch._dynamo",  # which the first optimizer imports
    "torchvision.transforms.v2.functional",
    "torchmetrics.functional.classification",
    "tests.engine.processes",
]
TAIL = 12_000  # characters of a log that a message shows


def start(arguments: list[str], log: Path) -> BaseProcess:
    """Start ``hoi-train`` in a process forked from a server that has done the slow imports; it prints into ``log``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_IMPORTS)
    process = context.Process(target=_main, args=(arguments, str(log)))
    process.start()
    return process


def run(arguments: list[str], log: Path) -> int:
    """Run ``hoi-train`` to its end in this process and return the exit code; it prints into ``log``."""
    logger = logging.getLogger("hoi_train")
    with log.open("a", buffering=1) as output, redirect_stdout(output), redirect_stderr(output):
        handler = logging.StreamHandler(output)
        logger.addHandler(handler)
        try:
            return main(arguments)
        except SystemExit as error:  # what argparse refuses
            return int(error.code or 0)
        finally:
            logger.removeHandler(handler)


def run_apart(arguments: list[str], log: Path) -> int:
    """Run ``hoi-train`` to its end in a process of its own and return the exit code."""
    process = start(arguments, log)
    process.join(120)
    assert process.exitcode is not None, f"still running after 120 s:\n{log.read_text()}"
    return process.exitcode


def program(command: Sequence[str | Path], log: Path, *, timeout: float = 200) -> str:
    """Run a program from the repository's root to its end and return what it printed, its errors among the rest.

    Raises:
        AssertionError: with the end of what it printed, if it fails or takes longer than ``timeout`` seconds.
    """
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1", "OMP_NUM_THREADS": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | str = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = f"none after {timeout:g} s"
        finally:
            _end_session(process)
    printed = log.read_text(errors="replace")
    assert code == 0, f"exit code {code} of {' '.join(map(str, command))}; it printed:\n{printed[-TAIL:]}"
    return printed


def torchrun(arguments: Sequence[str | Path], log: Path, *, ranks: int = 2) -> str:
    """Run a script on several ranks and return what all printed, each line with its rank; see :func:`program`.

    ``--standalone`` lets the system choose a free port, so that several such tests can run at once.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return program([*launcher, "--log-dir", log.with_suffix(".ranks"), "--tee", "3", *arguments], log)


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """End what a program has left behind: of a launcher that hangs, its ranks."""
    if process.poll() is None:
        process.terminate()  # a launcher ends its ranks and shows their last lines
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def _main(arguments: list[str], log: str) -> None:
    with open(log, "a", buffering=1) as output:  # noqa: PTH123
        sys.stdout = sys.stderr = output
        import warnings

        import torch

        warnings.simplefilter("error")
        torch.set_num_threads(1)
        try:
            code = main(arguments)
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 1
    sys.exit(code)
