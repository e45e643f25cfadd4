"""Terminal progress of training: a bar with ETA, clips per second and the share of time spent waiting for data."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LIMITING = 0.5  # share of time spent waiting for data above which reading is reported as the limit


class Throughput:
    """Count clips, seconds and seconds spent waiting for data since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start counting anew."""
        self._began, self._clips, self._waited = time.perf_counter(), 0, 0.0

    def add(self, clips: int, waited: float) -> None:
        """Count the clips of a batch and the seconds spent waiting for it."""
        self._clips += clips
        self._waited += waited

    def scalars(self) -> dict[str, float]:
        """Return ``clips_per_second`` and ``data_wait``, the share 0..1 of the time spent waiting for data."""
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        return {"clips_per_second": self._clips / elapsed, "data_wait": min(self._waited / elapsed, 1.0)}


class EpochBar:
    """A progress bar over the batches of one epoch; hidden if the output is not a terminal."""

    def __init__(self, console: Console, title: str, total: int, done: int = 0) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            refresh_per_second=2,  # drawing takes milliseconds from the cores that train
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._progress.add_task(title, total=total, completed=done, note="")

    def __enter__(self) -> EpochBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def advance(self, batches: int, values: Mapping[str, float]) -> None:
        """Advance by batches and show loss, speed, the share of time waiting for data and whether that is the limit."""
        note = "  ".join(form.format(values[name]) for name, form in _FORMATS.items())
        if values["data_wait"] > LIMITING:
            note += ", the limit"
        self._progress.update(self._task, advance=batches, note=note)


_FORMATS = {"loss": "loss {:.3f}", "clips_per_second": "{:.0f} clips/s", "data_wait": "waiting for data {:.0%}"}
