"""Every row of the comparison is a configuration that stands; the table says what was run."""

from __future__ import annotations

from pathlib import Path

import pytest

from hoi_train.config import load_config
from hoi_train.losses import LOSSES
from hoi_train.methods import METHODS
from scripts.compare_losses import NOUN, VARIANTS, VERB, arguments_of, run_folder, table

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
