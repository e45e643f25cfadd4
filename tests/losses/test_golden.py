"""Losses and methods against the official codes: every entry of ``losses.json`` is one test.

The modules ``golden_*`` say in one place a family which of our losses, with which hyper-parameters, each expected
number belongs to. ``HOI_GOLDEN`` names another folder with the same ids; the tests are skipped only where it is not
set and its default is not there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.losses import golden_margins, golden_meta, golden_rebalancing, golden_stages, golden_weighting
from tests.losses.golden_entries import Entry, Family

FILE = Path(os.environ.get("HOI_GOLDEN", Path(__file__).resolve().parents[2] / "../shared/golden")) / "losses.json"
if not FILE.is_file() and "HOI_GOLDEN" not in os.environ:
    pytest.skip(f"{FILE} is missing; set HOI_GOLDEN to its folder", allow_module_level=True)
NUM_ENTRIES = 321
ENTRIES: list[Entry] = json.loads(FILE.read_text())["entries"]

FAMILIES: dict[str, Family] = {
    **golden_weighting.FAMILIES,
    **golden_margins.FAMILIES,
    **golden_meta.FAMILIES,
    **golden_rebalancing.FAMILIES,
    **golden_stages.FAMILIES,
}


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["id"] for entry in ENTRIES])
def test_entry(entry: Entry) -> None:
    FAMILIES[entry["loss"]](entry)


def test_no_entry_is_missing() -> None:
    assert len({entry["id"] for entry in ENTRIES}) == len(ENTRIES) == NUM_ENTRIES
    assert {entry["loss"] for entry in ENTRIES} == set(FAMILIES)
