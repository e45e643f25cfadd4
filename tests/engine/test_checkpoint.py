"""A checkpoint is complete or invisible; a damaged, foreign or hostile one is named and not used."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import random
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from hoi_train.core.disk import HashedFile
from hoi_train.engine import checkpoint, checkpoint_manifest
from hoi_train.engine.checkpoint import Checkpoint, CheckpointError
from hoi_train.engine.checkpoint_manifest import write_manifest

PAYLOADS = {
    "model": {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.tensor([1.0, math.nan], dtype=torch.bfloat16)},
    "objective": {"verb": {"weights": torch.ones(2, dtype=torch.float64)}, "epoch": 3, "names": ["take", "put"]},
}


def cursor(step: int) -> dict[str, int]:
    return {"stage": 0, "epoch": step // 10, "batch": step % 10, "step": step}


def save(folder: Path, step: int, metric: float | None = None, **payloads: Any) -> Path:
    return checkpoint.save(folder, payloads or PAYLOADS, cursor(step), {"metric": metric, "run_id": "r1"})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def step_of(found: Checkpoint | None) -> int | None:
    return None if found is None else found.cursor["step"]


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    extra = {"metric": 0.5, "run_id": "r1", "config": {"loss": {"name": "cdb_ce", "tau": math.inf}}}
    path = checkpoint.save(tmp_path / "run" / "checkpoints", PAYLOADS, cursor(123), extra)
    assert path == tmp_path / "run" / "checkpoints" / "step_00000123"
    found = checkpoint.latest(path.parent)
    assert found
    assert (found.path, found.cursor, found.metric) == (path, cursor(123), 0.5)
    assert found.extra == {"metric": 0.5, "run_id": "r1", "config": {"loss": {"name": "cdb_ce", "tau": None}}}
    assert found.versions["torch"] == torch.__version__
    assert set(found.versions) == {"python", "torch", "hoi_train"}
    loaded = checkpoint.load(found)
    assert loaded["objective"] == PAYLOADS["objective"] | {"verb": loaded["objective"]["verb"]}
    for name in ("weight", "bias"):
        one, other = loaded["model"][name], PAYLOADS["model"][name]
        assert isinstance(other, torch.Tensor)
        assert one.dtype == other.dtype
        assert torch.equal(one.nan_to_num(9), other.nan_to_num(9))


def test_the_manifest_holds_sizes_and_digests_and_sha256sum_can_check_it(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    assert names(path) == ["manifest.json", "manifest.sha256", "model.pt", "objective.pt"]
    files = json.loads((path / "manifest.json").read_text())["files"]
    for name, entry in files.items():
        data = (path / name).read_bytes()
        assert entry == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    digest = hashlib.sha256((path / "manifest.json").read_bytes()).hexdigest()
    assert (path / "manifest.sha256").read_text() == f"{digest}  manifest.json\n"


def test_latest_is_the_highest_step_whatever_the_times_and_never_a_link(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path / "none") is None
    assert checkpoint.latest(tmp_path) is None
    newest = save(tmp_path, 100_000_000)  # nine digits
    save(tmp_path, 99_999_999)
    os.utime(newest, (0, 0))
    (tmp_path / "step_200000000").symlink_to(newest)
    assert step_of(checkpoint.latest(tmp_path)) == 100_000_000
    assert [step_of(found) for found in checkpoint.valid(tmp_path)] == [100_000_000, 99_999_999]


def test_a_second_checkpoint_of_a_step_replaces_the_first(tmp_path: Path) -> None:
    save(tmp_path, 5, 0.1)
    save(tmp_path, 5, 0.2)
    assert names(tmp_path) == ["step_00000005"]
    found = checkpoint.latest(tmp_path)
    assert found
    assert found.metric == 0.2


def test_killed_between_the_two_renamings_of_a_replacement_the_old_one_counts(tmp_path: Path) -> None:
    save(tmp_path, 4)
    save(tmp_path, 5, 0.1).rename(tmp_path / "step_00000005.old")
    found = checkpoint.latest(tmp_path)
    assert found
    assert (found.cursor, found.metric) == (cursor(5), 0.1)
    save(tmp_path, 5, 0.2)
    assert [found.metric for found in checkpoint.valid(tmp_path)] == [0.2, None]


def test_killed_before_the_replaced_one_is_removed_both_count_as_one(tmp_path: Path) -> None:
    save(tmp_path, 4)
    shutil.copytree(save(tmp_path, 5, 0.1), tmp_path / "step_00000005.old")
    assert [found.path.name for found in checkpoint.valid(tmp_path)] == [
        "step_00000005",
        "step_00000005.old",
        "step_00000004",
    ]
    checkpoint.prune(tmp_path, keep=2)
    assert names(tmp_path) == ["step_00000004", "step_00000005"]


def flipped(data: bytes, position: int, bit: int) -> bytes:
    return data[:position] + bytes([data[position] ^ (1 << bit)]) + data[position + 1 :]


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "model.pt"])
def test_every_flipped_bit_is_found(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 1)
    data, dice = (path / name).read_bytes(), random.Random(name)
    for position in range(0, len(data), 1 if len(data) < 1500 else 5):
        (path / name).write_bytes(flipped(data, position, dice.randrange(8)))
        with pytest.raises(CheckpointError, match="its bytes are not those that were written"):
            checkpoint.verify(path)
    (path / name).write_bytes(data)
    checkpoint.verify(path)


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sha256", "model.pt", "objective.pt"])
def test_every_other_damage_is_found_named_and_passed_over(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, 1)
    damaged = save(tmp_path, 2) / name
    data = damaged.read_bytes()
    cuts = [data[:length] for length in range(0, len(data), 13)]
    for content in (*cuts, data + b"\0", b"garbage", bytes(len(data)), None):
        damaged.unlink(missing_ok=True)
        if content is not None:
            damaged.write_bytes(content)
        caplog.clear()
        assert step_of(checkpoint.latest(tmp_path)) == 1
        assert "damaged checkpoint skipped" in caplog.text
        assert f"step_00000002/{name}" in caplog.text or "step_00000002/manifest.json" in caplog.text


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "not a manifest of format 1"),
        ({"format": 2}, "it has format 2"),
        (
            {"format": 1, "files": {"../model.pt": {"size": 1, "sha256": ""}}},
            "a payload cannot be called '../model.pt'",
        ),
        ({"format": 1, "files": {"model-.pt": {"size": 1, "sha256": ""}}}, "a payload cannot be called 'model-.pt'"),
        (
            {"format": 1, "files": {}, "extra": {"metric": "high"}},
            "extra['metric'] must be a number or None, got 'high'",
        ),
        ({"format": 1, "files": {}, "extra": {}, "cursor": {"step": 3}}, "KeyError('stage')"),
    ],
)
def test_a_manifest_of_another_form_is_refused(tmp_path: Path, body: object, message: str) -> None:
    path = save(tmp_path, 1)
    text = json.dumps(body).encode()
    (path / "manifest.json").write_bytes(text)
    (path / "manifest.sha256").write_text(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n")
    with pytest.raises(CheckpointError) as caught:
        checkpoint.verify(path)
    assert message in str(caught.value)
    assert str(path / "manifest.json") in str(caught.value)


def test_a_manifest_that_is_too_large_to_be_one_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, 1)
    size = (path / "manifest.json").stat().st_size
    monkeypatch.setattr(checkpoint_manifest, "LARGEST_MANIFEST", size)
    checkpoint.verify(path)
    monkeypatch.setattr(checkpoint_manifest, "LARGEST_MANIFEST", size - 1)
    with pytest.raises(CheckpointError, match=r"manifest\.json: larger than 0 MiB"):
        checkpoint.verify(path)


def test_best_is_by_metric_the_earliest_of_equals_nan_is_none(tmp_path: Path) -> None:
    assert checkpoint.best(tmp_path) is None
    for step, metric in enumerate((None, 0.5, 0.7, 0.7, math.nan, 0.2)):
        save(tmp_path, step, metric)
    assert step_of(checkpoint.best(tmp_path)) == 2
    assert step_of(checkpoint.best(tmp_path, mode="min")) == 5


def test_best_is_of_the_last_stage_that_was_measured(tmp_path: Path) -> None:
    for step, (stage, metric) in enumerate([(0, 0.9), (1, None), (1, 0.5), (1, 0.6)]):
        extra = {"metric": metric, "run_id": "r1"}
        checkpoint.save(tmp_path, PAYLOADS, cursor(step) | {"stage": stage}, extra)
        found = checkpoint.best(tmp_path)
        assert found is not None
        assert found.metric == (0.9, 0.9, 0.5, 0.6)[step]
    checkpoint.prune(tmp_path, keep=2)
    assert names(tmp_path) == ["step_00000002", "step_00000003"]


def test_a_damaged_best_gives_way_to_the_next(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step, metric in enumerate((0.5, 0.9, 0.7)):
        save(tmp_path, step, metric)
    with (tmp_path / "step_00000001" / "model.pt").open("r+b") as file:
        file.write(b"XX")
    assert step_of(checkpoint.best(tmp_path)) == 2
    assert "step_00000001/model.pt: its bytes are not those that were written" in caplog.text


def test_prune_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step, metric in enumerate((0.1, 0.9, 0.3, 0.2, 0.4)):
        save(tmp_path, step, metric)
    (tmp_path / ".unfinished-step_00000009").mkdir()
    removed = checkpoint.prune(tmp_path, keep=2)
    assert sorted(path.name for path in removed) == ["step_00000000", "step_00000002"]
    assert names(tmp_path) == ["step_00000001", "step_00000003", "step_00000004"]


def test_prune_removes_nothing_before_enough_have_verified(tmp_path: Path) -> None:
    for step in range(4):
        save(tmp_path, step)
    for step in (2, 3):
        (tmp_path / f"step_0000000{step}" / "model.pt").write_bytes(b"")
    (tmp_path / "step_00000000" / "manifest.json").unlink()
    assert checkpoint.prune(tmp_path, keep=2) == []
    assert len(names(tmp_path)) == 4
    save(tmp_path, 4)
    checkpoint.prune(tmp_path, keep=2)
    assert names(tmp_path) == ["step_00000001", "step_00000004"]


def test_prune_must_keep_two(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="keep must be at least 2, so that a damaged checkpoint has one before it; got 1"
    ):
        checkpoint.prune(tmp_path, keep=1)


class NotATensor:
    pass


def test_a_payload_that_would_not_load_again_is_refused_when_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="payload 'method' is more than tensors and plain values") as caught:
        save(tmp_path, 1, model={}, method=NotATensor())
    assert "NotATensor" in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("payloads", "changed", "extra", "message"),
    [
        ({"../x": 1}, {}, {}, "a payload's name is its file's: letters, digits and _ only, got '../x'"),
        ({"x": 1}, {"batch": None}, {}, r"cursor\['batch'\] must be an integer >= 0, got None"),
        ({"x": 1}, {"step": -1}, {}, r"cursor\['step'\] must be an integer >= 0, got -1"),
        ({"x": 1}, {}, {"metric": "high"}, r"extra\['metric'\] must be a number or None, got 'high'"),
    ],
)
def test_bad_arguments_are_named(
    tmp_path: Path, payloads: dict[str, Any], changed: dict[str, Any], extra: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        checkpoint.save(tmp_path, payloads, cursor(1) | changed, extra)


def forge(path: Path) -> Checkpoint:
    """Seal a checkpoint anew around whatever its model.pt holds now."""
    data = (path / "model.pt").read_bytes()
    with HashedFile(path / "model.pt") as file:
        file.write(data)
    write_manifest(path, cursor(1), {}, {"model": file})
    return checkpoint.verify(path)


class Gadget:
    def __init__(self, witness: Path) -> None:
        self.witness = str(witness)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.witness,)


def test_a_hostile_payload_is_not_executed(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    torch.save(Gadget(tmp_path / "executed"), path / "model.pt")
    with pytest.raises(CheckpointError, match=r"model\.pt: cannot be loaded: Weights only load failed"):
        checkpoint.load(forge(path))
    assert not (tmp_path / "executed").exists()


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path, 1, model=torch.zeros(100_000))
    with zipfile.ZipFile(path / "model.pt") as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path / "model.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name, data in entries.items():
            bomb.writestr(name, data)
    assert (path / "model.pt").stat().st_size < 10_000
    with pytest.raises(CheckpointError, match=r"model\.pt: would unpack to more than its \d+ bytes"):
        checkpoint.load(forge(path))
    with zipfile.ZipFile(path / "model.pt", "w") as overlapping:
        overlapping.writestr("model/data/0", bytes(10_000))
        for number in range(1, 100):
            twin = copy.copy(overlapping.getinfo("model/data/0"))
            twin.filename = f"model/data/{number}"
            overlapping.filelist.append(twin)
    with pytest.raises(CheckpointError, match=r"model\.pt: would unpack to more than its \d+ bytes"):
        checkpoint.load(forge(path))
    path.joinpath("model.pt").write_bytes(b"no archive at all")
    with pytest.raises(CheckpointError, match=r"model\.pt: not a file that torch\.save wrote"):
        checkpoint.load(forge(path))


def test_a_size_that_changed_after_the_check_is_noticed(tmp_path: Path) -> None:
    save(tmp_path, 1)
    found = checkpoint.latest(tmp_path)
    assert found
    with (found.path / "model.pt").open("ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError, match=r"model\.pt: has \d+ bytes, \d+ were written"):
        checkpoint.load(found)


FULL = """
import resource, sys, torch
from pathlib import Path
from hoi_train.engine import checkpoint, checkpoint_manifest
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
cursor = {"stage": 0, "epoch": 0, "batch": 0, "step": 2}
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    checkpoint.save(folder, {"small": torch.zeros(9), "model": torch.zeros(2**20)}, cursor, {})
except OSError as error:
    print(error)
"""


def save_too_much(folder: Path, limit: int, *before: str) -> str:
    command = [*before, sys.executable, "-c", FULL, str(folder), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def check_unharmed(folder: Path) -> None:
    assert names(folder) == ["step_00000001"]
    assert step_of(checkpoint.latest(folder)) == 1


@pytest.mark.process
@pytest.mark.parametrize("limit", [500, 1_000_000])
def test_a_file_that_cannot_grow_leaves_the_old_checkpoint_and_nothing_else(tmp_path: Path, limit: int) -> None:
    save(tmp_path, 1)
    said = save_too_much(tmp_path, limit)
    assert "File too large after " in said
    assert " MiB of this checkpoint (" in said
    assert " MiB free); earlier checkpoints are intact: make room and give the same command again" in said
    assert f"'{tmp_path / 'step_00000002'}'" in said
    check_unharmed(tmp_path)


def unshared(command: str, folder: Path) -> list[str]:
    """Return how to run a program with a file system mounted at a folder that only it sees."""
    prefix = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{command} "$0" && exec "$@"', str(folder)]
    try:
        subprocess.run([*prefix, "true"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"cannot mount a file system here: {error}")
    return prefix


@pytest.mark.process
def test_a_full_disk_is_said_with_what_is_free(tmp_path: Path) -> None:
    said = save_too_much(tmp_path, 0, *unshared("mount -t tmpfs -o size=2m tmpfs", tmp_path))
    assert "No space left on device after " in said
    assert " MiB of this checkpoint (2.0 MiB free)" in said  # what was written is gone again


@pytest.mark.process
def test_a_read_only_disk_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)
    said = save_too_much(tmp_path, 0, *unshared("mount --bind -o ro $0", tmp_path))
    assert "Read-only file system after 0.0 MiB" in said
    check_unharmed(tmp_path)


KILLS = """
import os, random, signal, sys, time, torch
from pathlib import Path
from hoi_train.engine import checkpoint, checkpoint_manifest
folder, kills, dice = Path(sys.argv[1]), int(sys.argv[2]), random.Random(0)
payload = {"model": torch.zeros(200_000), "optimizer": {str(i): torch.zeros(100) for i in range(50)}}
steps = []
for _ in range(kills):
    first = checkpoint.latest(folder)
    step = first.cursor["step"] if first else 0
    if (saver := os.fork()) == 0:
        while True:
            step += 1
            for metric in (None, float(step % 7)):  # the second replaces the first
                cursor = {"stage": 0, "epoch": 0, "batch": 0, "step": step}
                checkpoint.save(folder, payload, cursor, {"metric": metric})
                checkpoint.prune(folder)
    while not any(path.name > f"step_{step:08d}" for path in folder.glob("step_*")):  # however busy the machine is
        time.sleep(0.001)
    time.sleep(dice.uniform(0, 0.1))
    os.kill(saver, signal.SIGKILL)
    os.waitpid(saver, 0)
    for path in folder.glob("step_*"):
        checkpoint.load(checkpoint.verify(path))
    found = checkpoint.latest(folder)
    steps.append(found.cursor["step"] if found else 0)
    print(steps[-1], sum(path.name.startswith(".unfinished-") for path in folder.iterdir()) if folder.exists() else 0)
"""


@pytest.mark.process
def test_killed_savers_leave_only_whole_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    done = subprocess.run([sys.executable, "-c", KILLS, str(folder), "25"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    steps, unfinished = zip(*(map(int, line.split()) for line in done.stdout.splitlines()), strict=True)
    assert len(steps) == 25
    assert list(steps) == sorted(steps), "a kill lost a checkpoint that had been the latest"
    assert steps[-1] > 10
    assert any(unfinished), "no kill hit a save"
    save(folder, 10_000)
    checkpoint.prune(folder)
    assert not any(name.startswith(".") for name in names(folder))
