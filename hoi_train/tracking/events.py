"""The event log of a run: one JSON object per line, appended, never rewritten.

A line is complete once its newline is on disk. A last line without one, as a killed process leaves it, is torn: reading
ignores it and the next writer truncates it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hoi_train.core.records import UserError
from hoi_train.core.strict_json import finite

DURABLE = frozenset({"evaluation", "checkpoint", "end"})
"""Events that are forced to disk before ``write`` returns; a power cut may lose the last rows of others."""


def to_line(record: Mapping[str, Any]) -> str:
    """Return a record as one line of JSON without its newline; nan and infinities become ``null``.

    >>> to_line({"event": "train", "loss": float("nan"), "lr": [0.1, float("inf")]})
    '{"event": "train", "loss": null, "lr": [0.1, null]}'
    """
    return json.dumps(finite(record), allow_nan=False)


class EventLogError(UserError, ValueError):
    """An event log that cannot be read. The message names the file and the line."""


class EventLog:
    """Append records to a JSONL file; the tracker that every run has, on rank 0.

    Args:
        path: the file; it and its folder are created if missing; a torn last line is truncated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = path.read_bytes().rfind(b"\n") + 1
        os.ftruncate(self._file, self._size)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record with the key ``time`` (unix seconds) added.

        Raises:
            OSError: the row could not be written, with the file and the free space; the log stays readable.
            TypeError: the record holds a value that JSON cannot represent.
        """
        if self._file is None:
            raise ValueError(f"{self.path} is closed")
        row = (to_line({**record, "time": time.time()}) + "\n").encode()
        try:
            written = 0
            while written < len(row):
                written += os.write(self._file, row[written:])
            if record.get("event") in DURABLE:
                os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self._size)  # remove a partly written row
            free = shutil.disk_usage(self.path.parent).free / 2**20
            hint = f"{error.strerror} while logging ({free:.1f} MiB free); make room and give the same command again"
            raise OSError(error.errno, hint, str(self.path)) from error
        self._size += len(row)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def read_events(path: Path) -> list[dict[str, Any]]:
    """Read an event log; a resumed run reads as if it had never been interrupted.

    Rows whose ``step`` lies beyond the step of a later ``resume`` row were undone by that resume and are left out.
    Of two rows with the same event, step, epoch, split and task the later is returned, at the place of the first.

    Args:
        path: a file that `EventLog` wrote, also one that is being written.

    Returns:
        The rows in order, each a dictionary.

    Raises:
        EventLogError: a line before the last is not a JSON object with an event; names the file and the line.
    """
    whole, _, _torn = path.read_bytes().rpartition(b"\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
        row = _parse(path, number, line)
        if row.get("event") == "resume":
            rows = [earlier for earlier in rows if (earlier.get("step") or 0) <= row["step"]]
        rows.append(row)
    return list({_row_key(index, row): row for index, row in enumerate(rows)}.values())


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:  # also bytes that are not UTF-8
        raise EventLogError(
            f"{path}, line {number}: not JSON ({error}); the file was damaged after it was written"
        ) from None
    if not isinstance(row, dict):
        raise EventLogError(f"{path}, line {number}: a row must be a JSON object, got {line[:40]!r}")
    if row.get("event") == "resume" and not isinstance(row.get("step"), int):
        raise EventLogError(f"{path}, line {number}: a resume row needs its step, an integer, got {row.get('step')!r}")
    return row


def _row_key(index: int, row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the key by which rows replace each other; with the index for rows that are all kept, such as starts."""
    about = tuple(row.get(key) for key in ("event", "step", "epoch", "split", "task"))
    return about if row.get("event") in ("train", "evaluation", "weights", "checkpoint", "stage") else (*about, index)
