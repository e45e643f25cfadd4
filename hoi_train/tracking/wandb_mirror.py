"""The process that owns wandb: ``python -m hoi_train.tracking.wandb_mirror``, started by `WandbTracker`.

wandb runs in a separate process because ``wandb.init`` may block and its exit hooks may wait for an upload: a process
can be killed, a thread cannot. Standard input carries one JSON value per line: the settings, then the records, then
``null``. Standard output returns ``{"files": folder, "url": address}`` once the run is open, or ``{"failed": reason}``;
other output goes to standard error. The process leads its own process group, so killing the group also ends wandb's
service.
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
"""Multiple of ``timeout`` within which wandb must be imported and opened; ``wandb.init`` itself gets one timeout."""

AXES = {"train/*": "step", "val/*": "epoch", "test/*": "epoch", "weights/*": "epoch"}


class _SameGroupPopen(subprocess.Popen[Any]):
    """A child process that stays in this process's group.

    wandb starts its service in a new session, where it survives this process and, when the server hangs, retries for
    days (seen with 0.31).
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "start_new_session": False})


def main() -> None:
    """Mirror the records of standard input to one wandb run."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the training ends the run, also on Ctrl-C
        signal.signal(number, signal.SIG_IGN)
    # Private copies, so that wandb's own service process inherits neither pipe and cannot keep them open.
    records, status = os.fdopen(os.dup(0), "r", encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    subprocess.Popen = _SameGroupPopen  # type: ignore[misc]
    try:
        _mirror(records, status)
    except Exception as error:
        _send_status(status, failed=f"{type(error).__name__}: {error}")
        raise


def _mirror(records: IO[str], status: IO[str]) -> None:
    settings = json.loads(records.readline())
    timeout, sys.argv = settings.pop("timeout"), settings.pop("argv")
    startup = _start_watchdog(STARTUP * timeout)
    run = _open_run(settings, timeout)
    startup.cancel()
    _send_status(status, files=run.settings.sync_dir, url=run.url if settings["mode"] == "online" else "")
    classes: dict[str, list[str]] = {}
    ended = False
    try:
        for record in _read_records(records):
            _log_record(run, record, classes)
            ended = ended or record["event"] == "end"
    finally:
        _start_watchdog(timeout)
    run.finish(exit_code=0 if ended else 1)


def _start_watchdog(seconds: float) -> threading.Timer:
    """Kill the process group after this number of seconds, in case the training no longer can."""
    watchdog = threading.Timer(seconds, os.killpg, (0, signal.SIGKILL))
    watchdog.daemon = True
    watchdog.start()
    return watchdog


def _open_run(settings: Mapping[str, Any], timeout: float) -> Any:
    import wandb

    process: dict[str, Any] = {"program": sys.argv[0], "x_stats_pid": os.getppid()}  # the training, not this process
    quiet = wandb.Settings(console="off", silent=True, init_timeout=timeout, **process)
    run = wandb.init(**settings, resume="allow", settings=quiet)
    for axis in ("step", "epoch"):
        run.define_metric(axis, hidden=True)
    for names, axis in AXES.items():
        run.define_metric(names, step_metric=axis)
    return run


def _read_records(records: IO[str]) -> Iterator[dict[str, Any]]:
    for line in records:
        if not line.endswith("\n") or line == "null\n":  # killed in the middle of a line, or finished
            return
        yield json.loads(line)


def _send_status(status: IO[str], **message: str) -> None:
    try:
        print(json.dumps(message), file=status, flush=True)
    except BrokenPipeError:  # the training has ended; finish the run anyway
        print(message, file=sys.stderr)


def _log_record(run: Any, record: Mapping[str, Any], classes: dict[str, list[str]]) -> None:
    """Log one record to wandb; checkpoint, resume and end records are not mirrored.

    Args:
        run: the open run.
        record: a row of the event log.
        classes: class names per task from earlier records; updated here.
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
    """Return the table of one task: one row per class, one column per vector of the record."""
    import wandb

    others = {"classes", "num_samples", "support", "groups", "confusion"}
    vectors = [name for name in task if name not in others]
    columns: list[str | int] = ["epoch", "class", "groups", "support", *vectors]
    data = []
    for index, label in enumerate(task["classes"]):
        groups = ", ".join(name for name, members in task["groups"].items() if index in members)
        data.append([epoch, label, groups, task["support"][index], *(task[name][index] for name in vectors)])
    return wandb.Table(columns=columns, data=data)


def _confusion(title: str, task: Mapping[str, Any]) -> Any:
    """Return the chart of ``wandb.plot.confusion_matrix``, built from counts, since that function needs every sample.

    Empty cells are left out and the largest come first, because wandb truncates tables at 10,000 rows.
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
