"""Batches, made ahead of time by worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hoi_train.data.dataset import ClipDataset
from hoi_train.data.samplers import EpochSampler, Item, evaluation_batches
from hoi_train.records import ClipBatch, ClipError

# Imported once by the server that workers are forked from; a worker then starts in a fraction of a second.
PRELOAD = (
    "hoi_train.data.loader",
    "hoi_train.data.readers.pyav_reader",
    "hoi_train.data.readers.decord_reader",
    "torchvision.transforms.v2.functional",
)


class ClipLoader:
    """Give the batches of one split to one rank, for training and for evaluation.

    Batches are equal to the bit whatever the number of workers and the prefetch. Workers live for one pass; they are
    forked from a server process that has no threads and no CUDA (forking a process that has either can hang), so a
    script that makes a loader with workers needs the usual ``if __name__ == "__main__":``.

    Args:
        dataset: the clips of the split.
        batch_size: clips a batch.
        rank, world_size: which part of the data to give.
        workers: processes that read; 0 reads in this process.
        prefetch: batches each worker makes ahead.
    """

    def __init__(
        self,
        dataset: ClipDataset,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        prefetch: int = 2,
    ) -> None:
        self.dataset, self.batch_size, self.workers, self.prefetch = dataset, batch_size, workers, prefetch
        self.rank, self.world_size = rank, world_size
        self.sampler = EpochSampler(len(dataset), batch_size, dataset.seed, rank, world_size)
        self._waited = 0.0

    def __len__(self) -> int:
        """Return the number of clips in the split."""
        return len(self.dataset)

    def num_batches(self, epoch: int, drawn: Tensor | None = None) -> int:
        """Return the batches of a training epoch on each rank."""
        return self.sampler.num_batches(epoch, drawn)

    def training(self, epoch: int, start_batch: int = 0, drawn: Tensor | None = None) -> Iterator[ClipBatch]:
        """Yield this rank's batches of an epoch from ``start_batch`` on.

        Args:
            epoch: from 0.
            start_batch: batches done already.
            drawn: int64 indices of the clips to draw, in place of each clip once.

        Raises:
            ClipError: a clip cannot be read; the batches before it were given.
        """
        return self._batches(self.sampler.batches(epoch, start_batch, drawn))

    def evaluation(self) -> Iterator[ClipBatch]:
        """Yield this rank's share of the split: over all ranks each clip once; raises ``ClipError`` as ``training``."""
        return self._batches(evaluation_batches(len(self), self.batch_size, self.rank, self.world_size))

    def take_wait(self) -> float:
        """Return the seconds spent waiting for batches since the last call."""
        waited, self._waited = self._waited, 0.0
        return waited

    def _batches(self, items: list[list[Item]]) -> Iterator[ClipBatch]:
        if not items:
            return
        started = time.perf_counter()
        batches = iter(self._loader(items))
        try:
            for _ in items:
                found = next(batches)
                self._waited += time.perf_counter() - started
                if isinstance(found, ClipError):
                    raise found
                yield found
                started = time.perf_counter()
        finally:
            del batches  # ends the workers, also while an error that refers to this frame is alive

    def _loader(self, items: list[list[Item]]) -> DataLoader[ClipBatch | ClipError]:
        return DataLoader(
            _Fetcher(self.dataset),
            batch_size=None,
            sampler=items,
            num_workers=self.workers,
            prefetch_factor=self.prefetch if self.workers else None,
            collate_fn=_unchanged,
            pin_memory=torch.cuda.is_available(),
            worker_init_fn=_begin_worker,
            multiprocessing_context=_context() if self.workers else None,
            generator=torch.Generator(),  # without it each pass would draw from the global generator
        )


class _Fetcher(Dataset[Any]):
    """Make whole batches in the worker; hand over a ``ClipError`` as a value, since torch rewrites raised ones."""

    def __init__(self, dataset: ClipDataset) -> None:
        self.dataset = dataset

    def __getitem__(self, items: list[Item]) -> ClipBatch | ClipError:
        try:
            return self.dataset.batch(items)
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


def _end_with_main_process() -> None:
    main = multiprocessing.parent_process()
    assert main is not None
    main.join()
    os._exit(1)


def _context() -> BaseContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    return context
