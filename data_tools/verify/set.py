"""What only shows when the clips of a set are held against each other: copies, odd lengths, mixed colour ranges."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import inf

import numpy as np
import numpy.typing as npt

from data_tools.verify.records import Measures, Suspect, Warn
from hoi_train.core.records import Clip
from hoi_train.data.manifest import Manifest

Measured = Mapping[int, tuple[Clip, Measures]]  # by row of the manifest

# Clips whose length is looked at together: fewer say little of what is usual.
ENOUGH_OF_CLASS, ENOUGH_OF_SET = 10, 20
# A length is odd if it is this many times the median, or that part of it, and this many deviations away.
FACTOR, DEVIATIONS = 4.0, 5.0


def suspects(manifest: Manifest, measured: Measured) -> Iterator[Suspect]:
    """Yield the clips that look wrong beside the others."""
    yield from _copies(measured)
    yield from _odd_lengths(manifest, measured)


def notes(measured: Measured) -> Iterator[str]:
    """Yield what there is to say of the set as a whole, a sentence each."""
    found = [measures for _, measures in measured.values()]
    ranges = Counter(each.colour_range for each in found if each.colour_range is not None)
    text = ", ".join(f"{count} {name}" for name, count in ranges.most_common())
    if ranges:
        mixed = "full" in ranges and len(ranges) > 1  # what is not specified is shown as limited
        mixes = "; the set mixes: what is flagged wrongly shows its colours paler or harder" if mixed else ""
        yield f"colour range: {text}{mixes}"
    videos = sum(ranges.values())
    if videos:
        fit = sum(each.seekable for each in found)
        yield f"fit for seeking readers: {fit} of {videos} video clips"


def _copies(measured: Measured) -> Iterator[Suspect]:
    """Yield the clips that show what another shows: the same bytes at the same time, or the same pictures.

    Windows of one file that overlap are nothing new to the manifest's author, unless they lie in two splits.
    """
    by_bytes, by_pictures = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
    for row, (_, measures) in measured.items():
        if measures.file_digest is not None:
            by_bytes[measures.file_digest].append(row)
        by_pictures[measures.picture_digest].append(row)
    told: set[int] = set()
    for same, alike in (("bytes, at the same time,", by_bytes), ("pictures", by_pictures)):
        for rows in alike.values():
            clips = [measured[row][0] for row in rows]
            for place, other in _partners(clips, timed=alike is by_bytes).items():
                if rows[place] not in told:
                    told.add(rows[place])
                    clip = clips[place]
                    warning: Warn = "duplicate" if clip.split == other.split else "leak"
                    text = f"it has the same {same} as clip {other.clip_id!r} ({other.split})"
                    yield Suspect(clip.clip_id, str(clip.path), clip.split, warning, text)


def _partners(clips: Sequence[Clip], *, timed: bool) -> dict[int, Clip]:
    """Return for the place of each clip another that it shares something with, one of another split if there is one.

    Args:
        clips: with the same content.
        timed: only those share anything whose times overlap.
    """
    windows = [((clip.start or 0.0, clip.end or inf) if timed else (0.0, inf)) for clip in clips]
    order = sorted(range(len(clips)), key=lambda place: windows[place])
    found: dict[int, Clip] = {}

    def meet(place: int, other: Clip) -> None:
        clip = clips[place]
        if clip.split != other.split:
            if place not in found or found[place].split == clip.split:
                found[place] = other
        elif clip.path != other.path:
            found.setdefault(place, other)

    for position, place in enumerate(order):
        for later in order[position + 1 :]:
            if windows[later][0] >= windows[place][1]:
                break
            meet(place, clips[later])
            meet(later, clips[place])
    return found


def _odd_lengths(manifest: Manifest, measured: Measured) -> Iterator[Suspect]:
    """Yield the clips that are far from the median of a class of theirs, or of the set, by the logarithm."""
    rows = np.array(sorted(measured), dtype=np.int64)
    found = [measured[row][1] for row in rows.tolist()]
    timed = all(each.seconds is not None for each in found)
    lengths = np.array([each.seconds if timed else each.window for each in found], dtype=np.float64)
    unit = "s" if timed else "frames"
    told = np.zeros(len(rows), dtype=bool)
    for name, members in _groups(manifest, rows):
        usual = float(np.median(lengths[members]))
        away = np.abs(np.log(lengths / usual))
        deviation = 1.4826 * float(np.median(away[members]))  # of a normal distribution
        odd = members & ~told & (away > max(np.log(FACTOR), DEVIATIONS * deviation))
        told |= odd
        for place in np.flatnonzero(odd).tolist():
            clip = measured[int(rows[place])][0]
            text = f"{lengths[place]:g} {unit} long, the median of {name} is {usual:g} {unit}"
            yield Suspect(clip.clip_id, str(clip.path), clip.split, "length", text)


def _groups(manifest: Manifest, rows: npt.NDArray[np.int64]) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Yield the classes and the set as masks over rows, those that are large enough."""
    for name, task in manifest.tasks.items():
        if task.of == "pair":
            continue
        labels = manifest.labels(name).numpy()[rows]
        for class_id, class_name in enumerate(task.classes):
            members = labels == class_id if task.labels == "single" else labels[:, class_id]
            if members.sum() >= ENOUGH_OF_CLASS:
                yield f"{name} {class_name!r}", members
    if len(rows) >= ENOUGH_OF_SET:
        yield "the set", np.ones(len(rows), dtype=bool)
