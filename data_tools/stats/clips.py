"""What a manifest tells of the clips themselves, a record a split: groups, lengths, rates, files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import pyarrow.compute as pc

from data_tools.stats.numbers import Numbers, spread
from hoi_train.core.records import SPLITS, Split
from hoi_train.data.manifest import Manifest
from hoi_train.data.readers import source_of

Spread = dict[str, float] | None


@dataclass(frozen=True)
class ClipFacts:
    """The clips of one split.

    Args:
        clips, files: how many; clips can share a file, those in a shard of a frame cache count as files.
        groups: different groups; 0 if the manifest has none.
        shared_groups: how many of them another split has, too.
        seconds, frames: lengths as the manifest tells them: of the clip, and of the whole file.
        file_bytes: sizes of the files on disk, frame folders as a whole; ``total_bytes`` their sum.
        missing: files that are not on disk, or not in their shard.
        fps: clips by frames a second, for those whose rate the manifest has.
        lengths: the seconds themselves, for the plot.
    """

    clips: int
    files: int
    groups: int
    shared_groups: int
    seconds: Spread
    frames: Spread
    file_bytes: Spread
    total_bytes: int
    missing: int
    fps: dict[str, int]
    lengths: Numbers = field(repr=False, compare=False)


def clip_facts(manifest: Manifest) -> dict[Split, ClipFacts]:
    """Return the facts of each split that has clips."""
    views = {split: view for split in SPLITS if len(view := manifest.split(split))}
    groups = {split: _different(view, "group") for split, view in views.items()}
    return {split: _facts(split, view, groups) for split, view in views.items()}


def _facts(split: Split, view: Manifest, groups: Mapping[Split, set[Any]]) -> ClipFacts:
    others = set().union(*(of for other, of in groups.items() if other != split))
    on_disk = list(_sizes(view))
    sizes = [size for size in on_disk if size is not None]
    lengths = _seconds(view)
    return ClipFacts(
        clips=len(view),
        files=len(on_disk),
        groups=len(groups[split]),
        shared_groups=len(groups[split] & others),
        seconds=spread(lengths),
        frames=spread(pc.drop_null(view.table.column("num_frames"))),
        file_bytes=spread(sizes),
        total_bytes=sum(sizes),
        missing=on_disk.count(None),
        fps=dict(Counter(f"{rate:g}" for rate in pc.drop_null(view.table.column("fps")).to_pylist()).most_common()),
        lengths=lengths,
    )


def _different(view: Manifest, column: str) -> set[Any]:
    return set(pc.unique(pc.drop_null(view.table.column(column).cast("string"))).to_pylist())


def _seconds(view: Manifest) -> Numbers:
    """Return the lengths that the manifest itself tells: from start and end, or from frames and their rate."""
    table = view.table
    stretch = pc.subtract(table.column("end"), pc.fill_null(table.column("start"), 0.0))
    frames = pc.divide(table.column("num_frames").cast("float64"), table.column("fps"))
    return np.asarray(pc.drop_null(pc.coalesce(stretch, frames)), np.float64)


def _sizes(view: Manifest) -> Iterator[int | None]:
    """Yield the bytes of each different file, frame folder or clip in a shard, ``None`` if it is missing."""
    entries = cache(_entries)  # each shard is opened once
    for path in dict.fromkeys(view.table.column("path").to_pylist()):
        place = view.root / path
        try:
            if (shard := source_of(place)) != place:
                yield entries(shard).get(place.name)
            else:
                files = list(place.iterdir()) if place.is_dir() else [place]
                yield sum(file.stat().st_size for file in files)
        except (OSError, BadZipFile):
            yield None


def _entries(shard: Path) -> dict[str, int]:
    with ZipFile(shard) as directory:
        return {entry.filename: entry.file_size for entry in directory.infolist()}
