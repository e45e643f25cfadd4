"""Losses and methods against the official codes: every entry of ``losses.json`` is one test.

The modules ``golden_*`` map each family of entries to our losses and hyper-parameters, and take every size from the
entry. ``HOI_GOLDEN`` names the folder with all entries; another folder has the same ids and other numbers and sizes.
Without it, the entries kept in ``golden_values.json`` are compared, which are one or two of each family.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.losses import golden_margins, golden_meta, golden_rebalancing, golden_stages, golden_weighting
from tests.losses.golden_entries import Entry, Family

KEPT: list[Entry] = json.loads(Path(__file__).with_name("golden_values.json").read_text())["entries"]
FILE = Path(os.environ.get("HOI_GOLDEN", Path(__file__).resolve().parents[2] / "../shared/golden")) / "losses.json"
ABSENT = not FILE.is_file() and "HOI_GOLDEN" not in os.environ
LARGE: dict[str, Any] = {"entries": []} if ABSENT else json.loads(FILE.read_text())
ENTRIES: list[Entry] = LARGE["entries"]
needs_all = pytest.mark.skipif(ABSENT, reason=f"{FILE} is missing; set HOI_GOLDEN to its folder")

FAMILIES: dict[str, Family] = {
    **golden_weighting.FAMILIES,
    **golden_margins.FAMILIES,
    **golden_meta.FAMILIES,
    **golden_rebalancing.FAMILIES,
    **golden_stages.FAMILIES,
}


@pytest.mark.parametrize("entry", KEPT, ids=[entry["id"] for entry in KEPT])
def test_kept_entry(entry: Entry) -> None:
    FAMILIES[entry["loss"]](entry)


def test_every_family_has_a_kept_entry_with_its_origin() -> None:
    assert {entry["loss"] for entry in KEPT} == set(FAMILIES)
    assert all(entry["source"]["repo"] and entry["source"]["path"] for entry in KEPT)


@needs_all
@pytest.mark.parametrize("entry", ENTRIES or [None], ids=[entry["id"] for entry in ENTRIES] or ["none"])
def test_entry(entry: Entry) -> None:
    FAMILIES[entry["loss"]](entry)


@needs_all
def test_no_entry_is_missing() -> None:
    assert len({entry["id"] for entry in ENTRIES}) == len(ENTRIES) == int(LARGE["n_entries"])
    assert {entry["loss"] for entry in ENTRIES} == set(FAMILIES)
