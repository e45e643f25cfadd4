"""Promise R23: a run directory of an earlier commit resumes, evaluates, predicts and compares.

``tests/fixtures/run_b8fe8d4`` was made by commit b8fe8d4: its videos, the run stopped within its second epoch, and
what the same run gave when nothing stopped it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from hoi_train.cli import main
from hoi_train.tracking.events import read_events

FIXTURE = Path(__file__).parent / "fixtures" / "run_b8fe8d4"
RUN = Path("runs/old-seed3")


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the fixture's run, trained to its end by the present code."""
    folder = tmp_path_factory.mktemp("old")
    shutil.copytree(FIXTURE, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", "old.yaml"]) == 0
    return folder


def test_it_resumes_and_ends_as_the_undisturbed_run_did(resumed: Path) -> None:
    newest = max((resumed / RUN / "checkpoints").iterdir())
    assert newest.name == "step_00000009"
    ended = torch.load(newest / "model.pt", weights_only=True)
    expected = torch.load(FIXTURE / "expected" / "model.pt", weights_only=True)
    torch.testing.assert_close(ended, expected, rtol=1e-4, atol=1e-6)  # to the bit on one machine, not on all
    first, last = ([row for row in read_events(file) if row["event"] == "train"] for file in _logs(resumed))
    assert [row["step"] for row in first] == [row["step"] for row in last] == list(range(1, 10))
    for mine, theirs in zip(first, last, strict=True):
        assert mine["scalars"]["loss"] == pytest.approx(theirs["scalars"]["loss"], rel=1e-4)


def test_it_is_evaluated(resumed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(resumed)
    assert main(["evaluate", str(RUN), "--split", "val"]) == 0
    mine, theirs = (
        json.loads(file.read_text()) for file in (RUN / "evaluation_val.json", FIXTURE / "expected/evaluation_val.json")
    )
    assert theirs["scalars"].keys() <= mine["scalars"].keys()
    for name, value in theirs["scalars"].items():
        assert mine["scalars"][name] == (None if value is None else pytest.approx(value, rel=1e-4)), name
    assert theirs["tasks"]["verb"]["confusion"] == mine["tasks"]["verb"]["confusion"]


def test_it_predicts(resumed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(resumed)
    assert main(["predict", str(RUN), "data/val_0.mp4", "--checkpoint", "last", "--out", "predict.jsonl"]) == 0
    mine = json.loads(Path("predict.jsonl").read_text())
    theirs = json.loads((FIXTURE / "expected" / "predict.jsonl").read_text())
    assert mine.keys() == theirs.keys()
    for task, found in theirs["tasks"].items():
        assert mine["tasks"][task]["predicted"] == found["predicted"]
        assert mine["tasks"][task]["scores"] == pytest.approx(found["scores"], abs=2e-5)


def test_it_is_compared(resumed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(resumed)
    assert main(["compare", str(RUN), "--plot", "recall.png"]) == 0
    assert "old-seed3" in capsys.readouterr().out
    assert Path("recall.png").stat().st_size > 1000


def _logs(folder: Path) -> tuple[Path, Path]:
    return folder / RUN / "events.jsonl", FIXTURE / "expected" / "events.jsonl"
