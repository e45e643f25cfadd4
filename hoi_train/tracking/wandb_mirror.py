"""The process that owns wandb: ``python -m hoi_train.tracking.wandb_mirror``, started by `WandbTracker`.

wandb lives here and not in the training because ``wandb.init`` may block, its exit hooks may wait for an upload, and
a process can be ended for certain where a thread cannot. Standard input carries one JSON value a line: first the
settings, then the records, at the end ``null``. Standard output carries back ``{"files": folder, "url": address}``
once the run is open, or ``{"failed": reason}``; all else that is printed goes to standard error. The process leads a
group of its own, and whoever kills the group ends wandb's service with it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

STARTUP = 4
"""Timeouts that importing and opening wandb may take together; ``wandb.init`` itself gets one."""

AXES = {"train/*": "step", "val/*": "epoch", "test/*": "epoch", "weights/*": "epoch"}


class _InGroup(subprocess.Popen[Any]):
    """A child that stays in this process's group.

    wandb starts its service in a session of its own, where it survives this process and, when the server hangs,
    retries for days (seen with 0.31).
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "start_new_session": False})


def main() -> None:
    """Mirror the records of standard input to one wandb run."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the training decides when the run ends, also on Ctrl-C
        signal.signal(number, signal.SIG_IGN)
    # Private copies, so that wandb's own service process inherits neither pipe and cannot keep them open.
    records, status = os.fdopen(os.dup(0), "r", encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    subprocess.Popen = _InGroup  # type: ignore[misc]
    try:
        _mirror(records, status)
    except Exception as error:
        _say(status, failed=f"{type(error).__name__}: {error}")
        raise


def _mirror(records: IO[str], status: IO[str]) -> None:
    settings = json.loads(records.readline())
    timeout, sys.argv = settings.pop("timeout"), settings.pop("argv")
    startup = _end_within(STARTUP * timeout)
    run = _open(settings, timeout)
    startup.cancel()
    _say(status, files=run.settings.sync_dir, url=run.url if settings["mode"] == "online" else "")
    classes: dict[str, list[str]] = {}
    ended = False
    try:
        for record in _rows(records):
            _log(run, record, classes)
            ended = ended or record["event"] == "end"
    finally:
        _end_within(timeout)
    run.finish(exit_code=0 if ended else 1)


def _end_within(seconds: float) -> threading.Timer:
    """Kill the group after so many seconds, should the training not be there to do it."""
    watchdog = threading.Timer(seconds, os.killpg, (0, signal.SIGKILL))
    watchdog.daemon = True
    watchdog.start()
    return watchdog


def _open(settings: Mapping[str, Any], timeout: float) -> Any:
    import wandb

    shown: dict[str, Any] = {"program": sys.argv[0], "x_stats_pid": os.getppid()}  # the training, not this process
    quiet = wandb.Settings(console="off", silent=True, init_timeout=timeout, **shown)
    run = wandb.init(**settings, resume="allow", settings=quiet)
    for axis in ("step", "epoch"):
        run.define_metric(axis, hidden=True)
    for names, axis in AXES.items():
        run.define_metric(names, step_metric=axis)
    return run


def _rows(records: IO[str]) -> Iterator[dict[str, Any]]:
    for line in records:
        if not line.endswith("\n") or line == "null\n":  # the training was killed in the middle of a line, or is done
            return
        yield json.loads(line)


def _say(status: IO[str], **message: str) -> None:
    try:
        print(json.dumps(message), file=status, flush=True)
    except BrokenPipeError:  # the training is gone; the run is still worth finishing
        print(message, file=sys.stderr)


def _log(run: Any, record: Mapping[str, Any], classes: dict[str, list[str]]) -> None:
    """Send one record; those without a place in wandb (checkpoint, resume, end) stay in the event log.

    Args:
        run: the open run.
        record: what the training wrote.
        classes: names of each task's classes as far as records have told them; filled here.
    """
    event = record["event"]
    axes = {axis: record[axis] for axis in ("step", "epoch") if record.get(axis) is not None}
    if event == "start":
        classes |= record.get("classes", {})
        facts = {key: record[key] for key in ("versions", "parameters", "class_counts", "groups") if key in record}
        run.config.update(facts, allow_val_change=True)  # a resumed run may have newer versions
    elif event == "train":
        run.log(axes | _scalars("train", record["scalars"]))
    elif event == "weights":
        run.log(axes | {f"weights/{record['task']}": _weights(record, classes.get(record["task"]))})
    elif event == "evaluation":
        classes |= {name: task["classes"] for name, task in record["tasks"].items()}
        run.log(axes | _evaluation(record))


def _scalars(prefix: str, scalars: Mapping[str, float | None]) -> dict[str, float]:
    return {f"{prefix}/{name}": value for name, value in scalars.items() if value is not None}


def _evaluation(record: Mapping[str, Any]) -> dict[str, Any]:
    rows: dict[str, Any] = _scalars(record["split"], record["scalars"])
    for name, task in record["tasks"].items():
        prefix = f"{record['split']}/{name}"
        rows[f"{prefix}/per_class"] = _per_class(record["epoch"], task)
        if task["confusion"] is not None:
            rows[f"{prefix}/confusion"] = _confusion(prefix, task)
    return rows


def _per_class(epoch: int, task: Mapping[str, Any]) -> Any:
    """Make the table of one task: a row a class, a column for each vector of the record."""
    import wandb

    aside = {"classes", "num_samples", "support", "groups", "confusion"}
    vectors = [name for name in task if name not in aside]
    columns: list[str | int] = ["epoch", "class", "groups", "support", *vectors]
    data = []
    for index, label in enumerate(task["classes"]):
        groups = ", ".join(name for name, members in task["groups"].items() if index in members)
        data.append([epoch, label, groups, task["support"][index], *(task[name][index] for name in vectors)])
    return wandb.Table(columns=columns, data=data)


def _confusion(title: str, task: Mapping[str, Any]) -> Any:
    """Make the chart that ``wandb.plot.confusion_matrix`` makes, from counts: that function wants every sample.

    Empty cells are left out and the rarest come last, because wandb cuts a table off at 10,000 rows.
    """
    import wandb

    names = task["classes"]
    cells = [(n, i, j) for i, row in enumerate(task["confusion"]) for j, n in enumerate(row) if n]
    columns: list[str | int] = ["Actual", "Predicted", "nPredictions"]
    table = wandb.Table(columns=columns, data=[[names[i], names[j], n] for n, i, j in sorted(cells, reverse=True)])
    fields = {str(column): column for column in columns}
    return wandb.plot_table("wandb/confusion_matrix/v1", table, fields, {"title": title})


def _weights(record: Mapping[str, Any], classes: Sequence[str] | None) -> Any:
    import wandb

    values = record["values"]
    names = classes or [str(index) for index in range(len(values))]
    rows = [[record["epoch"], name, value] for name, value in zip(names, values, strict=True)]
    return wandb.Table(columns=["epoch", "class", "weight"], data=rows)


if __name__ == "__main__":
    main()
