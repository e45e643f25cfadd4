"""One writer a run directory; the second is told who, a dead one is no hindrance."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hoi_train.engine.lock import LockError, RunLock

HOLD = """
import sys, time
from pathlib import Path
from hoi_train.engine.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""

HOLD_WITH_WORKER = """
import os, sys, time
from pathlib import Path
from hoi_train.engine.lock import RunLock
with RunLock(Path(sys.argv[1])):
    if os.fork() == 0:
        print(os.getpid(), flush=True)  # it runs: what a fork sets off has happened
        time.sleep(100)
        os._exit(0)
    time.sleep(100)
"""


@contextmanager
def holder(script: str, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.mark.process
def test_the_second_process_is_refused_at_once_and_told_by_whom(tmp_path: Path) -> None:
    with holder(HOLD, tmp_path) as (process, _):
        began = time.monotonic()
        with pytest.raises(LockError) as caught, RunLock(tmp_path):
            pass
        assert time.monotonic() - began < 1
    message = str(caught.value)
    assert f"{tmp_path} is being written by process {process.pid} on {socket.gethostname()} since 20" in message
    assert "wait for it or end it, or give this run another name or seed" in message


@pytest.mark.process
def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with holder(HOLD, tmp_path) as (process, _):
        process.send_signal(signal.SIGKILL)
        process.wait()
        with caplog.at_level(logging.INFO), RunLock(tmp_path):
            assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
        assert f"taken over from process {process.pid} on" in caplog.text


@pytest.mark.process
def test_a_data_worker_that_outlives_its_killed_training_holds_nothing(tmp_path: Path) -> None:
    with holder(HOLD_WITH_WORKER, tmp_path) as (process, worker):
        process.send_signal(signal.SIGKILL)
        process.wait()
        try:
            os.kill(int(worker), 0)  # it is alive
            with RunLock(tmp_path):
                pass
        finally:
            os.kill(int(worker), signal.SIGKILL)


def test_the_lock_is_free_and_nameless_after_use_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), RunLock(tmp_path):
        raise RuntimeError
    assert (tmp_path / "lock").read_text() == ""
    with RunLock(tmp_path):
        pass


def test_two_locks_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    with RunLock(tmp_path), pytest.raises(LockError, match=f"process {os.getpid()} on"), RunLock(tmp_path):
        pass


def test_a_lock_file_of_garbage_is_no_hindrance(tmp_path: Path) -> None:
    for content in (b"\x00\xff", b"[]", b'{"pid": 3}'):
        (tmp_path / "lock").write_bytes(content)
        with RunLock(tmp_path):
            assert json.loads((tmp_path / "lock").read_text())["host"] == socket.gethostname()


def test_a_missing_run_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere/lock"), RunLock(tmp_path / "nowhere"):
        pass
