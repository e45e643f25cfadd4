"""The examples of CONTRIBUTING.md work as they stand there: one process registers, imports and trains with them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hoi_train.data.manifest import read_manifest
from hoi_train.tracking.events import read_events
from tests.conftest import ROOT
from tests.small import TRAIN_VERBS, VERB, make_data

pytestmark = pytest.mark.process


def test_a_run_with_every_example(tmp_path):
    (tmp_path / "data").mkdir()
    make_data(tmp_path / "data")
    command = [sys.executable, "-m", "tests.contributing_run", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr

    imported = read_manifest(tmp_path / "imported" / "manifest.parquet")
    assert imported.split("train").counts("verb").positives == tuple(
        TRAIN_VERBS.count(VERB.classes.index(name)) for name in imported.tasks["verb"].classes
    )
    events = list(read_events(tmp_path / "small-seed3" / "events.jsonl"))
    assert [event["stage"] for event in events if event["event"] == "stage"] == [0, 1]
    end = next(event for event in events if event["event"] == "end")
    assert end["monitor"] == "verb/specificity_macro"
    assert 0 <= end["best"] <= 1
    tested = [event for event in events if event["event"] == "evaluation"][-1]
    assert len(tested["tasks"]["verb"]["specificity"]) == 3
    assert {"verb/specificity_majority", "verb/specificity_minority"} <= tested["scalars"].keys()
    written = (tmp_path / "small-seed3" / "numbers.csv").read_text().splitlines()
    assert sum(",verb/specificity_macro," in line for line in written) == 3  # val of two epochs, and the test
