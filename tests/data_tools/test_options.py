"""What the tools refuse before they begin."""

from __future__ import annotations

from multiprocessing import Pipe
from multiprocessing.connection import wait

import pytest

from data_tools.options import MAX_TIMEOUT, check_work
from hoi_train.core.records import UserError


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan")])
def test_a_timeout_is_above_0(timeout: float) -> None:
    with pytest.raises(UserError, match=f"--timeout must be seconds above 0, got {timeout:g}"):
        check_work(1, timeout)


@pytest.mark.parametrize("timeout", [1e10, MAX_TIMEOUT + 1, float("inf")])
def test_a_timeout_is_one_that_can_be_waited_for(timeout: float) -> None:
    with pytest.raises(UserError, match="--timeout must be at most 2000000 seconds, got"):
        check_work(1, timeout)
    check_work(1, MAX_TIMEOUT)
    here, there = Pipe()
    there.send(1)
    assert wait([here], MAX_TIMEOUT) == [here]
