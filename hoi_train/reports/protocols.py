"""The table of what the published protocols say of a task of pairs, each number with its protocol and its boxes."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from hoi_train.engine.epoch_table import percent
from hoi_train.metrics.pairs import GROUPS, PROTOCOLS, TOP_K, triplet_names
from hoi_train.metrics.person_top_k import MEASURES


def protocol_table(task: str, split: str, boxes: str, scalars: Mapping[str, float]) -> Group:
    """Return one line a protocol with the mAP of all triplet classes, the rare and the others, and one of people.

    Args:
        task: name of the task.
        split: name of the split.
        boxes: which ones the network saw, such as ``oracle``.
        scalars: as of ``detected_scalars``.
    """
    where = f"{task}, {split}, {boxes} boxes"
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("protocol", no_wrap=True)
    for heading in ("full", "rare", "non-rare"):
        table.add_column(heading, justify="right", no_wrap=True)
    for protocol in PROTOCOLS:
        found = [[scalars[name] for name in triplet_names(protocol, group)] for group in GROUPS]
        table.add_row(protocol, *(f"{percent(value, 2)} ({classes:.0f})" for value, classes in found))
    people = ", ".join(f"{name} {percent(scalars[f'person_top{TOP_K}_{name}'], 2)}" for name in MEASURES)
    title = f"{where}: mAP in % (of how many triplet classes)"
    return Group(Text(title), table, Text(f"{where}, person top {TOP_K} in %: {people}\n"))
