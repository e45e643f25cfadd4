from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from hoi_train.core.records import UserError
from hoi_train.tracking.events import read_events
from scripts.reproduce import mnist_imbalance
from scripts.reproduce.images import ImageLoader
from scripts.reproduce.mnist_imbalance import DIGIT, RATIOS, TABLES, class_counts, main, make_config, make_splits
from tests.scripts.small_images import write_idx, write_mnist

TABLE = "table1_steps_100_rows_CDB_CE_CE_ratios_0_98_splits_2"
SMALL = ["--steps", "100", "--splits", "2", "--ratios", "0.98", "--rows", "CE", "CDB-CE"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mnist(tmp_path_factory.mktemp("mnist"))


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    assert main(["--data", str(data), "--out", str(out), *SMALL]) == 0
    return out


def errors_of(folder: Path) -> tuple[float, float]:
    """Return validation and test error from the confusion matrices, by another way than the script."""
    rows = [row for row in read_events(folder / "events.jsonl") if row["event"] == "evaluation"]
    shares = []
    for split in ("val", "test"):
        confusion = torch.tensor([row for row in rows if row["split"] == split][-1]["tasks"]["digit"]["confusion"])
        shares.append(100 * (1 - confusion.diagonal().sum() / confusion.sum()).item())
    return shares[0], shares[1]


def test_the_table_holds_what_the_event_logs_hold(finished: Path) -> None:
    cells = json.loads((finished / f"{TABLE}.json").read_text())["cells"]
    assert [(cell["row"], cell["column"], cell["published"]) for cell in cells] == [
        ("CE", "0.98", 5.09),
        ("CDB-CE", "0.98", 1.65),
    ]
    runs = finished / "steps_100"
    for cell, name in zip(cells, ("ce", "cdb_ce_dynamic"), strict=True):
        expected = [errors_of(runs / f"{name}-ratio{cell['column']}-seed{seed}")[1] for seed in (0, 1)]
        assert cell["values"] == pytest.approx(expected)
        assert cell["mean"] == pytest.approx(sum(expected) / 2)
    text = (finished / f"{TABLE}.md").read_text()
    assert "100 steps (published: 200000)" in text
    assert f"{cells[0]['mean']:.2f} ± {cells[0]['deviation']:.2f} (5.09)" in text
    assert (finished / f"{TABLE}.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_is_short_on_disk_and_knows_its_counts(finished: Path) -> None:
    folder = finished / "steps_100" / "cdb_ce_dynamic-ratio0.98-seed0"
    events = read_events(folder / "events.jsonl")
    assert events[0]["class_counts"] == {"digit": [100, 4900]}
    kinds = [row["event"] for row in events]
    assert kinds.count("train") == 2, "one step of each epoch"
    assert kinds.count("checkpoint") == 1
    assert kinds[-1] == "end"


def test_a_finished_campaign_trains_nothing(finished: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (finished / f"{TABLE}.json").read_text()
    monkeypatch.setattr(mnist_imbalance, "make_splits", lambda *_: pytest.fail("trained again"))
    assert main(["--data", str(data), "--out", str(finished), *SMALL]) == 0
    assert (finished / f"{TABLE}.json").read_text() == before


def test_a_selection_leaves_the_whole_table_as_it_is(tmp_path: Path) -> None:
    def name(*chosen: str) -> str:
        arguments = mnist_imbalance._parser().parse_args(["--data", "x", "--out", str(tmp_path), *chosen])
        return mnist_imbalance.make_campaign(arguments).path.name

    rows, ratios = mnist_imbalance.TABLES[1], map(str, mnist_imbalance.RATIOS)
    assert name() == name("--rows", *rows, "--ratios", *ratios) == "table1_steps_8000"
    assert name("--rows", "CDB-CE", "CE") == name("--rows", "CE", "CDB-CE") == f"{name()}_rows_CDB_CE_CE"
    assert name("--ratios", "0.9", "0.9", "--splits", "10") == f"{name()}_ratios_0_9_splits_10"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--splits", "0"], "--splits: must be at least 1, got 0"),
        (["--seed", "-1"], "--seed: must be at least 0, got -1"),
        (["--steps", "abc"], "--steps: must be a whole number, got 'abc'"),
        (["--steps", "75"], "--steps: must be a multiple of 50, an epoch, got 75"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--data", "x", *arguments])
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_results_in_a_file_are_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["--data", str(data), "--out", str(tmp_path / "file")]) == 2
    assert f"{tmp_path / 'file'} is a file; give a folder" in capsys.readouterr().err


def test_a_stopped_campaign_goes_on_to_the_same_numbers(
    finished: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--data", str(data), "--out", str(tmp_path), "--steps", "100", "--splits", "1", "--ratios", "0.98"]
    make, calls = ImageLoader._make, []

    def stopping(loader: ImageLoader, items: Any) -> Any:
        calls.append(len(items))
        if len(calls) == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        return make(loader, items)

    monkeypatch.setattr(ImageLoader, "_make", stopping)
    assert main([*arguments, "--rows", "CDB-CE"]) == 143
    assert not (tmp_path / f"{TABLE}.md").exists()
    assert main([*arguments, "--rows", "CDB-CE"]) == 0
    name = Path("steps_100") / "cdb_ce_dynamic-ratio0.98-seed0" / "checkpoints" / "step_00000100" / "model.pt"
    one, two = (torch.load(out / name, weights_only=True) for out in (finished, tmp_path))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_parts_share_the_work(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", str(data), "--out", str(tmp_path), "--steps", "50", "--splits", "2", "--ratios", "0.9"]
    assert main([*arguments, "--rows", "EQL", "--part", "2/2"]) == 0
    assert [path.name for path in (tmp_path / "steps_50").iterdir()] == ["eql-ratio0.9-seed1"]
    assert "n = 1 (1.49)" in capsys.readouterr().out


@pytest.mark.parametrize("ratio", RATIOS)
def test_splits_are_disjoint_and_have_the_published_counts(ratio: float, data: Path) -> None:
    splits = make_splits(data, ratio, seed=1)
    assert tuple(torch.bincount(splits["train"].labels).tolist()) == class_counts(ratio)
    assert torch.bincount(splits["val"].labels).tolist() == [500, 500]
    assert torch.bincount(splits["test"].labels).tolist() == [800, 800]
    numbers = [{name.partition("_")[2] for name in splits[split].names} for split in ("train", "val")]
    assert not numbers[0] & numbers[1]
    wider = make_splits(data, 0.9, seed=1)
    assert splits["val"].names == wider["val"].names
    assert splits["val"].names != make_splits(data, ratio, seed=2)["val"].names


@pytest.mark.parametrize("row", [row for table in TABLES.values() for row in table.values()], ids=lambda row: row.name)
def test_every_row_is_a_sound_configuration(row: Any) -> None:
    config = make_config(Path("out"), 4000, row, 0.95, 0)
    assert config.training.epochs == 80
    assert config.schedule.hyper_parameters()["milestones"] == (60.0,)
    assert len(row.published) == len(RATIOS)
    assert config.tasks.keys() == {DIGIT.name}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "CBCE"], "no row 'CBCE'; the table has CE, IFW-CE, Focal, CB-CE, EQL, L2RW, CDB-CE; did you mean"),
        (["--data", "nowhere"], "nowhere/train-images-idx3-ubyte.gz: cannot be read"),
    ],
)
def test_faults_are_told_in_one_line(
    arguments: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(data), "--out", str(tmp_path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_steps_must_be_whole_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--data", ".", "--steps", "120"])
    assert "must be a multiple of 50" in capsys.readouterr().err


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, train=3, test=3)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", torch.zeros(3, 3).byte().numpy())
    with pytest.raises(UserError, match=r"t10k-labels.*not an idx file of 1 dimensions"):
        mnist_imbalance.read_digits(tmp_path, "t10k")
    images = tmp_path / "t10k-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    for damaged in (whole[:-12], whole[:30] + b"damaged" + whole[37:], b""):
        images.write_bytes(damaged)
        with pytest.raises(UserError, match=r"t10k-images.*(cannot be read|not an idx file)"):
            mnist_imbalance.read_digits(tmp_path, "t10k")
