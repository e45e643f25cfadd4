"""What the wheel holds: an installation that is not editable must have every module and both commands."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from hatchling.build import build_wheel

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_both_packages_and_both_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where a build backend is called
    with zipfile.ZipFile(tmp_path / build_wheel(str(tmp_path))) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (commands,) = (wheel.read(name).decode() for name in wheel.namelist() if name.endswith("entry_points.txt"))
    files = [path for top in ("hoi_train", "data_tools") for path in (ROOT / top).rglob("*") if path.is_file()]
    assert held == {path.relative_to(ROOT).as_posix() for path in files if path.suffix != ".pyc"}
    assert "hoi-train = hoi_train.cli:main" in commands
    assert "hoi-data = data_tools.cli:main" in commands
