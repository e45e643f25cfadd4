"""Re-encode small sets in this process: starting others takes seconds."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from rich.console import Console

from data_tools.derive.pipeline import DeriveReport, Work
from data_tools.derive.reencode import ReencodeSettings, reencode
from hoi_train.core.records import ClassList, Task
from hoi_train.data.manifest import Manifest, read_manifest, write_manifest
from hoi_train.data.readers import open_clip
from tests.videos import number_of

TASK = Task("label", ClassList(("x", "y")), "single")
SMALL = ReencodeSettings(short_side=80)


@contextmanager
def in_this_process() -> Iterator[None]:
    """Let ``hoi-data reencode`` do its work here, one source after the other."""

    def here(work: Callable[[Any], Any], items: Iterable[Any], **_: Any) -> Iterator[tuple[Any, Any]]:
        return ((item, work(item)) for item in items)

    with patch("data_tools.derive.pipeline.run_jobs", here):
        yield


def manifest_of(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a manifest of files in a folder; what rows leave out is filled in."""
    filled = [{"clip_id": str(k), "split": "train", "label": "x", **row} for k, row in enumerate(rows)]
    return write_manifest(folder / "m.jsonl", filled, [TASK], folder)


def run(
    path: Path, settings: ReencodeSettings = SMALL, out: Path | None = None, *, processes: bool = False, **how: Any
) -> tuple[DeriveReport, Manifest]:
    """Re-encode; return the report, and the manifest as it is read again."""
    out = out or path.parent / "out"
    console = Console(file=io.StringIO(), width=200)
    with nullcontext() if processes else in_this_process():
        report = reencode(path, out, settings, Work(**{"workers": 1, **how}), console=console)
    return report, read_manifest(out / "manifest.parquet")


def frames_of(manifest: Manifest, row: int, reader: str = "auto") -> list[np.ndarray]:
    """Decode a clip."""
    with open_clip(manifest.clip(row), reader) as opened:
        return list(opened.frames())


def numbers_of(manifest: Manifest, row: int = 0) -> list[int]:
    """Return the numbers that are drawn into the frames of a clip."""
    return [number_of(image) for image in frames_of(manifest, row)]


def digests(out: Path) -> dict[str, str]:
    """Return the checksums of the finished files."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("clips/*/*.mp4")}
