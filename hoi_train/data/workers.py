"""Make batches ahead of time in worker processes, and find out which one died or hangs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.context import ForkServerContext
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from hoi_train.core.batches import ClipBatch
from hoi_train.core.records import ClipError
from hoi_train.data.dataset import ClipDataset
from hoi_train.data.samplers import Item

# Imported once by the server that workers are forked from; a worker then starts in a fraction of a second.
PRELOAD = (
    "hoi_train.data.loader",
    "hoi_train.data.readers.pyav_reader",
    "torchvision.transforms.v2.functional",
    "hoi_train.data.readers.zip_reader",  # and OpenCV
)
NOTHING = -1


class WorkerLost(Exception):  # noqa: N818 - the loader mends it
    """A worker process died or hangs.

    Args:
        clip: position in the split of the clip that it was reading, if that is known.
        why: what happened, a clause for the message.
    """

    def __init__(self, clip: int | None, why: str) -> None:
        super().__init__(why)
        self.clip, self.why = clip, why


class Workers:
    """The batches of one pass, made by worker processes, or in this process if there are none.

    Workers are forked from a server process that has no threads and no CUDA: forking a process that has either can
    hang.

    Args:
        dataset: what makes batches.
        items: per batch.
        workers: number of processes.
        prefetch: batches that each loads ahead.
        timeout: seconds that reading one clip may take; not checked without workers.
    """

    def __init__(
        self, dataset: ClipDataset, items: Sequence[list[Item]], *, workers: int, prefetch: int, timeout: float
    ) -> None:
        self._table = WorkerTable(workers)
        self._batches = iter(
            DataLoader(
                _Fetcher(dataset, self._table),
                batch_size=None,
                sampler=items,
                num_workers=workers,
                prefetch_factor=prefetch if workers else None,
                collate_fn=_unchanged,
                pin_memory=torch.cuda.is_available(),
                worker_init_fn=_begin_worker,
                multiprocessing_context=worker_context() if workers else None,
                generator=torch.Generator(),  # without it each pass would draw from the global generator
            )
        )
        self._watch = _Watchdog(self._table, timeout)
        if workers:
            self._watch.start()

    def __iter__(self) -> Iterator[ClipBatch | ClipError]:
        """Yield the batches in order, or in place of one the error of a clip that cannot be read.

        Raises:
            WorkerLost: a process has died, or was killed because it hung.
        """
        while True:
            try:
                with self._watch:
                    batch = next(self._batches)
            except StopIteration:
                return
            except (RuntimeError, EOFError, OSError):  # what a dead process gives rise to; its tensors are lost too
                lost = self._table.lost_soon()
                if lost is None:
                    raise
                raise lost from None
            yield batch

    def end(self) -> None:
        """End the processes, also while an error that refers to this object is alive."""
        self._watch.end()
        if self._table.lost() is not None:
            self._table.kill()  # the others, too: they may be stopped, and torch would wait for them
        del self._batches


class WorkerTable:
    """Which clip each worker is reading, in memory shared with the main process.

    ``rows`` is int64 ``[workers, 3]``: process id, position of the clip, and since when in ns.
    """

    def __init__(self, workers: int) -> None:
        self.rows = torch.full((workers, 3), NOTHING, dtype=torch.int64)
        self.rows.share_memory_()  # type: ignore[no-untyped-call]
        self.killed: WorkerLost | None = None

    def begin(self, number: int) -> None:
        """Record this process as a worker."""
        self.rows[number, 0] = os.getpid()

    def reading(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items and record which one is being read."""
        worker = get_worker_info()
        try:
            for item in items:
                if worker is not None:
                    self.rows[worker.id, 1:] = torch.tensor([item.clip, time.monotonic_ns()])
                yield item
        finally:
            if worker is not None:
                self.rows[worker.id, 1] = NOTHING

    def lost(self) -> WorkerLost | None:
        """Return the worker that was killed or died, if there is one."""
        if self.killed is not None:
            return self.killed
        alive = {process.pid for process in self._processes()}
        clips = [clip for pid, clip, _ in self.rows.tolist() if pid not in (NOTHING, *alive)]
        read = next((clip for clip in clips if clip != NOTHING), None)
        return WorkerLost(read, "the process that read it died" if read is not None else "one died") if clips else None

    def lost_soon(self) -> WorkerLost | None:
        """Return ``lost`` after up to 5 s: a process's end is known a moment after that of its connections."""
        until = time.monotonic() + 5.0
        while (found := self.lost()) is None and len(self.rows) and time.monotonic() < until:
            time.sleep(0.05)
        return found

    def kill(self) -> None:
        """Kill all workers."""
        for process in self._processes():
            process.kill()

    def _processes(self) -> list[Any]:
        known = set(self.rows[:, 0].tolist())
        return [process for process in multiprocessing.active_children() if process.pid in known]


class _Watchdog(threading.Thread):
    """Kill all workers if one hangs or is stopped while the main process waits.

    A thread, since the wait itself can hang: tensors are fetched from the worker that made them, without a time limit.
    """

    def __init__(self, table: WorkerTable, timeout: float) -> None:
        super().__init__(daemon=True)
        self.table, self.timeout = table, timeout
        self._ended = threading.Event()
        self._waits: tuple[float, Tensor] | None = None  # since when, and what the table showed then

    def __enter__(self) -> None:
        self._waits = time.monotonic(), self.table.rows.clone()

    def __exit__(self, *error: object) -> None:
        self._waits = None

    def run(self) -> None:
        while not self._ended.wait(min(1.0, self.timeout / 4)):
            if (waits := self._waits) is None or time.monotonic() - waits[0] < self.timeout:
                continue
            self.table.killed = self.table.lost() or self._stuck(waits[1])
            if self.table.killed is not None:
                self.table.kill()
                return
            self._waits = time.monotonic(), self.table.rows.clone()

    def end(self) -> None:
        self._ended.set()

    def _stuck(self, before: Tensor) -> WorkerLost | None:
        rows, now = self.table.rows.clone(), time.monotonic_ns()
        for _, clip, since in rows.tolist():
            if clip != NOTHING and now - since > self.timeout * 1e9:
                return WorkerLost(clip, f"not read within {self.timeout:g} s (data.timeout)")
        if rows.equal(before):
            return WorkerLost(None, f"no batch for {self.timeout:g} s (data.timeout), though nothing is being read")
        return None


class _Fetcher(Dataset[Any]):
    """Make whole batches in the worker; hand over a ``ClipError`` as a value, since torch rewrites raised ones."""

    def __init__(self, dataset: ClipDataset, table: WorkerTable) -> None:
        self.dataset, self.table = dataset, table

    def __getitem__(self, items: list[Item]) -> ClipBatch | ClipError:
        try:
            return self.dataset.batch(self.table.reading(items))
        except ClipError as error:
            return error


def _unchanged(batch: Any) -> Any:
    return batch


def _begin_worker(number: int) -> None:
    """Tie a worker to the main process; torch has set one thread already.

    Ctrl-C is left to the main process, which finishes its step first. When the main process is killed, the worker
    must go too: torch's own watchdog looks at the parent, but that is the fork server, which waits for its workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_main_process, daemon=True).start()
    worker: Any = get_worker_info()
    worker.dataset.table.begin(number)


def _end_with_main_process() -> None:
    main = multiprocessing.parent_process()
    assert main is not None
    main.join()
    os._exit(1)


def worker_context() -> ForkServerContext:
    """Return how worker processes are started: forked from a server that has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    return context
