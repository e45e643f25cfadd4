"""Real training processes that start at once: forked from a server that has done the slow imports."""

from __future__ import annotations

import multiprocessing
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

SLOW_IMPORTS = [
    "hoi_train.engine.train",
    "hoi_train.data.transforms",
    "torchvision.transforms.v2.functional",
    "torchmetrics.functional.classification",
    "tests.engine.processes",
]


def start(arguments: list[str], log: Path) -> BaseProcess:
    """Start ``hoi-train`` with arguments in a process of its own; what it prints goes to ``log``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SLOW_IMPORTS)
    process = context.Process(target=_main, args=(arguments, str(log)))
    process.start()
    return process


def run(arguments: list[str], log: Path) -> int:
    """Run ``hoi-train`` to its end and return the exit code."""
    process = start(arguments, log)
    process.join(120)
    assert process.exitcode is not None, f"still running after 120 s:\n{log.read_text()}"
    return process.exitcode


def _main(arguments: list[str], log: str) -> None:
    with open(log, "a", buffering=1) as output:  # noqa: PTH123
        sys.stdout = sys.stderr = output
        import warnings

        import torch

        from hoi_train.cli import main

        warnings.simplefilter("error")
        torch.set_num_threads(1)
        try:
            code = main(arguments)
        except BaseException:
            import traceback

            traceback.print_exc()
            code = 1
    sys.exit(code)
