"""The event log: whole after every fault, and a resumed run reads as if it had never stopped."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hoi_train.tracking.events import DURABLE, EventLog, read_events


def _write(path: Path, *records: dict[str, Any]) -> None:
    log = EventLog(path)
    for record in records:
        log.write(record)
    log.close()


def _without_time(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "time"} for row in rows]


def _train(step: int, loss: float | None = 1.0) -> dict[str, Any]:
    return {"event": "train", "step": step, "epoch": step // 10, "scalars": {"loss": loss}}


def test_rows_come_back_in_order_with_the_time(tmp_path: Path) -> None:
    path = tmp_path / "run" / "events.jsonl"
    before = time.time()
    _write(path, {"event": "start", "config": {"names": ["écrou", "a\nb"]}}, _train(1), {"event": "end"})
    rows = read_events(path)
    assert _without_time(rows) == [
        {"event": "start", "config": {"names": ["écrou", "a\nb"]}},
        _train(1),
        {"event": "end"},
    ]
    assert all(before <= row["time"] <= time.time() for row in rows)
    assert len(path.read_text().splitlines()) == 3


def test_nan_and_infinity_are_null_at_any_depth(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    _write(path, {"event": "train", "step": 1, "a": math.nan, "b": [1.5, -math.inf], "c": {"d": (math.inf,)}})
    (row,) = read_events(path)
    assert (row["a"], row["b"], row["c"]) == (None, [1.5, None], {"d": [None]})
    json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_a_second_writer_appends(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    _write(path, _train(1))
    _write(path, _train(2))
    assert _without_time(read_events(path)) == [_train(1), _train(2)]


def test_cut_anywhere_the_whole_rows_are_read_and_the_next_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    _write(path, _train(1), _train(2), _train(3))
    data = path.read_bytes()
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        whole = data[:length].count(b"\n")
        assert _without_time(read_events(path)) == [_train(1), _train(2), _train(3)][:whole]
        _write(path, _train(9))
        assert _without_time(read_events(path)) == [*[_train(1), _train(2), _train(3)][:whole], _train(9)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"event": "train", "st', "events.jsonl, line 2: not JSON (Unterminated string"),
        (b"\xff\xfe\x00", "events.jsonl, line 2: not JSON"),
        (b"", "events.jsonl, line 2: not JSON"),
        (b"[1, 2]", "events.jsonl, line 2: a row must be a JSON object, got b'[1, 2]'"),
        (b'{"event": "resume"}', "events.jsonl, line 2: a resume row needs its step, an integer, got None"),
    ],
)
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, line: bytes, message: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "start"}\n' + line + b'\n{"event": "end"}\n')
    with pytest.raises(ValueError) as caught:
        read_events(path)
    assert message in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"events\.jsonl"):
        read_events(tmp_path / "events.jsonl")


def test_rows_after_the_step_of_a_resume_are_replaced(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    evaluation = {"event": "evaluation", "step": 10, "epoch": 0, "split": "val", "tasks": {}}
    _write(
        path, {"event": "start"}, *(_train(step, 1.0) for step in (5, 10)), evaluation, _train(15, 1.0), _train(20, 1.0)
    )
    _write(path, {"event": "resume", "step": 12}, _train(15, 2.0), _train(20, 2.0))
    _write(path, {"event": "resume", "step": 16}, _train(20, 3.0), {"event": "end"})
    rows = _without_time(read_events(path))
    kept = [row for row in rows if row["event"] != "resume"]
    assert kept == [
        {"event": "start"},
        _train(5, 1.0),
        _train(10, 1.0),
        evaluation,
        _train(15, 2.0),
        _train(20, 3.0),
        {"event": "end"},
    ]


def test_an_evaluation_made_again_at_the_step_of_the_resume_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    first, again = (
        {"event": "evaluation", "step": 10, "epoch": 0, "split": "val", "scalars": {"x": x}} for x in (1, 2)
    )
    test_split = {**first, "split": "test"}
    _write(path, first, test_split, {"event": "resume", "step": 10}, again, {"event": "resume", "step": 10})
    rows = _without_time(read_events(path))
    assert [row for row in rows if row["event"] == "evaluation"] == [again, test_split]
    assert [row["event"] for row in rows].count("resume") == 2


def test_weights_of_two_tasks_at_one_step_are_both_kept(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    weights = [{"event": "weights", "step": 4, "epoch": 0, "task": task, "values": [1.0]} for task in ("verb", "noun")]
    _write(path, *weights)
    assert _without_time(read_events(path)) == weights


def test_what_json_cannot_say_is_refused_and_leaves_no_row(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    with pytest.raises(TypeError, match="PosixPath is not JSON serializable"):
        log.write({"event": "start", "path": tmp_path})
    log.close()
    log.close()
    assert read_events(log.path) == []
    with pytest.raises(ValueError, match=r"events\.jsonl is closed"):
        log.write({"event": "end"})


def test_results_are_forced_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)  # whether a power cut loses a row cannot be tried here
    log = EventLog(tmp_path / "events.jsonl")
    for event in ("start", "train", "evaluation", "weights", "checkpoint", "resume", "end"):
        before = len(synced)
        log.write({"event": event, "step": 1})
        assert (len(synced) > before) == (event in DURABLE)
    log.close()
    assert {"evaluation", "checkpoint", "end"} == DURABLE


FULL_DISK = """
import resource, sys
from pathlib import Path
from hoi_train.tracking.events import EventLog
log = EventLog(Path(sys.argv[1]))
log.write({"event": "train", "step": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
try:
    log.write({"event": "train", "step": 2, "text": "x" * 1000})
except OSError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
log.write({"event": "end"})
"""


def test_a_full_disk_is_said_and_the_log_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True)
    assert "File too large while logging" in done.stdout
    assert "MiB free" in done.stdout
    assert f"'{path}'" in done.stdout
    assert [row["event"] for row in read_events(path)] == ["train", "end"]


ENDLESS = """
import itertools, sys
from pathlib import Path
from hoi_train.tracking.events import EventLog
log = EventLog(Path(sys.argv[1]))
for step in itertools.count(int(sys.argv[2])):
    log.write({"event": "train", "step": step, "text": "x" * (step % 5000)})
"""


def test_killed_writers_leave_a_readable_log(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.touch()
    first = 0
    for wait in (0.01, 0.03, 0.1):
        size = path.stat().st_size
        writer = subprocess.Popen([sys.executable, "-c", ENDLESS, str(path), str(first)])
        while path.stat().st_size <= size:
            time.sleep(0.01)
        time.sleep(wait)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        steps = [row["step"] for row in read_events(path)]
        assert steps == list(range(len(steps)))
        first = len(steps)
    assert first > 10
