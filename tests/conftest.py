"""Fixtures shared by all tests, one thread per process, and the profiles of the property tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: idle threads spin where workers share the cores

import pytest
import torch
from hypothesis import settings

from tests.pairs import make_pair_data
from tests.small import make_data

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("fast", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("all", max_examples=200, deadline=None)
settings.load_profile("fast")  # `--hypothesis-profile all` comes later and wins


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of the small data set, made once; a test that changes it works on a copy of its folder."""
    return make_data(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def pair_manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of the small set of pairs, made once; a test that changes it works on a copy of its folder."""
    return make_pair_data(tmp_path_factory.mktemp("pairs"))
