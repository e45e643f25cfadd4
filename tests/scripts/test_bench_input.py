"""The benchmark of the input path runs, and its check of the frames can fail."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hoi_train.data.manifest import read_manifest
from hoi_train.data.readers import open_clip
from hoi_train.data.sampling import segment_frames
from scripts.bench_input import QUICK, check_frames, ratios
from scripts.bench_input_peers import LENGTH, PEERS, T, make_sets, number_of
from tests.conftest import ROOT


class _Peers:
    """Peers of which one is a frame late, and one does not look at what it is asked for."""

    def ask(self, name: str, method: str, indices: Any) -> list[int]:
        return {"right": indices, "late": indices + 1, "deaf": segment_frames(LENGTH, T)}[name].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["late", "deaf"])
def test_a_peer_with_other_frames_is_refused(name: str) -> None:
    check_frames(_Peers(), ["right"])  # type: ignore[arg-type]
    with pytest.raises(SystemExit, match=f"{name}: asked for frames"):
        check_frames(_Peers(), ["right", name])  # type: ignore[arg-type]


def test_ratios_are_of_the_same_round() -> None:
    assert ratios([2.0, 8.0, 3.0], [1.0, 2.0, 3.0]) == (2.0, 1.0, 4.0)
    assert str(ratios([2.0, 8.0, 3.0], [1.0, 2.0, 3.0])) == "2.00 [1.00–4.00]"


@pytest.mark.campaign
def test_it_measures_checks_and_prints() -> None:
    command = [sys.executable, "scripts/bench_input.py", "--quick"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr
    assert "All 3 peers return frames [3, 10" in found.stdout
    for name in QUICK:
        assert f"| {PEERS[name].label} |" in found.stdout
    assert "| raw path / bare decode, CPU | ≥ 0.9 |" in found.stdout


@pytest.mark.campaign
def test_all_sets_hold_the_same_clips(tmp_path: Path) -> None:
    sets = {peer.source for peer in PEERS.values()} - {"cache 256"}
    assert make_sets(tmp_path, 0, sets).keys() == sets
    for name in sets - {"jpeg 480", "jpeg 256"}:
        (clip,) = [read_manifest(tmp_path / name / "manifest.parquet").clip(0)]
        with open_clip(clip) as reader:
            assert len(reader.timestamps) == LENGTH
            assert number_of(reader.read([77 % LENGTH])[0]) == 77 % LENGTH
    assert len(list((tmp_path / "jpeg 480" / "numbered").iterdir())) == LENGTH
