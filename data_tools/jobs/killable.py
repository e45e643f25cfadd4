"""Run work in processes that can be killed one by one: decoders may hang or crash on damaged files.

``concurrent.futures`` cannot do this: a process that dies or is killed breaks the whole executor.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from math import inf
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Literal, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_SPAWN = get_context("spawn")  # a forked child would inherit torch's threads and locks


@dataclass(frozen=True)
class WorkerFailure:
    """The result of an item whose process was killed after the timeout, or crashed."""

    fault: Literal["timeout", "crashed"]
    text: str


def timed_out(timeout: float) -> WorkerFailure:
    """Return the failure of an item that took longer than ``timeout`` seconds."""
    return WorkerFailure("timeout", f"not done after {timeout:g} s; its process was killed")


def run_killable(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int, timeout: float
) -> Iterator[tuple[Item, Result | WorkerFailure]]:
    """Apply a function to items in processes; yield each item once with its result, in completion order.

    Args:
        work: a function that can be imported by name, or a partial of one.
        items: inputs, taken lazily when a process is free.
        workers: number of processes.
        timeout: seconds per item, without the start of the process; after it the process is killed and replaced.

    Raises:
        RuntimeError: a process died before it was ready for work.
    """
    waiting = iter(items)
    pool: list[_WorkerProcess[Item, Result]] = [_WorkerProcess(work, item) for item in islice(waiting, workers)]
    try:
        while pool:
            due = min(worker.deadline for worker in pool)
            wait([worker.pipe for worker in pool], None if due == inf else max(due - time.monotonic(), 0))
            for place, worker in reversed(list(enumerate(pool))):
                if not worker.done(timeout):
                    continue
                yield worker.item, worker.result
                following = list(islice(waiting, 1))
                if following and isinstance(worker.result, WorkerFailure):
                    pool[place] = _WorkerProcess(work, following[0])
                elif following:
                    worker.give(following[0], timeout)
                else:
                    worker.stop()
                    del pool[place]
    finally:
        for worker in pool:
            worker.stop()


class _WorkerProcess(Generic[Item, Result]):
    """A process that processes one item at a time over a pipe; its first message says that it is ready."""

    item: Item
    result: Result | WorkerFailure

    def __init__(self, work: Callable[[Item], Result], item: Item) -> None:
        self._work = work
        self._start(item)

    def _start(self, item: Item) -> None:
        self.pipe, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_serve, args=(self._work, theirs), daemon=True)
        self.process.start()
        theirs.close()  # so that the pipe closes when the process ends
        self.ready, self.item, self.deadline = False, item, inf
        with suppress(ConnectionError):  # the process has ended; ``done`` reports it
            self.pipe.send(item)

    def give(self, item: Item, timeout: float) -> None:
        """Send the next item; start a new process if this one ended while idle (such as out of memory)."""
        self.item, self.deadline = item, time.monotonic() + timeout
        try:
            self.pipe.send(item)
        except ConnectionError:
            self.stop()
            self._start(item)

    def done(self, timeout: float) -> bool:
        """Return whether the item is finished or has failed; ``result`` is set then."""
        try:
            if self.pipe.poll():
                answer = self.pipe.recv()
                if self.ready:
                    self.result = answer
                    return True
                self.ready, self.deadline = True, time.monotonic() + timeout
            elif time.monotonic() >= self.deadline:
                self.stop()
                self.result = timed_out(timeout)
                return True
        except (EOFError, OSError):
            ending = _ending(self.stop(kill=False))
            if not self.ready:
                raise RuntimeError(f"a worker process ended before it was ready: {ending}") from None
            self.result = WorkerFailure("crashed", f"the decoder ended its process: {ending}")
            return True
        return False

    def stop(self, *, kill: bool = True) -> int:
        """End the process and return its exit code."""
        if kill:
            self.process.kill()
        self.process.join(5)  # a process blocked on a dead disk cannot be killed: do not wait for it
        self.pipe.close()
        return self.process.exitcode or 0


def _serve(work: Callable[[Any], Any], pipe: Connection[Any, Any]) -> None:
    """Process items until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends this process
    answer = None  # ready
    while True:
        try:
            pipe.send(answer)
            item = pipe.recv()
        except (EOFError, ConnectionError):  # also when the parent is killed
            return
        answer = work(item)


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
