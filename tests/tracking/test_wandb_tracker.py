"""wandb mirrors the whole run, and nothing that goes wrong with it is felt by the training."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from hoi_train.tracking import wandb_tracker
from hoi_train.tracking.events import EventLog, read_events
from hoi_train.tracking.wandb_tracker import WandbTracker
from tests.tracking.loopback import FaultyServer, hanging, refusing
from tests.tracking.offline_run import offline_runs

pytestmark = pytest.mark.process  # wandb has a service of its own

CONFIG = {"name": "demo", "loss": {"name": "cdb_ce", "tau": 1.5}, "tasks": {"verb": {"weight": 1.0}}}
VERB = {
    "classes": ["take", "put", "cut"],
    "num_samples": 5,
    "support": [3, 2, 0],
    "recall": [1.0, 0.5, None],
    "ap": [None, None, None],
    "groups": {"majority": [0], "minority": [1, 2]},
    "confusion": [[3, 0, 0], [1, 1, 0], [0, 0, 0]],
}
NOUN = {
    "classes": ["cup"],
    "num_samples": 5,
    "support": [4],
    "ap": [0.25],
    "groups": {},
    "confusion": None,
}
RECORDS: list[dict[str, Any]] = [
    {
        "event": "start",
        "step": 0,
        "config": CONFIG,
        "versions": {"torch": "2.10"},
        "parameters": 123,
        "classes": {"verb": ["take", "put", "cut"]},
    },
    {"event": "train", "step": 5, "epoch": 0, "scalars": {"loss": 1.5, "lr": 0.1, "gradient_norm": float("nan")}},
    {"event": "train", "step": 10, "epoch": 0, "scalars": {"loss": 1.25, "lr": 0.05}},
    {
        "event": "evaluation",
        "step": 10,
        "epoch": 0,
        "split": "val",
        "scalars": {"verb/top1": 0.8, "verb/recall_minority": 0.5, "noun/map": None},
        "tasks": {"verb": VERB, "noun": NOUN},
    },
    {"event": "weights", "step": 10, "epoch": 0, "task": "verb", "values": [0.5, 1.0, 2.0]},
    {"event": "weights", "step": 10, "epoch": 0, "task": "noun", "values": [1.0]},
    {"event": "checkpoint", "step": 10, "path": "step_00000010"},
    {"event": "evaluation", "step": 10, "epoch": 0, "split": "test", "scalars": {"verb/top1": 0.7}, "tasks": {}},
    {"event": "end", "step": 10},
]


def tracker(run_dir: Path, mode: Any = "online", **settings: Any) -> WandbTracker:
    if mode != "disabled":
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / "wandb_id").write_text("run1")
    return WandbTracker(run_dir, CONFIG, mode=mode, **settings)


def mirror(run_dir: Path, records: list[dict[str, Any]], **settings: Any) -> None:
    mirrored = tracker(run_dir, **settings)
    for record in records:
        mirrored.write(record)
    mirrored.close()


def processes_of(run_dir: Path) -> dict[str, str]:
    """Return the command lines, by id, of all processes that were started to mirror a run."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("the processes of a run are found through /proc")
    marker, found = f"WANDB_DATA_DIR={run_dir}/wandb/data".encode(), {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if marker in (process / "environ").read_bytes().split(b"\0"):
                found[process.name] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def gone(run_dir: Path, within: float) -> bool:
    deadline = time.monotonic() + within
    while processes_of(run_dir):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_an_offline_run_holds_everything(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        mirror(tmp_path, RECORDS, mode="offline", project="kitchen", tags=("demo", "cdb"))
    (run,) = offline_runs(tmp_path)
    (header,) = run.of("run")
    assert (header["run_id"], header["project"], header["display_name"]) == ("run1", "kitchen", tmp_path.name)
    assert header["tags"] == ["demo", "cdb"]
    assert run.config["loss"] == {"name": "cdb_ce", "tau": 1.5}
    assert (run.config["versions"], run.config["parameters"]) == ({"torch": "2.10"}, 123)
    assert run.axes == {"train/*": "step", "val/*": "epoch", "test/*": "epoch", "weights/*": "epoch"}
    assert run.history[:2] == [
        {"step": 5, "epoch": 0, "train/loss": 1.5, "train/lr": 0.1},
        {"step": 10, "epoch": 0, "train/loss": 1.25, "train/lr": 0.05},
    ]
    evaluation, verb_weights, noun_weights, test = run.history[2:]
    assert (evaluation["epoch"], evaluation["val/verb/top1"], evaluation["val/verb/recall_minority"]) == (0, 0.8, 0.5)
    assert "val/noun/map" not in evaluation
    assert run.table(evaluation, "val/verb/per_class") == {
        "columns": ["epoch", "class", "groups", "support", "recall", "ap"],
        "data": [
            [0, "take", "majority", 3, 1.0, None],
            [0, "put", "minority", 2, 0.5, None],
            [0, "cut", "minority", 0, None, None],
        ],
    }
    assert run.table(evaluation, "val/noun/per_class")["data"] == [[0, "cup", "", 4, 0.25]]
    assert run.table(evaluation, "val/verb/confusion_table") == {
        "columns": ["Actual", "Predicted", "nPredictions"],
        "data": [["take", "take", 3], ["put", "put", 1], ["put", "take", 1]],
    }
    chart = run.config["_wandb.visualize.val/verb/confusion"]
    assert chart["panel_config"]["panelDefId"] == "wandb/confusion_matrix/v1"
    assert not any("noun/confusion" in key for key in evaluation)
    weights = run.table(verb_weights, "weights/verb")
    assert weights["columns"] == ["epoch", "class", "weight"]
    assert weights["data"] == [[0, "take", 0.5], [0, "put", 1.0], [0, "cut", 2.0]]
    assert run.table(noun_weights, "weights/noun")["data"] == [[0, "cup", 1.0]]
    assert (test["test/verb/top1"], run.summary["test/verb/top1"], run.summary["train/loss"]) == (0.7, 0.7, 1.25)
    assert [end["exit_code"] for end in run.of("exit")] == [0]
    assert f"wandb: offline; upload with: wandb sync {run.folder}" in caplog.text
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wandb", "wandb_id"]
    assert gone(tmp_path, within=0)


def test_weights_before_any_class_name_is_known_are_numbered(tmp_path: Path) -> None:
    mirror(tmp_path, [RECORDS[4]], mode="offline")
    (run,) = offline_runs(tmp_path)
    assert run.table(run.history[0], "weights/verb")["data"] == [[0, "0", 0.5], [0, "1", 1.0], [0, "2", 2.0]]
    assert [end["exit_code"] for end in run.of("exit")] == [1]  # no "end" was written


def test_a_resumed_run_goes_on_under_the_same_id(tmp_path: Path) -> None:
    mirror(tmp_path, RECORDS[:2], mode="offline")
    time.sleep(1.1)  # wandb names the folder by the second
    mirror(tmp_path, [{"event": "resume", "step": 5}, *RECORDS[2:]], mode="offline")
    runs = offline_runs(tmp_path)
    assert [run.of("run")[0]["run_id"] for run in runs] == ["run1", "run1"]
    assert [[row["step"] for row in run.history] for run in runs] == [[5], [10] * 5]


def test_disabled_does_nothing(tmp_path: Path) -> None:
    threads = threading.active_count()
    mirror(tmp_path, RECORDS, mode="disabled")
    assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []


def run_against(address: str, run_dir: Path, monkeypatch: pytest.MonkeyPatch, timeout: float) -> float:
    """Record a run locally and in wandb; return how long closing took."""
    monkeypatch.setenv("WANDB_BASE_URL", address)
    began = time.monotonic()
    trackers = [EventLog(run_dir / "events.jsonl"), tracker(run_dir, timeout=timeout)]
    for step in range(1000):
        for each in trackers:
            each.write({"event": "train", "step": step, "epoch": 0, "scalars": {"loss": 1.0}})
    for each in trackers:
        each.write(RECORDS[3])
    assert time.monotonic() - began < 1, "writing waited for wandb"
    closing = time.monotonic()
    for each in trackers:
        each.close()
    took = time.monotonic() - closing
    assert len(read_events(run_dir / "events.jsonl")) == 1001
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("wandb")]
    assert gone(run_dir, within=1), f"left behind: {processes_of(run_dir)}"
    return took


def one_warning(caplog: pytest.LogCaptureFixture) -> str:
    (warning,) = (record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
    assert "\n" not in warning
    assert "Training goes on and the event log has every record" in warning
    return warning


@pytest.mark.parametrize("server", [refusing, hanging])
def test_a_server_that_cannot_be_reached(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with server() as address:
        assert run_against(address, tmp_path, monkeypatch, timeout=3) < 4
    assert "wandb no longer mirrors this run: " in one_warning(caplog)
    assert f"details in {tmp_path}/wandb/mirror.log" in one_warning(caplog)


def test_the_reason_of_a_failed_start_is_told_while_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with refusing() as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        mirrored = tracker(tmp_path, timeout=2)
        deadline = time.monotonic() + 20
        while not caplog.records and time.monotonic() < deadline:
            mirrored.write(RECORDS[1])
            time.sleep(0.05)
        began = time.monotonic()
        mirrored.close()
        assert time.monotonic() - began < 2.5
    assert "CommError" in one_warning(caplog)
    assert "connection refused" in one_warning(caplog)


@pytest.mark.parametrize("hang", [True, False])
def test_a_server_that_fails_once_the_run_has_begun(
    hang: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyServer(hang=hang) as server, caplog.at_level(logging.INFO):
        assert run_against(server.address, tmp_path, monkeypatch, timeout=5) < 6
        begun = [asked["variables"]["name"] for asked in server.requests if "UpsertBucket" in asked["query"]]
    assert begun[0] == "run1"
    assert f"wandb: {server.address}/somebody/hoi_train/runs/run1" in caplog.text
    assert one_warning(caplog)


def test_no_key_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    mirror(tmp_path, RECORDS)
    assert "No API key configured. Use `wandb login`" in one_warning(caplog)


FAULTS = {
    "raise ModuleNotFoundError(\"No module named 'wandb'\")": "ModuleNotFoundError: No module named 'wandb'",
    "import time; time.sleep(1000)": "it did not finish within 2 s",
    "import os; os._exit(3)": "its process ended with status 3",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "its process ended with status -9",
    "print('{}'); raise SystemExit(4)": "its process ended with status 4",
}


@pytest.mark.parametrize("code", FAULTS)
def test_wandb_missing_or_broken(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "wandb.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path / "broken")
    assert run_against("http://127.0.0.1:9", tmp_path / "run", monkeypatch, timeout=2) < 3
    assert FAULTS[code] in one_warning(caplog)


def test_too_many_waiting_records_end_the_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "wandb.py").write_text("import time; time.sleep(1000)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(wandb_tracker, "MAX_WAITING", 20)
    mirrored = tracker(tmp_path / "run")
    for _ in range(200):
        mirrored.write({"event": "train", "step": 1, "epoch": 0, "scalars": {}, "text": "x" * 10_000})
    assert "20 records are waiting for it" in one_warning(caplog)
    began = time.monotonic()
    mirrored.close()
    assert time.monotonic() - began < 1
    assert gone(tmp_path / "run", within=1)


def test_a_run_directory_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "wandb").write_text("in the way")
    mirror(tmp_path, RECORDS, mode="offline")
    assert "File exists" in one_warning(caplog)


SCRIPT = """
import os, sys, time
from pathlib import Path
from hoi_train.tracking.wandb_tracker import WandbTracker
tracker = WandbTracker(Path(sys.argv[1]), {}, mode=sys.argv[2], timeout=float(sys.argv[3]))
text = "x" * int(sys.argv[4])
for step in range(100):
    tracker.write({"event": "train", "step": step, "epoch": 0, "scalars": {"loss": 1.0}, "text": text})
"""


def script(run_dir: Path, mode: str, timeout: float, end: str, size: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT + end, str(run_dir), mode, str(timeout), str(size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_process_that_ends_without_closing_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hanging() as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        began = time.monotonic()
        output, _ = script(tmp_path, "online", 1.5, "print('done')", 10_000).communicate(timeout=5)
        assert time.monotonic() - began < 3
        assert output == "done\n"
        assert gone(tmp_path, within=12)  # by its own clock: nobody else is left


def test_the_run_of_a_killed_training_is_finished_as_failed(tmp_path: Path) -> None:
    with script(tmp_path, "offline", 15, "print('logged', flush=True); time.sleep(100)") as training:
        assert training.stdout
        assert training.stdout.readline() == "logged\n"
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob("wandb/offline-run-*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        training.send_signal(signal.SIGKILL)
    assert gone(tmp_path, within=15)
    (run,) = offline_runs(tmp_path)
    assert [row["step"] for row in run.history] == list(range(100))
    assert [end["exit_code"] for end in run.of("exit")] == [1]


def begun(run_dir: Path) -> WandbTracker:
    mirrored = tracker(run_dir, mode="offline", timeout=5)
    mirrored.write(RECORDS[1])
    deadline = time.monotonic() + 20
    while not list(run_dir.glob("wandb/offline-run-*/run-run1.wandb")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return mirrored


def test_ctrl_c_and_termination_leave_the_run_to_the_training(tmp_path: Path) -> None:
    mirrored = begun(tmp_path)
    process = mirrored._process
    assert process
    assert os.getpgid(process.pid) != os.getpgid(0)  # so Ctrl-C does not reach wandb's service either
    for number in (signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)
    mirrored.write(RECORDS[2])
    mirrored.write(RECORDS[-1])
    mirrored.close()
    (run,) = offline_runs(tmp_path)
    assert [row["step"] for row in run.history] == [5, 10]
    assert [end["exit_code"] for end in run.of("exit")] == [0]


def test_wandb_s_service_dying_is_survived(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mirrored = begun(tmp_path)
    services = [int(pid) for pid, command in processes_of(tmp_path).items() if "wandb-core" in command]
    assert len(services) == 1
    os.kill(services[0], signal.SIGKILL)
    for record in RECORDS:
        mirrored.write(record)
    began = time.monotonic()
    mirrored.close()
    assert time.monotonic() - began < 6
    assert one_warning(caplog)
    assert gone(tmp_path, within=1)


FORK = """
if (worker := os.fork()) == 0:
    time.sleep(60)
    os._exit(0)
began = time.monotonic()
tracker.close()
print(time.monotonic() - began)
os.kill(worker, 9)
"""


def test_forked_data_workers_do_not_delay_the_end(tmp_path: Path) -> None:
    output, _ = script(tmp_path, "offline", 15, FORK).communicate(timeout=20)
    assert float(output.splitlines()[-1]) < 10  # from Python 3.12 on a warning about the fork comes first


def test_the_id_is_kept_or_given_by_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def recorded(run_dir: Path, mode: Any = "offline") -> str | None:
        monkeypatch.setattr(wandb_tracker, "_start", lambda folder: (_ for _ in ()).throw(OSError("not tried")))
        WandbTracker(run_dir, CONFIG, mode=mode).close()
        return (run_dir / "wandb_id").read_text() if (run_dir / "wandb_id").is_file() else None

    drawn = recorded(tmp_path / "new")
    assert drawn is not None
    assert len(drawn) == 8
    assert recorded(tmp_path / "new") == drawn
    monkeypatch.setenv("WANDB_RUN_ID", "agents")
    assert recorded(tmp_path / "new") == drawn
    assert recorded(tmp_path / "swept") == "agents"
    assert recorded(tmp_path / "off", "disabled") is None


def test_settings_can_become_a_schema() -> None:
    hints = get_type_hints(WandbTracker.__init__, include_extras=True)
    assert {"mode", "project", "entity", "tags", "timeout"} <= set(hints)
    assert WandbTracker.__init__.__kwdefaults__ == {
        "mode": "offline",
        "project": "hoi_train",
        "entity": None,
        "tags": (),
        "timeout": 15.0,
    }
