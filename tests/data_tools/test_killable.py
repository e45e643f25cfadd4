"""Work in processes that hang, crash and are killed: each costs its own item only."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from math import factorial

import pytest

from data_tools.jobs.killable import WorkerFailure, run_killable

pytestmark = pytest.mark.process


def test_every_item_comes_back_once() -> None:
    results = list(run_killable(factorial, range(50), workers=2, timeout=60))
    assert len(results) == 50
    assert dict(results) == {number: factorial(number) for number in range(50)}
    assert list(run_killable(factorial, [], workers=2, timeout=60)) == []


def test_items_come_back_in_the_order_of_finishing() -> None:
    assert [item for item, _ in run_killable(time.sleep, [4.0, 0.0, 0.1], workers=2, timeout=60)] == [0.0, 0.1, 4.0]


def test_what_takes_too_long_is_killed_and_the_others_are_done() -> None:
    started = time.monotonic()
    results = dict(run_killable(time.sleep, [600.0, 0.0, 500.0, 0.1], workers=2, timeout=2.0))
    killed = WorkerFailure("timeout", "not done after 2 s; its process was killed")
    assert results == {600.0: killed, 0.0: None, 500.0: killed, 0.1: None}
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    ("work", "item", "text"),
    [
        (signal.raise_signal, int(signal.SIGSEGV), "the decoder ended its process: SIGSEGV"),
        (signal.raise_signal, int(signal.SIGKILL), "the decoder ended its process: SIGKILL"),
        (os._exit, 3, "the decoder ended its process: exit code 3"),
    ],
)
def test_a_crash_costs_its_own_item(work: Callable[[int], None], item: int, text: str) -> None:
    results = list(run_killable(work, [item, item], workers=1, timeout=60))
    assert results == [(item, WorkerFailure("crashed", text))] * 2


def test_a_stopped_process_is_killed_too() -> None:
    ((_, lost),) = run_killable(signal.raise_signal, [int(signal.SIGSTOP)], workers=1, timeout=1.0)
    assert lost == WorkerFailure("timeout", "not done after 1 s; its process was killed")


def test_an_idle_process_that_dies_is_replaced_and_its_next_item_is_done() -> None:
    before = {*multiprocessing.active_children()}

    def items() -> Iterator[int]:
        yield 4
        (idle,) = {*multiprocessing.active_children()} - before  # its answer was taken
        idle.kill()
        idle.join()
        yield from (5, 6)

    assert list(run_killable(factorial, items(), workers=1, timeout=60)) == [(4, 24), (5, 120), (6, 720)]


def test_leaving_early_ends_the_processes() -> None:
    for item, _ in run_killable(time.sleep, [0.0, *[600.0] * 10], workers=2, timeout=900):
        assert item == 0.0
        break
    deadline = time.monotonic() + 20
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert multiprocessing.active_children() == []
