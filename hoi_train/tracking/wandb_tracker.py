"""The mirror of a run in wandb, which can neither stop nor slow the training."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Gt

from hoi_train.core.disk import write_whole
from hoi_train.tracking.events import to_line

_log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Records that may wait for wandb, some minutes of a fast run; with more the mirror is given up."""

ID_FILE = "wandb_id"
END = "null"
"""The last line for the process. The pipe's end alone would not do: forked data workers hold it open too."""


class WandbTracker:
    """Mirror the records of a run to wandb from a process of its own (`hoi_train.tracking.wandb_mirror`).

    ``write`` puts a record into a queue and returns; a thread carries the queue to the process. Whatever goes wrong
    there (wandb missing, refusing, hanging, failing) ends the mirror with one warning and nothing else.
    All files of wandb lie in ``run_dir/wandb``, its console output in ``run_dir/wandb/mirror.log``.

    Args:
        run_dir: the run directory; its name is the run's name in wandb. It keeps wandb's id of the run in the file
            ``wandb_id``, so that a resumed run goes on under it.
        config: the run's configuration as plain values.
        mode: ``online``; ``offline`` writes to disk only (``wandb sync`` uploads it later); ``disabled`` does nothing.
        project: wandb's project.
        entity: user or team; ``None`` is the user's default.
        tags: labels of the run in wandb.
        timeout: seconds that wandb gets to answer at the start, unnoticed by the training, and to finish at the end.
    """

    def __init__(
        self,
        run_dir: Path,
        config: Mapping[str, Any],
        *,
        mode: Literal["online", "offline", "disabled"] = "offline",
        project: str = "hoi_train",
        entity: str | None = None,
        tags: tuple[str, ...] = (),
        timeout: Annotated[float, Gt(0)] = 15.0,
    ) -> None:
        self._timeout = timeout
        self._folder = (run_dir / "wandb").absolute()
        self._waiting: queue.Queue[str] = queue.Queue(MAX_WAITING)
        self._closed = mode == "disabled"
        self._fault: str | None = None
        self._one_fault = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []
        if self._closed:
            return
        place = {"project": project, "entity": entity, "dir": str(run_dir.absolute()), "mode": mode}
        run = {"id": _run_id(run_dir), "name": run_dir.name, "tags": list(tags), "config": dict(config)}
        self._waiting.put(to_line({**place, **run, "timeout": timeout, "argv": sys.argv}))
        try:
            self._process = _start(self._folder)
        except OSError as error:
            self._give_up(str(error))
            return
        for work in (self._feed, self._listen):
            self._threads.append(threading.Thread(name="wandb", target=work, args=(self._process,), daemon=True))
            self._threads[-1].start()

    def write(self, record: Mapping[str, Any]) -> None:
        """Pass one record on; never waits, never fails for a reason of wandb's."""
        if self._closed or self._fault:
            return
        try:
            self._waiting.put_nowait(to_line(record))
        except queue.Full:
            self._give_up(f"{MAX_WAITING} records are waiting for it")
            self._kill()

    def close(self) -> None:
        """Let wandb finish, for at most ``timeout`` seconds, and leave no process behind."""
        self._closed = True
        deadline = time.monotonic() + self._timeout
        with contextlib.suppress(queue.Full):
            self._waiting.put(END, timeout=self._timeout)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            self._give_up(f"it did not finish within {self._timeout:g} s")
            self._kill()
            for thread in self._threads:
                thread.join(1.0)

    def _feed(self, process: subprocess.Popen[bytes]) -> None:
        """Carry the queue to the process. The cause of a broken pipe is reported by `_listen`."""
        assert process.stdin
        with contextlib.suppress(OSError), process.stdin as pipe:
            line = ""
            while line != END:
                line = self._waiting.get()
                rest = memoryview(f"{line}\n".encode())
                while rest:
                    rest = rest[pipe.write(rest) :]

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Read what the process says until it ends; warn if it was not meant to end."""
        assert process.stdout
        with process.stdout as pipe:
            for line in pipe:
                message = json.loads(line)
                if "failed" in message:
                    self._give_up(message["failed"])
                else:
                    _log.info("wandb: %s", message["url"] or f"offline; upload with: wandb sync {message['files']}")
        code = process.wait()
        if code or not self._closed:
            self._give_up(f"its process ended with status {code}")
            self._kill()  # what it may have left behind

    def _give_up(self, reason: str) -> None:
        """Warn, once, and pass nothing more on."""
        with self._one_fault:
            if self._fault:
                return
            self._fault = reason
        _log.warning(
            "wandb no longer mirrors this run: %s. Training goes on and the event log has every record; details in %s. "
            "What wandb has on disk can be uploaded with: wandb sync",
            " ".join(reason.split()),
            self._folder / "mirror.log",
        )
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(END)

    def _kill(self) -> None:
        """End the process, and wandb's service, which is in its group."""
        if self._process:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # the latter: an ended group on macOS
                os.killpg(self._process.pid, signal.SIGKILL)


def _run_id(run_dir: Path) -> str:
    """Return the run's id in wandb: the recorded one, else the one that a sweep's agent gives, else a new one."""
    path = run_dir / ID_FILE
    if not path.is_file() or not path.read_text().strip():
        run_dir.mkdir(parents=True, exist_ok=True)
        write_whole(path, os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4))
    return path.read_text().strip()


def _start(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    places = {"WANDB_DATA_DIR": str(folder / "data"), "WANDB_CACHE_DIR": str(folder / "cache")}
    # No reports to wandb about this program; rows on disk within a second, so that little is lost when it is killed.
    habits = {"WANDB_ERROR_REPORTING": "false", "WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL": "1"}
    env = {**places, **habits, **os.environ}
    env.pop("WANDB_SERVICE", None)  # another run's service in this process: ours must be ours to end
    env["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    command = [sys.executable, "-m", "hoi_train.tracking.wandb_mirror"]
    with (folder / "mirror.log").open("ab") as console:
        # A session of its own keeps Ctrl-C from it. Unbuffered pipes: a buffered one that a daemon thread is blocked
        # in makes Python abort at exit (it cannot take the buffer's lock).
        return subprocess.Popen(
            command,
            bufsize=0,
            env=env,
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=console,
        )
