"""What ``hoi-data verify`` says and writes: text, JSON, the quarantine list and the measured manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from data_tools.console import counted, first_of, say
from data_tools.jobs.local import write_json
from data_tools.verify.records import BadClip, Measures, Suspect
from hoi_train.core.disk import write_whole
from hoi_train.core.records import SPLITS
from hoi_train.data.manifest import Manifest, read_manifest
from hoi_train.data.manifest.quarantine import QUARANTINE, quarantine_json


@dataclass(frozen=True)
class VerifyReport:
    """What became of all clips of a manifest; ``bad`` and ``warnings`` in the order of the manifest.

    Args:
        manifest, reader, timeout: what was asked for.
        clips: how many there are.
        known: how many of them were checked by an earlier run, and have not changed since.
        bad: clips that cannot be trained on.
        warnings: what looks wrong with others.
        notes: what there is to say of the set, a sentence each.
    """

    manifest: str
    reader: str
    timeout: float
    clips: int
    known: int
    bad: tuple[BadClip, ...]
    warnings: tuple[Suspect, ...]
    notes: tuple[str, ...]

    def counts(self) -> dict[str, int]:
        """Return how many clips there are of each fault, the most frequent first."""
        return dict(Counter(clip.fault for clip in self.bad).most_common())

    def warning_counts(self) -> dict[str, int]:
        """Return how many warnings there are of each kind, the most frequent first."""
        return dict(Counter(each.warning for each in self.warnings).most_common())

    def summary(self) -> list[str]:
        """Say it in a few lines."""
        lines = [f"{self.manifest}: {self.clips} clips, {len(self.bad)} bad{counted(self.counts())}"]
        leaks = Counter(each.split for each in self.warnings if each.warning == "leak")
        if leaks:
            where = ", ".join(f"{leaks[split]} of {split}" for split in SPLITS if leaks[split])
            lines.append(
                f"LEAK BETWEEN SPLITS: {leaks.total()} clips ({where}) show what a clip of another split shows; "
                "results on such a split mean nothing until they are taken out"
            )
        if self.warnings:
            lines.append(f"{len(self.warnings)} warnings{counted(self.warning_counts())}")
        return [*lines, *self.notes]


def write_report(report: VerifyReport, manifest: Manifest, out: Path) -> None:
    """Write ``verify.txt``, ``verify.json`` and ``quarantine.json``, each whole or not at all."""
    lines = [*report.summary(), *(_line(each.fault, each) for each in report.bad)]
    lines += [_line(f"warning, {each.warning}", each) for each in report.warnings]
    content: dict[str, Any] = {
        **asdict(report),
        "counts": report.counts(),
        "warning_counts": report.warning_counts(),
    }
    write_whole(out / "verify.txt", "\n".join(lines) + "\n")
    write_json(out / "verify.json", content)
    reasons = {clip.clip_id: f"{clip.fault}: {clip.text}" for clip in report.bad}
    write_whole(out / QUARANTINE, quarantine_json(manifest, reasons))


def show_report(report: VerifyReport, out: Path, console: Console) -> None:
    """Print the summary, the first bad clips and the first warnings, leaks before others."""
    bad = [_line(each.fault, each) for each in report.bad]
    warnings = [
        _line(f"warning, {each.warning}", each)
        for each in sorted(report.warnings, key=lambda each: each.warning != "leak")
    ]
    files = ", ".join(str(out / name) for name in ("verify.txt", "verify.json", QUARANTINE))
    say(console, *report.summary(), *first_of(bad), *first_of(warnings), f"report: {files}")


def _line(what: str, clip: BadClip | Suspect) -> str:
    return f"{what}: clip {clip.clip_id!r} ({clip.split}): {clip.path}: {clip.text}"


def write_measured(path: Path, measured: Mapping[str, Measures], out: Path) -> Path:
    """Write a copy of a manifest with what was measured of each clip, ``num_frames`` and ``fps``.

    Args:
        path: the manifest.
        measured: by clip id; other clips keep what the manifest says of them.
        out: folder of the copy, another than the manifest's.
    """
    manifest = read_manifest(path)  # with its tracks
    columns = {}
    for name, field, column in (("num_frames", "frames", pa.int64()), ("fps", "fps", pa.float64())):
        old = manifest.table.column(name).to_pylist()
        values = [
            getattr(measured[clip_id], field) if clip_id in measured else value
            for clip_id, value in zip(manifest.clip_ids, old, strict=True)
        ]
        columns[name] = pa.array(values, column)
    return manifest.with_columns(columns).write(out / path.name)
