"""Decode every clip of a manifest and say which are bad, and how.

=========== ==========================================================================================
missing     no such file
unreadable  not a video, damaged, or of a kind that is not read
shorter     fewer frames than ``num_frames``, or ending before the clip's ``end``
empty       no frame between the clip's ``start`` and ``end``
timeout     not decoded in the time allowed; the process was killed
crashed     the decoder took its process down
=========== ==========================================================================================
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from data_tools.killable import Lost, run_killable
from hoi_train.data.manifest import Manifest, read_manifest
from hoi_train.data.readers import Reader, check_reader, open_clip
from hoi_train.records import Clip, ClipError, Split, UserError

Fault = Literal["missing", "unreadable", "shorter", "empty", "timeout", "crashed"]
SHOWN = 10  # bad clips shown in the terminal; the report has them all


@dataclass(frozen=True)
class BadClip:
    """A clip that cannot be trained on, and why."""

    clip_id: str
    path: str
    split: Split
    fault: Fault
    text: str


@dataclass(frozen=True)
class Report:
    """What became of all clips of a manifest; ``bad`` in the order of the manifest."""

    manifest: str
    reader: str
    timeout: float
    clips: int
    bad: tuple[BadClip, ...]

    def counts(self) -> dict[str, int]:
        """Return how many clips there are of each fault, the most frequent first."""
        return dict(Counter(clip.fault for clip in self.bad).most_common())

    def summary(self) -> str:
        """Say it in a line."""
        faults = ", ".join(f"{count} {fault}" for fault, count in self.counts().items())
        return f"{self.manifest}: {self.clips} clips, {len(self.bad)} bad{f' ({faults})' if faults else ''}"


def verify_manifest(
    path: Path,
    out: Path,
    *,
    workers: int = 1,
    timeout: float = 60.0,
    reader: str = "auto",
    console: Console | None = None,
) -> Report:
    """Decode every clip and write ``verify.txt`` and ``verify.json`` below ``out``.

    Args:
        path: the manifest.
        out: folder of the report, made if it is not there.
        workers: number of processes.
        timeout: seconds that one clip may take.
        reader: a name in ``READERS``.
        console: where progress is shown.
    """
    if workers < 1:
        raise UserError(f"--workers must be at least 1, got {workers}")
    if not (math.isfinite(timeout) and timeout > 0):
        raise UserError(f"--timeout must be seconds above 0, got {timeout:g}")
    check_reader(reader)
    manifest = read_manifest(path)
    out.mkdir(parents=True, exist_ok=True)
    console = console or Console()
    bad = _find_bad(manifest, reader, workers=workers, timeout=timeout, console=console)
    report = Report(str(manifest.path), reader, timeout, len(manifest), bad)
    _write(report, out)
    _show(report, out, console)
    return report


def _find_bad(
    manifest: Manifest, reader: str, *, workers: int, timeout: float, console: Console
) -> tuple[BadClip, ...]:
    """Check every clip in killable processes, with a progress bar; return the bad ones in the order of the manifest."""
    check = partial(check_clip, reader=reader)
    bad: list[BadClip] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("verify, 0 bad", total=len(manifest))
        clips = (manifest.clip(row) for row in range(len(manifest)))
        for clip, result in run_killable(check, clips, workers=min(workers, len(manifest)), timeout=timeout):
            if result is not None:
                fault, text = (result.why, result.text) if isinstance(result, Lost) else result
                bad.append(BadClip(clip.clip_id, str(clip.path), clip.split, fault, text))
            progress.update(bar, advance=1, description=f"verify, {len(bad)} bad")
    rows = {clip_id: row for row, clip_id in enumerate(manifest.clip_ids)}
    return tuple(sorted(bad, key=lambda clip: rows[clip.clip_id]))


def check_clip(clip: Clip, *, reader: str) -> tuple[Fault, str] | None:
    """Decode all frames of a clip in order; return what is wrong, or ``None``."""
    try:
        if not clip.path.exists():
            return "missing", "no such file"
        with open_clip(replace(clip, num_frames=None), reader) as opened:
            return _too_short(clip, opened) or _decode(opened)
    except ClipError as error:
        return "unreadable", _without_place(clip, error)
    except Exception as error:  # whatever a decoder raises is said of its clip, and the next clip is checked
        return "unreadable", f"{type(error).__name__}: {error}"


def _without_place(clip: Clip, error: ClipError) -> str:
    return str(error).split(f"{clip.path}: ", 1)[-1]


def _too_short(clip: Clip, opened: Reader) -> tuple[Fault, str] | None:
    times = opened.timestamps
    if clip.num_frames is not None and len(times) < clip.num_frames:
        return "shorter", f"it has {len(times)} frames, the manifest says {clip.num_frames}"
    try:
        opened.window()
    except ClipError as error:
        return "empty", _without_place(clip, error)
    frame = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    # the last frame is shown for about one frame's time; one more for ends that were rounded
    if clip.end is not None and clip.end > times[-1] + 2 * frame + 1e-3:
        return "shorter", f"it ends at about {times[-1] + frame:.3f} s, the manifest's end is {clip.end:g} s"
    return None


def _decode(opened: Reader) -> tuple[Fault, str] | None:
    """Decode from the first frame to the last of the clip: a seek would hide damage that training can meet."""
    stop = opened.window().stop
    sizes = Counter(image.shape[:2] for image in islice(opened.frames(), stop))
    if sizes.total() < stop:
        return "shorter", f"only {sizes.total()} of {stop} frames decode"
    if len(sizes) > 1:
        return "unreadable", f"its frames differ in size (height, width): {sorted(sizes)}"
    return None


def _write(report: Report, out: Path) -> None:
    lines = [report.summary(), *(_line(clip) for clip in report.bad)]
    (out / "verify.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    content: dict[str, Any] = {**asdict(report), "counts": report.counts()}
    (out / "verify.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _line(clip: BadClip) -> str:
    return f"{clip.fault}: clip {clip.clip_id!r} ({clip.split}): {clip.path}: {clip.text}"


def _show(report: Report, out: Path, console: Console) -> None:
    shown: Iterable[str] = [report.summary(), *(_line(clip) for clip in report.bad[:SHOWN])]
    for line in shown:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    if len(report.bad) > SHOWN:
        console.print(f"… and {len(report.bad) - SHOWN} more", markup=False, highlight=False)
    console.print(f"report: {out / 'verify.txt'}, {out / 'verify.json'}", markup=False, highlight=False, soft_wrap=True)
