"""What a long training costs in memory: nothing that grows, and one copy of the manifest for all workers."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch

from hoi_train.core.records import ClassList, Task
from hoi_train.data.dataset import ClipDataset
from hoi_train.data.loader import ClipLoader
from hoi_train.data.manifest import Manifest, write_manifest
from hoi_train.data.transforms import Augment, CenterCrop
from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


class Held(NamedTuple):
    """What the worker processes hold: memory in MiB, file handles, threads."""

    memory: float
    handles: int
    threads: int


def _held() -> Held:
    places = [Path(f"/proc/{child.pid}") for child in multiprocessing.active_children()]
    resident = [re.search(r"VmRSS:\s*(\d+) kB", (place / "status").read_text()) for place in places]
    handles, threads = (sum(len(list((place / of).iterdir())) for place in places) for of in ("fd", "task"))
    return Held(sum(int(found[1]) for found in resident if found) / 1024, handles, threads)


@pytest.mark.parametrize(
    ("clips", "warm"), [(150, 60), pytest.param(12_000, 2_000, marks=[pytest.mark.campaign, pytest.mark.timeout(1800)])]
)
def test_nothing_grows_while_clips_are_read(clips: int, warm: int, manifest: Manifest) -> None:
    """R20: at most 1 MiB per 1,000 clips; handles and threads as they were."""
    transforms = (Augment(size=64), CenterCrop(size=64))
    dataset = ClipDataset(manifest.split("train"), manifest.tasks, transforms, num_frames=4)
    seen = []
    for number, _ in enumerate(ClipLoader(dataset, 5, workers=2).training(0, drawn=torch.arange(clips) % len(dataset))):
        if warm <= 5 * number < clips - 50:  # near the end the workers leave
            seen.append(_held())
    part = len(seen) // 4 + 1
    grown = median(each.memory for each in seen[-part:]) - median(each.memory for each in seen[:part])
    assert max(each.handles for each in seen[-part:]) <= max(each.handles for each in seen[:part]) + 4  # of batches
    assert {each.threads for each in seen[-part:]} == {each.threads for each in seen[:part]}
    print(f"{grown:.2f} MiB more after {clips - warm} clips")
    assert grown < max(10.0, (clips - warm) / 1_000)


MEASUREMENT = """
import json, multiprocessing, re, sys, time
from pathlib import Path
import torch
from hoi_train.data.dataset import ClipDataset
from hoi_train.data.loader import ClipLoader
from hoi_train.data.manifest import read_manifest
from hoi_train.data.transforms import CenterCrop
from hoi_train.core.batches import ClipBatch

class Rows(ClipDataset):
    def batch(self, items):
        shown = [self.clips.clip(item.clip).clip_id for item in items]
        return ClipBatch(torch.zeros(1, 3, 1, 1, 1, dtype=torch.uint8), {}, torch.zeros(1), tuple(shown[:1]))

def memory():  # MiB, what is shared counted once
    processes = ["self", *(child.pid for child in multiprocessing.active_children())]
    found = [Path(f"/proc/{process}/smaps_rollup").read_text() for process in processes]
    return sum(int(re.search(r"^Pss: +([0-9]+) kB", text, re.M)[1]) for text in found) / 1024

if __name__ == "__main__":
    began = time.process_time()
    clips = read_manifest(Path(sys.argv[1])).split("train")
    seconds = time.process_time() - began
    batches = ClipLoader(Rows(clips, {}, (CenterCrop(), CenterCrop())), 500, workers=8).training(0)
    for _ in range(20):
        next(batches)
    print(json.dumps([seconds, memory()]))
"""


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_a_manifest_of_a_million_clips_is_held_once(tmp_path: Path) -> None:
    """At most 600 MB for 1.5 million clips with 8 workers, and less than 5 s of one core to open."""
    (tmp_path / "measure.py").write_text(MEASUREMENT)
    used = []
    for count in (20_000, 1_500_000):
        ids = pa.array([f"video_{number:08d}_{number % 997:04d}" for number in range(count)])
        classes = ClassList(tuple(f"class {number}" for number in range(400)))
        columns = {
            "clip_id": ids,
            "path": pa.array([f"videos/{number % 1000:03d}/{number}.mp4" for number in range(count)]),
            "split": pa.array(np.where(np.arange(count) % 10 == 0, "val", "train")),
            "label": pa.array(np.random.default_rng(0).integers(0, 400, count)),
            "num_frames": pa.array(np.full(count, 60)),
        }
        folder = tmp_path / str(count)
        folder.mkdir()
        path = write_manifest(folder / "m.parquet", pa.table(columns), [Task("label", classes, "single")], folder)
        command = [sys.executable, "-W", "ignore", str(tmp_path / "measure.py"), str(path)]
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True
        )
        used.append(json.loads(done.stdout.splitlines()[-1]))
    (_, few), (seconds, many) = used
    print(f"{many - few:.0f} MiB, {seconds:.1f} s to open")
    assert many - few < 600
    assert seconds < 5
