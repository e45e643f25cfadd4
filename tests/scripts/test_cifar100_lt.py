from __future__ import annotations

import json
import pickle
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hoi_train.core.records import UserError
from hoi_train.tracking.events import read_events
from scripts.reproduce import cifar100_lt
from scripts.reproduce.cifar100_lt import IMBALANCES, PRESETS, TABLES, long_tail, main, make_config, read_objects
from tests.scripts.small_images import write_cifar

TOTALS = {
    "cdb_released": (9022, 10302, 11975, 15111, 18591),
    "cdb_paper": (8548, 9754, 11349, 14315, 17614),
    "ldam": (9502, 10847, 12608, 15907, 19573),
}


BALANCED = torch.arange(100).repeat(500)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cifar(tmp_path_factory.mktemp("cifar"))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(("number", "imbalance"), list(enumerate(IMBALANCES)))
def test_presets_have_the_published_counts(preset: str, number: int, imbalance: int) -> None:
    train, val = long_tail(BALANCED, PRESETS[preset], imbalance, seed=0)
    assert len(train) == TOTALS[preset][number]
    assert len(val) == 100 * PRESETS[preset].num_val
    assert not set(train.tolist()) & set(val.tolist())
    counts = torch.bincount(BALANCED[train])
    assert counts[0] == PRESETS[preset].largest
    assert counts[99] == int(PRESETS[preset].largest / imbalance)


def test_the_released_choice_is_in_file_order() -> None:
    train, val = long_tail(BALANCED, PRESETS["cdb_released"], 100, seed=0)
    of_class = (BALANCED == 3).nonzero().flatten()
    assert torch.equal(val[BALANCED[val] == 3], of_class[-25:])
    mine = train[BALANCED[train] == 3]
    assert torch.equal(mine, of_class[: len(mine)])


def test_the_random_choice_is_nested_and_follows_the_seed() -> None:
    preset = PRESETS["cdb_paper"]
    wide, val = long_tail(BALANCED, preset, 10, seed=0)
    narrow, same_val = long_tail(BALANCED, preset, 200, seed=0)
    assert set(narrow.tolist()) < set(wide.tolist())
    assert torch.equal(val, same_val)
    assert not torch.equal(narrow, long_tail(BALANCED, preset, 200, seed=1)[0])


def test_too_few_images_are_told() -> None:
    with pytest.raises(UserError, match="class 0 has 460 images; 450 to train with and 50 to validate"):
        long_tail(torch.arange(100).repeat(460), PRESETS["cdb_paper"], 10, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("preset", "rows"),
    [
        ("cdb_released", {"LDAM-DRW": "ldam_drw", "CDB-CE": "cdb_ce_dynamic"}),
        ("cdb_paper", {"L2RW": "l2rw", "CDB-CE": "cdb_ce_dynamic"}),
        ("ldam", {"LDAM-DRW": "ldam_drw"}),
    ],
)
def test_a_small_table_from_end_to_end(
    preset: str,
    rows: dict[str, str],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own_val = 2 if PRESETS[preset].num_val else 0
    small = replace(PRESETS[preset], largest=10, num_val=own_val, batch_size=100)
    monkeypatch.setitem(PRESETS, preset, small)
    arguments = ["--data", str(data), "--out", str(tmp_path), "--preset", preset, "--epochs", "2"]
    assert main([*arguments, "--imbalances", "10", "--rows", *rows]) == 0
    (stem,) = (path.with_suffix("") for path in tmp_path.glob(f"table3_{preset}_epochs_2_rows_*_imbalances_10.md"))
    cells = json.loads(stem.with_suffix(".json").read_text())["cells"]
    table = {"L2RW": 53.73, "LDAM-DRW": 58.71, "CDB-CE": 58.74}
    assert [(cell["row"], cell["published"]) for cell in cells] == [(row, table[row]) for row in rows]
    for cell, name in zip(cells, rows.values(), strict=True):
        events = read_events(tmp_path / f"{preset}_epochs_2" / f"{name}-imbalance10-seed0" / "events.jsonl")
        counts = events[0]["class_counts"]["object"]
        assert (counts[0], counts[99]) == (10, 1)
        tests = [row for row in events if row["event"] == "evaluation" and row["split"] == "test"]
        confusion = torch.tensor(tests[-1]["tasks"]["object"]["confusion"])
        assert confusion.sum() == 100
        assert cell["values"] == pytest.approx([confusion.diagonal().sum().item()])
    assert f"recipe {preset}, 2 epochs" in capsys.readouterr().out
    assert stem.with_suffix(".png").stat().st_size > 0


def test_what_would_learn_from_the_test_images_is_refused(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", str(data), "--preset", "ldam", "--rows", "CE", "MWN", "CDB-CE"]) == 2
    assert "MWN, CDB-CE: would learn from the test images" in capsys.readouterr().err


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("row", [row for table in TABLES.values() for row in table.values()], ids=lambda row: row.name)
def test_every_row_is_a_sound_configuration(row: Any, preset: str) -> None:
    config = make_config(Path("out"), preset, PRESETS[preset].epochs, row, 100, 0)
    assert config.training.epochs == PRESETS[preset].epochs
    assert config.schedule.hyper_parameters()["milestones"] == tuple(map(float, PRESETS[preset].milestones))
    assert len(row.published) == len(IMBALANCES)


def test_milestones_and_drw_are_scaled() -> None:
    config = make_config(Path("out"), "ldam", 20, TABLES[3]["LDAM-DRW"], 100, 0)
    assert config.loss is not None
    assert config.loss.hyper_parameters()["weights"].from_epoch == 16
    assert config.schedule.hyper_parameters()["milestones"] == (16.0, 18.0)


class _Evil:
    def __reduce__(self) -> Any:
        return print, ("run",)


@pytest.mark.parametrize("seed", range(200))
def test_a_damaged_file_is_named(seed: int, tmp_path: Path) -> None:
    content = {b"data": np.zeros((2, 3072), np.uint8), b"fine_labels": [0, 1], b"filenames": [b"a", b"b"]}
    damaged, draw = bytearray(pickle.dumps(content)), np.random.default_rng(seed)
    damaged[int(draw.integers(40))] = int(draw.integers(256))
    damaged[int(draw.integers(len(damaged) - 80, len(damaged)))] = int(draw.integers(256))
    (tmp_path / "train").write_bytes(damaged)
    with suppress(UserError):  # a byte of a pixel, or the same byte again, is no damage that shows
        read_objects(tmp_path, "train")


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train").write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(UserError, match=r"asks for builtins\.print"):
        read_objects(tmp_path, "train")
    assert capsys.readouterr().out == ""


def test_files_are_read_as_planes_of_colour(data: Path) -> None:
    objects = read_objects(data, "train")
    content = pickle.loads((data / "cifar-100-python" / "train").read_bytes())
    assert objects.pixels[5, 2, 1, 0] == content[b"data"][5, 2 * 1024 + 32]
    assert objects.labels.tolist() == content[b"fine_labels"]
    assert cifar100_lt.NUM_CLASSES == 100
