"""What ``import hoi_train`` offers, and the example of docs/notebook.md."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest

import hoi_train
from tests.conftest import ROOT
from tests.small import make_config, make_data


def test_every_public_name_is_there():
    for name in hoi_train.__all__:
        assert getattr(hoi_train, name) is not None
    assert dir(hoi_train) == hoi_train.__all__
    assert hoi_train.__version__ == version("hoi_train")


def test_an_unknown_name_is_refused_with_those_that_exist():
    with pytest.raises(AttributeError, match=r"no attribute 'trian'; it has BACKBONES, .*, train"):
        hoi_train.trian  # noqa: B018


def test_importing_the_package_imports_nothing_large():
    code = "import sys, hoi_train; print([name for name in ('torch', 'numpy', 'pydantic') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_the_example_of_the_notebook_page_runs(tmp_path, monkeypatch, capsys):
    manifest = make_data(tmp_path)
    make_config(tmp_path, manifest, runs="runs").rename(tmp_path / "mine.yaml")
    shutil.copy(tmp_path / "test_0.mp4", tmp_path / "VIDEO.mp4")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "notebook.md").read_text(), re.DOTALL):
        exec(block, names)
    shown = capsys.readouterr().out
    assert re.search(r"macro recall \d\.\d{3} on 5 clips", shown)
    assert re.search(r"0\.0 to 1\.0 s: \('(take|put|pour)',\)", shown)
    assert "'cdb_ce'" in shown
    assert (tmp_path / "runs" / "from_notebook-seed3" / "evaluation_test.json").is_file()
