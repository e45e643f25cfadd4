"""docs/architecture.md is true to the code: its layers are the contract's, its names and paths exist."""

from __future__ import annotations

import re
import sys
from importlib import import_module

import pytest

from tests.conftest import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PAGE = (ROOT / "docs" / "architecture.md").read_text()
NAMES = sorted(set(re.findall(r"`((?:hoi_train|data_tools)(?:\.\w+)+)`", PAGE)))
PATHS = sorted(set(re.findall(r"`((?:hoi_train|data_tools)/[\w/]+(?:\.py)?)`", PAGE)))


def test_layers_are_those_of_the_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    section = re.search(r"## Layers\n(.*?)\n## ", PAGE, re.DOTALL)
    assert section is not None
    blocks = re.findall(r"```text\n(.*?)```", section[1], re.DOTALL)
    assert [block.splitlines() for block in blocks] == [
        [layer.replace("hoi_train.", "") for layer in of_package] for of_package in layers
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name):
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        break
    for attribute in parts[length:]:
        found = getattr(found, attribute)


@pytest.mark.parametrize("path", PATHS)
def test_every_path_is_there(path):
    assert (ROOT / path).exists()
