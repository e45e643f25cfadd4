"""Do work in processes that can be killed one by one: for decoders that hang or crash on damaged files.

``concurrent.futures`` cannot do this: a process that dies or is killed breaks the whole executor.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import inf
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Literal, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_SPAWN = get_context("spawn")  # a forked child would inherit torch's threads and locks


@dataclass(frozen=True)
class Lost:
    """Work that was not finished: its process was killed for taking too long, or died by itself."""

    why: Literal["timeout", "crashed"]
    text: str


def run_killable(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int, timeout: float
) -> Iterator[tuple[Item, Result | Lost]]:
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
    pool: list[_Worker[Item, Result]] = [_Worker(work) for _ in range(workers)]
    try:
        while pool:
            due = min(worker.deadline for worker in pool)
            wait([worker.pipe for worker in pool], None if due == inf else max(due - time.monotonic(), 0))
            for place, worker in reversed(list(enumerate(pool))):
                done = worker.done(timeout)
                if done:
                    yield done
                if worker.lost:
                    pool[place] = _Worker(work)
                elif worker.idle and not worker.give(next(waiting, None), timeout):
                    worker.stop()
                    del pool[place]
    finally:
        for worker in pool:
            worker.stop()


class _Worker(Generic[Item, Result]):
    """One process with a pipe, given one item at a time; it says that it is ready, then answers each item."""

    def __init__(self, work: Callable[[Item], Result]) -> None:
        self.pipe, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=_serve, args=(work, theirs), daemon=True)
        self.process.start()
        theirs.close()  # the pipe must end with the process
        self.item: Item | None = None
        self.idle = False
        self.lost = False
        self.deadline = inf

    def give(self, item: Item | None, seconds: float) -> bool:
        """Send an item; return False if there is none."""
        self.item, self.idle, self.deadline = item, False, time.monotonic() + seconds
        if item is not None:
            self.pipe.send(item)
        return item is not None

    def done(self, timeout: float) -> tuple[Item, Result | Lost] | None:
        """Return the item and what became of it, or ``None`` while nothing did; the worker is idle or lost then."""
        item: Item | None = self.item
        result: Any = None
        try:
            if self.pipe.poll():
                result = self.pipe.recv()
                self.item, self.idle, self.deadline = None, True, inf
            elif time.monotonic() >= self.deadline:
                self.lost = True
                self.stop()
                result = Lost("timeout", f"not done after {timeout:g} s; its process was killed")
        except (EOFError, OSError):
            self.lost = True
            result = Lost("crashed", f"the decoder ended its process: {_ending(self.stop(kill=False))}")
            if item is None:
                raise RuntimeError(f"a worker process ended before it was ready: {result.text}") from None
        return (item, result) if item is not None and (self.idle or self.lost) else None

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
    pipe.send(None)
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send(work(item))


def _ending(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
