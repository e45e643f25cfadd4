"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT / default))
    if not folder.is_dir():
        if variable in os.environ:
            pytest.fail(f"{variable}: {folder} is not a folder")
        pytest.skip(f"{folder} is missing; set {variable} to the folder")
    return folder


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real annotations and real video: the folder HOI_TEST_DATA."""
    return _folder("HOI_TEST_DATA", "../shared/data")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Values from official code: the folder HOI_GOLDEN."""
    return _folder("HOI_GOLDEN", "../shared/golden")
