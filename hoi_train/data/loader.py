"""Load batches with worker processes."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from torch import Tensor

from hoi_train.core.batches import ClipBatch
from hoi_train.core.records import ClipError, UserError
from hoi_train.data.dataset import ClipDataset
from hoi_train.data.readers.base import clip_error
from hoi_train.data.samplers import EpochSampler, Item, evaluation_batches
from hoi_train.data.workers import WorkerLost, Workers

ATTEMPTS = 3  # losses of a worker in a row, at one clip or before any batch, that end the run
HINT = "hoi-data verify lists such clips, and data.bad_clips: quarantine leaves them out"

_log = logging.getLogger(__name__)


class ClipLoader:
    """Give the batches of one split to one rank, for training and for evaluation.

    Batches are equal to the bit whatever the number of workers and the prefetch. Workers live for one pass. Where one
    dies or hangs, all are replaced and the batch is made again; three times in a row at the same clip is an error.
    A script that makes a loader with workers needs the usual ``if __name__ == "__main__":``.

    Args:
        dataset: the clips of the split.
        batch_size: clips per batch.
        rank, world_size: which part of the data to give.
        workers: processes that read; 0 reads in this process.
        prefetch: batches that each worker loads ahead.
        timeout: seconds that reading one clip may take.
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
        timeout: float = 300.0,
    ) -> None:
        self.dataset, self.batch_size = dataset, batch_size
        self.workers, self.prefetch, self.timeout = workers, prefetch, timeout
        self.rank, self.world_size = rank, world_size
        self.sampler = EpochSampler(len(dataset), batch_size, dataset.seed, rank, world_size)
        self._waited = 0.0

    def __len__(self) -> int:
        """Return the number of clips in the split."""
        return len(self.dataset)

    def of(self, dataset: ClipDataset, batch_size: int) -> ClipLoader:
        """Return a loader of another data set for the same rank, with the same workers."""
        return ClipLoader(
            dataset,
            batch_size,
            rank=self.rank,
            world_size=self.world_size,
            workers=self.workers,
            prefetch=self.prefetch,
            timeout=self.timeout,
        )

    def select(self, rows: Tensor, batch_size: int) -> ClipLoader:
        """Return a loader of some of the samples, by their positions, int64."""
        return self.of(self.dataset.select(rows), batch_size)

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
        """Yield this rank's share of the split: over all ranks every view of every clip once.

        Raises:
            ClipError: as in ``training``.
        """
        views = self.dataset.num_views
        return self._batches(evaluation_batches(len(self), self.batch_size, self.rank, self.world_size, views))

    def pop_wait(self) -> float:
        """Return the seconds spent waiting for batches since the last call, and reset them."""
        waited, self._waited = self._waited, 0.0
        return waited

    def _batches(self, items: Sequence[list[Item]]) -> Iterator[ClipBatch]:
        done, losses = 0, Counter[int | None]()
        while done < len(items):
            started = time.perf_counter()
            workers = Workers(
                self.dataset, items[done:], workers=self.workers, prefetch=self.prefetch, timeout=self.timeout
            )
            try:
                for found in workers:
                    self._waited += time.perf_counter() - started
                    if isinstance(found, ClipError):
                        raise ClipError(f"{found}; {HINT}")
                    yield found
                    for clip in (None, *(item.clip for item in items[done])):
                        losses.pop(clip, None)
                    done += 1
                    started = time.perf_counter()
            except WorkerLost as lost:
                self._waited += time.perf_counter() - started
                losses[lost.clip] += 1
                self._report(lost, losses[lost.clip])
            finally:
                workers.end()

    def _report(self, lost: WorkerLost, times: int) -> None:
        """Warn that a batch is loaded again, or raise after ``ATTEMPTS`` losses."""
        if lost.clip is None:
            if times == ATTEMPTS:
                text = f"{times} times in a row, before a batch was made: {lost.why}"
                raise UserError(f"data workers: {text}; if memory is short, lower data.workers or training.batch_size")
            _log.warning("data workers: %s; they are started again", lost.why)
            return
        clip = self.dataset.clip_at(lost.clip)
        if times == ATTEMPTS:
            raise clip_error(clip, f"{lost.why}, {times} times in a row; {HINT}")
        _log.warning("clip %r: %s: %s; its batch is made again", clip.clip_id, clip.path, lost.why)
