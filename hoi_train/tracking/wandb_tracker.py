"""The mirror of a run in wandb, which can neither stop nor slow the training."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Gt

from hoi_train.tracking.events import to_line

_log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Records that may wait for wandb, some minutes of a fast run; with more the mirror is given up."""

END = "null"
"""The last line for the process. The pipe's end alone would not do: forked data workers hold it open too."""


class WandbTracker:
    """Mirror the records of a run to wandb from a process of its own (`hoi_train.tracking.wandb_mirror`).

    ``write`` puts a record into a queue and returns; a thread carries the queue to the process. Whatever goes wrong
    there (wandb missing, refusing, hanging, failing) ends the mirror with one warning and nothing else.
    All files of wandb lie in ``run_dir/wandb``, its console output in ``run_dir/wandb/mirror.log``.

    Args:
        run_dir: the run directory.
        run_id: wandb's id of the run, kept by the caller, so that a resumed run goes on under it.
        run_name: the name shown in wandb.
        config: the resolved configuration.
        mode: ``online``; ``offline`` writes to disk only (``wandb sync`` uploads it later); ``disabled`` does nothing.
        project: wandb's project.
        entity: user or team; ``None`` is the user's default.
        tags: labels of the run in wandb.
        timeout: seconds that wandb gets to answer at the start, unnoticed by the training, and to finish at the end.
    """

    def __init__(
        self,
        run_dir: Path,
        run_id: str,
        run_name: str,
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
        run = {"id": run_id, "name": run_name, "tags": list(tags), "config": dict(config)}
        self._waiting.put(to_line({**place, **run, "timeout": timeout, "argv": sys.argv}))
        try:
            self._process = _start(self._folder)
        except OSError as error:
            self._give_up(str(error))
            return
        for work in (self._feed, self._listen):
            self._threads.append(threading.Thread(target=work, args=(self._process,), daemon=True))
            self._threads[-1].start()

    def write(self, record: Mapping[str, Any]) -> None:
        """Pass one record on; never waits, never fails for a reason of wandb's."""
        if self._closed or self._fault:
            return
        try:
            self._waiting.put_nowait(to_line(record))
        except queue.Full:
            self._give_up(f"{MAX_WAITING} records are waiting for it")

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
            for thread in self._threads:
                thread.join()  # nothing holds them once the process is killed

    def _feed(self, process: subprocess.Popen[bytes]) -> None:
        """Carry the queue to the process; why a pipe broke is the listener's to say."""
        assert process.stdin
        with contextlib.suppress(OSError), process.stdin as pipe:
            line = ""
            while line != END:
                line = self._waiting.get()
                rest = memoryview(f"{line}\n".encode())
                while rest:
                    rest = rest[pipe.write(rest) :]

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Hear from the process until it ends, and tell why if it was not meant to."""
        assert process.stdout
        reason = None
        with process.stdout as pipe:
            for line in pipe:
                message = json.loads(line)
                reason = message.get("failed")
                if reason is None:
                    _log.info("wandb: %s", message["url"] or f"offline; upload with: wandb sync {message['files']}")
        code = process.wait()
        if code == -signal.SIGALRM:
            reason = "it did not answer"
        if code or not self._closed:
            self._give_up(reason or f"its process ended with status {code}")

    def _give_up(self, reason: str) -> None:
        """Warn, once, and end the process and the threads."""
        with self._one_fault:
            if self._fault:
                return
            self._fault = reason
        _log.warning(
            "wandb no longer mirrors this run: %s. The event log has every record and training goes on; "
            "details in %s, and what wandb has on disk can be uploaded with: wandb sync --sync-all",
            " ".join(reason.split()),
            self._folder / "mirror.log",
        )
        if self._process:
            self._process.kill()
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(END)


def _start(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"WANDB_DATA_DIR": str(folder / "data"), "WANDB_CACHE_DIR": str(folder / "cache")}
    env = {"WANDB_ERROR_REPORTING": "false", **kept, **os.environ}
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
