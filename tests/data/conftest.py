"""A small data set of numbered videos, and one thread for torch: its idle threads spin where tests share the cores."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from hoi_train.core.records import ClassList, Task
from hoi_train.data.manifest import Manifest, read_manifest, write_manifest
from tests.videos import encode

VERB = Task("verb", ClassList(("take", "put", "open")), "single")
NOUN = Task("noun", ClassList(("cup", "plate")), "multi")


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="package")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Ten clips for training, of 5 to 14 frames, and three for validation; one file holds several clips."""
    folder = tmp_path_factory.mktemp("set")
    rows = []
    for number in range(13):
        count = 5 + number
        encode(folder / f"{number}.mp4", count, b_frames=0)
        row = {"clip_id": f"clip {number}", "path": f"{number}.mp4", "split": "train" if number < 10 else "val"}
        labels = {"verb": VERB.classes.names[number % 3], "noun": [n for n in NOUN.classes if number % len(n) == 0]}
        rows.append({**row, **labels, "num_frames": count})
    rows[3] |= {"path": "8.mp4", "num_frames": 13, "start": 0.1, "end": 0.3}  # frames 3 to 8
    return read_manifest(write_manifest(folder / "manifest.parquet", rows, [VERB, NOUN], folder))
