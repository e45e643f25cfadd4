"""Clips in quarantine are left out before anything is counted; a list that does not fit is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hoi_train.config import load_config
from hoi_train.core.strict_yaml import ConfigError
from hoi_train.data.manifest import Manifest, ManifestError, read_manifest, write_manifest
from hoi_train.data.manifest.quarantine import leave_out, quarantine_json, read_quarantine
from hoi_train.engine.experiment import assemble
from hoi_train.engine.run import EVENTS_FILE
from hoi_train.engine.train import train
from hoi_train.tracking.events import read_events
from tests.small import NOUN, VERB, make_config, make_data

BAD = {"train_0": "unreadable: damaged", "train_6": "timeout: not done after 60 s", "test_1": "missing: no such file"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return read_manifest(make_data(tmp_path_factory.mktemp("set")))


def listed(folder: Path, manifest: Manifest, bad: dict[str, str]) -> Path:
    path = folder / "quarantine.json"
    path.write_text(quarantine_json(manifest, bad), encoding="utf-8")
    return path


def run_config(folder: Path, manifest: Manifest, quarantine: Path | None, **data: Any) -> Path:
    data |= {} if quarantine is None else {"quarantine": str(quarantine)}
    return make_config(folder, manifest.path, data=data, training={"epochs": 1})


def test_classes_are_counted_without_the_bad_clips(tmp_path: Path, manifest: Manifest) -> None:
    path = run_config(tmp_path, manifest, listed(tmp_path, manifest, BAD), bad_clips="quarantine")
    data = assemble(load_config(path)).data
    assert manifest.split("train").counts("verb").positives == (7, 3, 2)
    assert data.counts["train"]["verb"].positives == (6, 2, 2)
    assert {split: len(loader) for split, loader in data.loaders.items()} == {"train": 10, "val": 5, "test": 4}
    assert data.left_out is not None
    assert data.left_out.clips == {"train": 2, "test": 1}
    assert data.left_out.classes["verb"] == {"take": (1, 6), "put": (1, 2)}
    assert str(data.left_out).startswith(f"left out, listed in {tmp_path / 'quarantine.json'}: 3 clips (2 train,")


def test_a_class_that_loses_all_its_clips_is_said_loudly(tmp_path: Path, manifest: Manifest) -> None:
    kept, left_out = leave_out(manifest, {"train_9": "", "train_10": ""}, tmp_path / "q.json")
    assert kept.split("train").counts("verb").positives == (7, 3, 0)
    assert "verb: NO TRAINING SAMPLE IS LEFT of pour" in str(left_out)


def test_by_default_a_run_stops_with_the_list(tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(ConfigError) as stopped:
        assemble(load_config(run_config(tmp_path, manifest, listed(tmp_path, manifest, BAD))))
    assert str(stopped.value).splitlines() == [
        f"data.bad_clips: stop, and {tmp_path / 'quarantine.json'} lists 3 bad clips; "
        "mend them and verify again, or leave them out with data.bad_clips: quarantine",
        *(f"clip {clip_id!r}: {text}" for clip_id, text in BAD.items()),
    ]
    experiment = assemble(load_config(run_config(tmp_path, manifest, listed(tmp_path, manifest, {}))))
    assert experiment.data.left_out is None
    many = listed(tmp_path, manifest, dict.fromkeys(manifest.clip_ids, "missing: no such file"))
    with pytest.raises(ConfigError, match="lists 22 bad clips"):
        assemble(load_config(run_config(tmp_path, manifest, many)))
    with pytest.raises(ConfigError, match="has no clips in the split 'train'"):
        assemble(load_config(run_config(tmp_path, manifest, many, bad_clips="quarantine")))


def test_the_list_stays_good_whatever_the_order_labels_and_splits(tmp_path: Path, manifest: Manifest) -> None:
    path = listed(tmp_path, manifest, BAD)
    rows = [
        {"clip_id": clip.clip_id, "path": clip.path.name, "split": "train", "verb": "put", "noun": []}
        for clip in map(manifest.clip, reversed(range(len(manifest))))
    ]
    other = read_manifest(write_manifest(tmp_path / "m.csv", rows, [VERB, NOUN], manifest.root))
    assert read_quarantine(path, other) == BAD


def test_a_list_of_another_manifest_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    path = listed(tmp_path, manifest, BAD)
    shorter = manifest.select(range(5))
    with pytest.raises(ManifestError) as refused:
        read_quarantine(path, shorter)
    assert str(refused.value).splitlines() == [
        f"{path}: clip 'train_6' is not in {manifest.path}",
        f"{path}: clip 'test_1' is not in {manifest.path}",
        f"{path}: it was made for {manifest.path}, whose clips are not those of {manifest.path}; "
        "run hoi-data verify on that manifest (what it has checked is not decoded again)",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train_0\n", "not a quarantine list in JSON"),
        ("[" * 100_000, "not a quarantine list in JSON"),
        ("[1]", '"clips" must name clips'),
        ('{"clips": ["train_0"]}', '"clips" must name clips'),
        ('{"clips": {"train_0": 1}}', '"clips" must name clips'),
        ('{"clips": {}}', "'manifest' must be text, got None"),
        ('{"clips": {}, "manifest": "m"}', "'clips_digest' must be text, got None"),
        ('{"clips": {"train_O": ""}, "manifest": "m", "clips_digest": "0"}', "'train_O' is not in"),
        ('{"clips": {}, "manifest": "m", "clips_digest": "0"}', "it was made for m, whose clips are not those of"),
        ("\ud800", "not a quarantine list in JSON"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path: Path, manifest: Manifest, text: str, said: str) -> None:
    path = tmp_path / "quarantine.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ManifestError, match=said) as refused:
        read_quarantine(path, manifest)
    assert str(refused.value).startswith(f"{path}: ")


def test_a_list_that_is_not_there(tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(ManifestError, match=r"gone\.json: cannot be read: No such file"):
        read_quarantine(tmp_path / "gone.json", manifest)
    with pytest.raises(ManifestError, match="cannot be read: Is a directory"):
        read_quarantine(tmp_path, manifest)
    with pytest.raises(ConfigError, match=r"data\.quarantine: missing; bad_clips: quarantine needs"):
        assemble(load_config(run_config(tmp_path, manifest, None, bad_clips="quarantine")))


def test_a_run_records_what_was_left_out_and_goes_on_with_that_only(tmp_path: Path, manifest: Manifest) -> None:
    path = listed(tmp_path, manifest, BAD)
    config = load_config(run_config(tmp_path, manifest, path, bad_clips="quarantine"))
    assert train(config, quiet=True) == 0
    log = config.run_dir / EVENTS_FILE
    start = read_events(log)[0]
    assert start["class_counts"]["verb"] == [6, 2, 2]
    assert start["left_out"]["clips"] == {"train": 2, "test": 1}
    assert start["left_out"]["classes"]["verb"] == {"take": [1, 6], "put": [1, 2]}

    whole = log.read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in whole if json.loads(line)["event"] != "end"))
    listed(tmp_path, manifest, {**BAD, "train_1": "missing: no such file"})
    with pytest.raises(ConfigError, match=r"quarantine\.json does not list the clips that .* left out when it began"):
        train(config, quiet=True)
    listed(tmp_path, manifest, dict(reversed(BAD.items())))
    assert train(config, quiet=True) == 0
