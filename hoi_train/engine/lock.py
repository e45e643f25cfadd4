"""Single-writer lock per run directory."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from datetime import datetime
from pathlib import Path
from types import TracebackType

from hoi_train.core.records import UserError

_log = logging.getLogger(__name__)

_open_locks: set[RunLock] = set()


class LockError(UserError):
    """Another process is writing the run directory; the message names it."""


class RunLock:
    """Lock a run directory for writing in a ``with`` block; the kernel releases it when the process dies.

    The lock is ``flock`` on ``run_dir/lock``; the file holds pid, host and time of the holder and is empty when free.

    Measured against libraries: filelock 4.2 also releases at kill -9 and in forked children, but names no holder, which
    is most of this file; portalocker 4.4 stays locked as long as a forked child lives.

    Args:
        run_dir: an existing folder.

    Raises:
        LockError: at once, if another process holds it.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / "lock"
        self._file: int | None = None

    def __enter__(self) -> RunLock:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(file)
            os.close(file)
            raise LockError(_refusal(self.path, holder, error)) from None
        self._file = file
        _open_locks.add(self)
        if before := _holder(file):
            _log.info("%s: taken over from %s, which ended without releasing it", self.path, before)
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        me = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(me).encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.ftruncate(self._file, 0)
            self._release()

    def _release(self) -> None:
        if self._file is not None:
            os.close(self._file)
        self._file = None
        _open_locks.discard(self)


def _holder(file: int) -> str:
    """Return the holder that the lock file names, or an empty string."""
    try:
        found = json.loads(os.pread(file, 1000, 0))
        return f"process {found['pid']} on {found['host']} since {found['since']}"
    except (ValueError, KeyError, TypeError):  # empty, or being written
        return ""


def _refusal(path: Path, holder: str, error: OSError) -> str:
    if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
        return (
            f"{path.parent} is being written by {holder or 'another process'}; "
            "wait for it or end it, or give this run another name or seed"
        )
    return f"{path}: this file system has no locks ({error.strerror}); put the run directory on another one"


def _drop_inherited_locks() -> None:
    for lock in list(_open_locks):
        lock._release()


# A forked data worker inherits the open file and with it the lock: while it outlives a killed training, the run
# could not be started again.
os.register_at_fork(after_in_child=_drop_inherited_locks)
