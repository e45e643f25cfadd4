"""R8: of a set with broken files all of these are found and no other; a run stops with the list, or leaves them out.

The small set is in every run of the tests; the large one is the campaign: ``pytest -m campaign -s -k broken``.
"""

from __future__ import annotations

import io
import random
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from data_tools.cli import main
from data_tools.verify.command import verify_manifest
from data_tools.verify.report import VerifyReport
from hoi_train.config import load_config
from hoi_train.core.records import ClassList, Clip, Task
from hoi_train.core.strict_yaml import ConfigError
from hoi_train.data.manifest import Manifest, read_manifest, write_manifest
from hoi_train.engine.experiment import assemble
from tests.data_tools.broken_files import BREAKAGES, kinds, sound_video
from tests.small import make_config

VERB = Task("verb", ClassList(("take", "put", "pour")), "single")
SHARE = (0.7, 0.2, 0.1)  # of the clips, a tail


def make_set(folder: Path, clips: int, broken: int) -> tuple[Manifest, dict[str, str]]:
    """Write a set and its manifest; return it, and the kind of breakage by clip id."""
    draw = random.Random(clips)
    ids = [f"clip_{number:05}" for number in range(clips)]
    breakage = dict(zip(sorted(draw.sample(ids, broken)), kinds(broken), strict=True))
    rows = []
    for clip_id in ids:
        path, made = folder / f"{clip_id}.mp4", random.Random(clip_id)
        BREAKAGES[breakage[clip_id]](path, made) if clip_id in breakage else sound_video(path, made)
        split = draw.choices(("train", "val", "test"), (8, 1, 1))[0]
        verb = draw.choices(VERB.classes.names, SHARE)[0]
        rows.append({"clip_id": clip_id, "path": path.name, "split": split, "verb": verb})
    return read_manifest(write_manifest(folder / "manifest.parquet", rows, [VERB], folder)), breakage


def table(report: VerifyReport, breakage: dict[str, str], clips: int, seconds: dict[str, float]) -> str:
    """Return the result as a Markdown table."""
    faults: dict[str, Counter[str]] = defaultdict(Counter)
    for bad in report.bad:
        faults[breakage.get(bad.clip_id, "sound")][bad.fault] += 1
    lines = ["| file | made | found | as |", "|---|---|---|---|"]
    for kind, made in [*Counter(breakage.values()).items(), ("sound", clips - len(breakage))]:
        named = ", ".join(f"{count} {fault}" for fault, count in faults[kind].most_common())
        lines.append(f"| {kind} | {made} | {faults[kind].total()} | {named} |")
    return "\n".join([*lines, ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())])


@pytest.mark.process
@pytest.mark.parametrize(
    ("clips", "broken", "timeout"),
    [(100, 30, 5.0), pytest.param(3000, 300, 10.0, marks=[pytest.mark.campaign, pytest.mark.timeout(3600)])],
)
def test_broken_files_stop_a_run_or_are_left_out(tmp_path: Path, clips: int, broken: int, timeout: float) -> None:
    started = time.monotonic()
    manifest, breakage = make_set(tmp_path, clips, broken)
    made = time.monotonic()
    report = verify_manifest(
        manifest.path, tmp_path / "out", workers=2, timeout=timeout, console=Console(file=io.StringIO())
    )
    seconds = {"made in": made - started, "verified in": time.monotonic() - made}
    assert report is not None
    print(f"\n{table(report, breakage, clips, seconds)}")
    assert {bad.clip_id for bad in report.bad} == breakage.keys()
    assert len(report.bad) == broken
    check_training(tmp_path, manifest, breakage)


def check_training(folder: Path, manifest: Manifest, breakage: dict[str, str]) -> None:
    """A run stops with the list by default; with quarantine it sees each sound clip once and counts those alone."""
    one_by_one = {"epochs": 1, "batch_size": 1}  # a training epoch leaves out what is no whole batch
    listed = {"data": {"quarantine": str(folder / "out" / "quarantine.json")}, "training": one_by_one}
    with pytest.raises(ConfigError, match=f"quarantine.json lists {len(breakage)} bad clips; mend them") as stopped:
        assemble(load_config(make_config(folder / "stop", manifest.path, **listed)))
    assert f"clip {min(breakage)!r}: " in str(stopped.value)

    quarantined: dict[str, Any] = {**listed, "data": {**listed["data"], "bad_clips": "quarantine"}}
    experiment = assemble(load_config(make_config(folder / "go", manifest.path, **quarantined)))
    sound: dict[str, list[Clip]] = {name: [] for name in ("train", "val", "test")}
    for row, clip_id in enumerate(manifest.clip_ids):
        if clip_id not in breakage:
            sound[manifest.clip(row).split].append(manifest.clip(row))
    expected = Counter(clip.labels["verb"] for clip in sound["train"])
    assert experiment.data.counts["train"]["verb"].positives == tuple(expected[k] for k in range(3))
    for split, loader in experiment.data.loaders.items():
        batches = loader.training(0) if split == "train" else loader.evaluation()
        seen = [clip_id for batch in batches for clip_id in batch.clip_ids]
        assert sorted(seen) == [clip.clip_id for clip in sound[split]]
    assert experiment.data.left_out is not None
    assert sum(experiment.data.left_out.clips.values()) == len(breakage)


def test_a_dry_run_writes_nothing_and_a_damaged_journal_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound_video(tmp_path / "a.mp4", random.Random(0), form="fast")
    row = {"clip_id": "a", "path": "a.mp4", "split": "train", "verb": "take"}
    manifest = write_manifest(tmp_path / "manifest.parquet", [row], [VERB], tmp_path)
    command = ["verify", str(manifest), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main([*command, "--dry-run"]) == 0
    assert "1 clips, 0 checked before and not changed since, 1 to check" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "verify.journal.jsonl").write_text("no journal\n")
    assert main(command) == 2
    assert "not a journal of hoi-data verify" in capsys.readouterr().err
