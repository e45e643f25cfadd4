"""Run work on a Ray cluster: the one at RAY_ADDRESS, or a temporary one on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from math import inf
from typing import Any, NamedTuple, TypeVar

from data_tools.jobs.killable import WorkerFailure, timed_out
from hoi_train.core.records import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_on_ray(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int | None, timeout: float
) -> Iterator[tuple[Item, Result | WorkerFailure]]:
    """Apply a function to items on Ray; yield each item once with its result, in completion order.

    Args:
        work: a function that can be imported on every node, or a partial of one.
        items: inputs, taken lazily when a core is free.
        workers: processes, one core each; ``None`` for one per core of the cluster.
        timeout: seconds per item, without the start of the process; after it the process is killed and replaced.

    Raises:
        UserError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray: Ray is not installed; install hoi_train[ray], or use --engine local") from None
    address = os.environ.get("RAY_ADDRESS", "local")
    cores = {"num_cpus": workers} if address == "local" else {}
    ray.init(address=address, log_to_driver=False, logging_level="error", **cores)
    try:
        at_once = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        yield from _run_tasks(ray, work, iter(items), at_once, timeout)
    finally:
        ray.shutdown()


class _RayWorker:
    """A process on the cluster that processes one item at a time."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work

    def start(self) -> None:
        """Do nothing; the task finishes once the process is ready."""

    def do(self, item: Any) -> Any:
        return self.work(item)


class _RayTask(NamedTuple):
    worker: Any
    item: Any
    deadline: float  # infinite while the process starts


def _run_tasks(
    ray: Any, work: Callable[[Item], Result], waiting: Iterator[Item], at_once: int, timeout: float
) -> Iterator[tuple[Item, Any]]:
    """Keep ``at_once`` workers busy; replace workers that time out or die."""
    kind = ray.remote(num_cpus=1)(_RayWorker)
    running: dict[Any, _RayTask] = {}

    def begin(item: Item) -> None:
        worker = kind.remote(work)
        running[worker.start.remote()] = _RayTask(worker, item, inf)

    for item in islice(waiting, at_once):
        begin(item)
    while running:
        due = min(each.deadline for each in running.values())
        ready, _ = ray.wait(
            list(running), num_returns=1, timeout=None if due == inf else max(due - time.monotonic(), 0)
        )
        late = [task for task, each in running.items() if each.deadline <= time.monotonic() and task not in ready]
        for task in (*ready, *late):
            worker, item, deadline = running.pop(task)
            if deadline == inf:
                ray.get(task)
                running[worker.do.remote(item)] = _RayTask(worker, item, time.monotonic() + timeout)
                continue
            result = _result(ray, task) if task in ready else timed_out(timeout)
            yield item, result
            if isinstance(result, WorkerFailure):
                ray.kill(worker)
            for following in islice(waiting, 1):
                if isinstance(result, WorkerFailure):
                    begin(following)
                else:
                    running[worker.do.remote(following)] = _RayTask(worker, following, time.monotonic() + timeout)


def _result(ray: Any, task: Any) -> Any:
    try:
        return ray.get(task)
    except ray.exceptions.RayError as error:
        return WorkerFailure("crashed", f"its process on the cluster ended: {type(error).__name__}")
