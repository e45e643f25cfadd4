"""Do work in processes that can be killed one by one: for decoders that hang or crash on damaged files.

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
    """Work that was not finished: its process was killed for taking too long, or died by itself."""

    fault: Literal["timeout", "crashed"]
    text: str


def timed_out(timeout: float) -> WorkerFailure:
    """Return what is said of work that took longer than so many seconds."""
    return WorkerFailure("timeout", f"not done after {timeout:g} s; its process was killed")


def run_killable(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int, timeout: float
) -> Iterator[tuple[Item, Result | WorkerFailure]]:
    """Apply a function to items in processes; yield each item once with its result, in the order of finishing.

    Args:
        work: a function that can be imported by name, or a partial of one.
        items: what to work on, taken when a process is free.
        workers: number of processes.
        timeout: seconds that one item may take; then its process is killed and replaced. Starting does not count.

    Raises:
        RuntimeError: a process died before it was ready for work.
    """
    waiting = iter(items)
    pool: list[_Worker[Item, Result]] = [_Worker(work, item) for item in islice(waiting, workers)]
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
                    pool[place] = _Worker(work, following[0])
                elif following:
                    worker.give(following[0], timeout)
                else:
                    worker.stop()
                    del pool[place]
    finally:
        for worker in pool:
            worker.stop()


class _Worker(Generic[Item, Result]):
    """One process with a pipe, given one item at a time; it says that it is ready, then answers each item."""

    item: Item
    result: Result | WorkerFailure

    def __init__(self, work: Callable[[Item], Result], item: Item) -> None:
        self._work = work
        self._start(item)

    def _start(self, item: Item) -> None:
        self.pipe, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_serve, args=(self._work, theirs), daemon=True)
        self.process.start()
        theirs.close()  # the pipe must end with the process
        self.ready, self.item, self.deadline = False, item, inf
        with suppress(ConnectionError):  # it has ended, as ``done`` will find
            self.pipe.send(item)

    def give(self, item: Item, timeout: float) -> None:
        """Send the next item; if the process ended while it was idle, such as for want of memory, to a new one."""
        self.item, self.deadline = item, time.monotonic() + timeout
        try:
            self.pipe.send(item)
        except ConnectionError:
            self.stop()
            self._start(item)

    def done(self, timeout: float) -> bool:
        """Return whether it is known what became of the item; ``result`` says it then."""
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
        self.process.join(5)  # one that waits for a dead disk cannot be killed: go on without it
        self.pipe.close()
        return self.process.exitcode or 0


def _serve(work: Callable[[Any], Any], pipe: Connection[Any, Any]) -> None:
    """Answer items until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends this process
    answer = None  # ready
    while True:
        try:
            pipe.send(answer)
            item = pipe.recv()
        except (EOFError, ConnectionError):  # so it ends, also when its parent is killed
            return
        answer = work(item)


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
