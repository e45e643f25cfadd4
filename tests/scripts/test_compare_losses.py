"""Every row of the comparison is a configuration that stands; the table says what was run."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoi_train.config import load_config
from hoi_train.losses import LOSSES
from hoi_train.methods import METHODS
from scripts.compare_losses import NOUN, VARIANTS, VERB, arguments_of, main, run_folder, table

ROWS = [(task, name) for task, variants in VARIANTS.items() for name in variants]


@pytest.mark.parametrize(("task", "name"), ROWS)
def test_a_row_is_a_sound_configuration_of_its_task(task: str, name: str) -> None:
    config, overrides = arguments_of(task, name)
    assert list(load_config(config, overrides).tasks) == [task]


def test_every_loss_and_method_has_a_row() -> None:
    rows = [load_config(*arguments_of(*row)) for row in ROWS]
    losses = {config.loss_of(task).name for config in rows for task in config.tasks}
    assert losses == set(LOSSES)
    assert {config.method.name for config in rows} == set(METHODS)


def test_rows_do_not_share_a_run_directory() -> None:
    folders = [run_folder(task, name, 0, Path("runs")) for task, name in ROWS]
    assert len(set(folders)) == len(VERB) + len(NOUN)


def test_rows_that_were_not_run_are_left_out(tmp_path: Path) -> None:
    assert table("verb", list(VERB), [0, 1], tmp_path).count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "0"], "--jobs: must be at least 1, got 0"),
        (["--seeds", "-1"], "--seeds: must be at least 0, got -1"),
        (["--runs", "{file}/runs"], "--runs: "),
        (["--only", "cross-entropy"], "--only: unknown 'cross-entropy'; there are 'cross_entropy'"),
    ],
)
def test_bad_arguments_are_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as refused:
        main([argument.format(file=tmp_path / "file") for argument in arguments])
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_finished_runs_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--table", "--runs", str(tmp_path)]) == 0
    assert f"no run of these rows and seeds is finished in {tmp_path}" in capsys.readouterr().err


@pytest.mark.process
def test_what_failed_is_told_with_the_last_line_of_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "verb-cross_entropy-seed0.log").write_text("of an earlier run\n")
    (tmp_path / "verb-cross_entropy-seed0").write_text("no folder of a run")
    assert main(["--only", "cross_entropy", "--seeds", "0", "0", "--runs", str(tmp_path)]) == 1
    failed = [line for line in capsys.readouterr().err.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1
    assert "cross_entropy-seed0.log: " in failed[0]
    assert "earlier" not in failed[0]
    assert (tmp_path / "verb-cross_entropy-seed0.log").read_text().startswith("of an earlier run")
