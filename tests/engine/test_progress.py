"""The progress bar says what a run is waiting for."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hoi_train.engine.progress import EpochBar


@pytest.mark.parametrize(("waited", "shown"), [(0.1, "waiting for data 10%"), (0.8, "waiting for data 80%, the limit")])
def test_the_bar_says_where_data_is_the_limit(waited: float, shown: str) -> None:
    output = io.StringIO()
    with EpochBar(Console(file=output, force_terminal=True, width=160), "epoch 1/2", 4) as bar:
        bar.advance(1, {"loss": 0.5, "clips_per_second": 12.0, "data_wait": waited})
    assert shown in output.getvalue()
    assert ("the limit" in output.getvalue()) == (waited > 0.5)
