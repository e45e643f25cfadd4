"""SIGTERM and SIGINT become a flag, a second SIGINT an exception."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from hoi_train.engine.signals import Signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_raises_the_flag_and_is_the_exit_code(
    number: int, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    with Signals() as signals:
        assert not signals.stop_requested
        assert signals.exit_code == 0
        os.kill(os.getpid(), number)
        assert signals.stop_requested
        assert signals.exit_code == code
    assert f"{signal.Signals(number).name}: finishing the step and saving the state" in capfd.readouterr().err


def test_a_second_interrupt_stops_at_once() -> None:
    with Signals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_after_a_termination_stops_at_once() -> None:
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signals.exit_code == 143


def test_terminations_may_repeat() -> None:
    with Signals() as signals:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signals.exit_code == 143


def test_the_handlers_of_before_are_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(RuntimeError), Signals():
        assert signal.getsignal(signal.SIGTERM) != before[1]
        raise RuntimeError
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_only_the_main_thread_may_catch_signals() -> None:
    caught: list[Exception] = []

    def enter() -> None:
        try:
            Signals().__enter__()
        except ValueError as error:
            caught.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


PRINTING_LOOP = """
import sys
from hoi_train.engine.signals import Signals
with Signals() as signals:
    while not signals.stop_requested:
        print("x" * 500, file=sys.stderr)
sys.exit(signals.exit_code)
"""


@pytest.mark.process
def test_a_signal_in_the_middle_of_printing_does_no_harm() -> None:
    for _ in range(5):
        process = subprocess.Popen([sys.executable, "-c", PRINTING_LOOP], stderr=subprocess.PIPE)
        with process:
            assert process.stderr
            process.stderr.read(50_000)
            process.terminate()
            process.stderr.read()
        assert process.returncode == 143
