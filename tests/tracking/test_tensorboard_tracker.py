"""TensorBoard holds what the event log holds, read back with TensorBoard's own reader."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hoi_train.core.palette import BLUE, rgb
from hoi_train.tracking import TRACKERS, Mirror
from hoi_train.tracking.events import EventLog
from hoi_train.tracking.tensorboard_tracker import NAMED_CELLS, TensorboardTracker, TrackerError, bars, confusion

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

CONFIG = {"name": "demo", "loss": {"name": "cdb_ce", "tau": 1.5}}


def train(step: int, loss: float) -> dict[str, Any]:
    return {"event": "train", "step": step, "epoch": 0, "scalars": {"loss": loss, "gradient_norm": float("nan")}}


def evaluation(step: int, split: str = "val", top1: float = 0.8) -> dict[str, Any]:
    task = {
        "classes": ["take", "put", "$cut$"],
        "num_samples": 5,
        "support": [2, 3, 0],
        "recall": [1.0, 0.5, None],
        "groups": {"many": [0], "medium": [1], "few": [2]},
        "confusion": [[2, 0, 0], [1, 2, 0], [0, 0, 0]],
    }
    scalars = {"verb/top1": top1, "verb/recall_few": None}
    return {
        "event": "evaluation",
        "step": step,
        "epoch": 0,
        "split": split,
        "scalars": scalars,
        "tasks": {"verb": task},
    }


START = {"event": "start", "step": 0, "classes": {"verb": ["take", "put", "$cut$"]}}
WEIGHTS = {"event": "weights", "step": 2, "epoch": 0, "task": "verb", "values": [0.5, 1.0, 2.0]}


def session(run_dir: Path, *records: Mapping[str, Any]) -> None:
    """Write as a run does: the event log first, then its mirror."""
    trackers = [EventLog(run_dir / "events.jsonl"), TensorboardTracker(run_dir, CONFIG)]
    for record in records:
        for tracker in trackers:
            tracker.write(record)
    for tracker in trackers:
        tracker.close()
        tracker.close()


def read(run_dir: Path) -> Any:
    found = event_accumulator.EventAccumulator(str(run_dir / "tensorboard"), {"scalars": 0, "images": 0})
    found.Reload()
    return found


def curve(run_dir: Path, tag: str) -> list[tuple[int, float]]:
    return [(each.step, round(each.value, 4)) for each in read(run_dir).Scalars(tag)]


def test_scalars_images_and_the_configuration_are_read_back(tmp_path: Path) -> None:
    session(
        tmp_path,
        START,
        train(1, 1.5),
        train(2, 1.25),
        evaluation(2),
        WEIGHTS,
        {"event": "checkpoint", "step": 2, "path": "step_00000002"},
        evaluation(2, "test", 0.7),
        {"event": "end", "step": 2},
    )
    found = read(tmp_path)
    assert set(found.Tags()["scalars"]) == {"train/loss", "val/verb/top1", "test/verb/top1"}  # nan has no place
    assert curve(tmp_path, "train/loss") == [(1, 1.5), (2, 1.25)]
    assert curve(tmp_path, "test/verb/top1") == [(2, 0.7)]
    images = {"val/verb/recall", "val/verb/confusion", "test/verb/recall", "test/verb/confusion", "weights/verb"}
    assert set(found.Tags()["images"]) == images
    text = found.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert json.loads(text.removeprefix("```\n").removesuffix("\n```")) == CONFIG


def test_a_killed_run_has_what_was_written_before_its_checkpoint(tmp_path: Path) -> None:
    tracker = TensorboardTracker(tmp_path, CONFIG)
    for record in (START, train(1, 1.5), {"event": "checkpoint", "step": 1, "path": "step_00000001"}):
        tracker.write(record)
    assert curve(tmp_path, "train/loss") == [(1, 1.5)]  # read while it is open, as after a kill
    tracker.close()


def test_a_longer_bar_has_the_better_recall(tmp_path: Path) -> None:
    session(tmp_path, START, evaluation(2))
    picture = np.asarray(Image.open(io.BytesIO(read(tmp_path).Images("val/verb/recall")[0].encoded_image_string)))
    blue = (np.abs(picture.astype(int) - rgb(BLUE)) < 3).all(-1).sum(1)  # pixels of a bar in each line
    lines = np.flatnonzero(blue)
    first, second = blue[lines[:5]].max(), blue[lines[-5:]].max()
    assert first == pytest.approx(second / 2, rel=0.05)  # put (3 samples, 0.5) above take (2 samples, 1.0); cut n/a


def test_after_a_resume_no_step_is_there_twice(tmp_path: Path) -> None:
    session(
        tmp_path, START, train(1, 3.0), train(2, 2.0), evaluation(2, top1=0.5), WEIGHTS, train(3, 9.0), train(4, 9.0)
    )
    resumed = {"event": "resume", "step": 2}
    session(tmp_path, resumed, evaluation(2, top1=0.5), WEIGHTS, train(3, 1.0), evaluation(3, top1=0.9))
    assert curve(tmp_path, "train/loss") == [(1, 3.0), (2, 2.0), (3, 1.0)]
    assert curve(tmp_path, "val/verb/top1") == [(2, 0.5), (3, 0.9)]
    assert [each.step for each in read(tmp_path).Images("weights/verb")] == [2]


def test_a_tracker_added_at_a_resume_begins_there(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    for record in (START, train(1, 3.0), evaluation(1)):
        log.write(record)
    log.close()
    session(tmp_path, {"event": "resume", "step": 1}, evaluation(1), train(2, 2.0), WEIGHTS)
    assert curve(tmp_path, "train/loss") == [(2, 2.0)]
    assert curve(tmp_path, "val/verb/top1") == [(1, 0.8)]


def test_many_classes_have_no_names_along_the_matrix() -> None:
    few, many = NAMED_CELLS, NAMED_CELLS + 1
    named, unnamed = (confusion([f"c{i}" for i in range(n)], np.eye(n).tolist()).axes[0] for n in (few, many))
    assert [each.get_text() for each in named.get_yticklabels()][:2] == ["c0", "c1"]
    assert "c1" not in [each.get_text() for each in unnamed.get_yticklabels()]
    assert bars(["a"], [None], "recall").axes[0].texts[0].get_text() == " n/a"


def test_a_missing_package_is_said_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    message = r"tensorboard is not installed: pip install 'hoi_train\[tensorboard\]', or take it out of trackers"
    with pytest.raises(TrackerError, match=message):
        TensorboardTracker(tmp_path, CONFIG)
    with caplog.at_level(logging.WARNING):
        mirror = Mirror("tensorboard", tmp_path, CONFIG, {})
        mirror.write(START)
        mirror.close()
    assert "tensorboard no longer mirrors this run: TrackerError: tensorboard is not installed" in caplog.text
    assert len(caplog.records) == 1


class _Failing:
    def __init__(self, run_dir: Path, config: Mapping[str, Any], *, at: str = "write") -> None:
        self.at, self.calls = at, 0

    def write(self, record: Mapping[str, Any]) -> None:
        self.calls += 1
        if self.at == "write":
            raise RuntimeError("no space\nleft")

    def close(self) -> None:
        if self.at == "close":
            raise OSError("stale handle")


@pytest.mark.parametrize(("at", "reason"), [("write", "RuntimeError: no space left"), ("close", "OSError: stale")])
def test_a_tracker_that_fails_ends_with_one_warning(
    at: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(TRACKERS, "failing", _Failing)
    mirror = Mirror("failing", tmp_path, CONFIG, {"at": at})
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            mirror.write(START)
        mirror.close()
        mirror.close()
    assert [record.getMessage().split(". ")[0] for record in caplog.records] == [
        f"failing no longer mirrors this run: {reason}" + (" handle" if at == "close" else "")
    ]


def test_a_fault_of_the_program_may_still_be_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(_Failing):
        def write(self, record: Mapping[str, Any]) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(TRACKERS, "interrupted", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        Mirror("interrupted", tmp_path, CONFIG, {}).write(START)
