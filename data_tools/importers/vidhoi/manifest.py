"""From records and tracks to manifests, the same way for the files of VidHOI and of VidOR.

``pair``: a row is a video with the pairs of all its key frames and their tracks, task ``predicate`` of pairs.
``clip``: a row is a stretch of a video with the predicates of its key frames, task ``predicate`` of clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_tools.importers.vidhoi.classes import Classes
from data_tools.importers.vidhoi.detections import Detections
from data_tools.importers.vidhoi.pairs import pair_lists, segments, sound_records
from data_tools.importers.vidhoi.records import Records, Video
from data_tools.importers.vidhoi.tracks import Boxes, Named, Tracks
from data_tools.importers.vidhoi.videos import Found, Options, Videos
from data_tools.sources import MANIFEST, Imported, write_import
from hoi_train.core.records import SPLITS, ClipError, Task, UserError
from hoi_train.data.detections_file import DETECTIONS, write_detections
from hoi_train.data.manifest.columns import TRACKS


@dataclass(frozen=True)
class Annotated:
    """Everything that was annotated.

    Args:
        records: the triplets.
        classes: what their ids mean.
        removed: frames to leave out, by video and number from 0; and how the user wrote them.
        tracks: returns the tracks of some videos, given the boxes that their pairs have.
        detections: returns what was detected in some videos, with ids of its own; ``None`` if there is no such thing.
        notes: what the user should know of the files.
    """

    records: Records
    classes: Classes
    removed: Mapping[tuple[str, int], str]
    tracks: Callable[[Named], Mapping[str, Tracks]]
    detections: Callable[[Sequence[Video]], Detections] | None
    notes: tuple[str, ...] = ()


def import_annotated(source: Annotated, videos: Path, out: Path, options: Options) -> Imported:
    """Write the manifest, and with detections ``detections.parquet`` beside it.

    Raises:
        UserError: none of the videos is on disk.
    """
    found = Found(source.records.videos, Videos(videos), options)
    records, counts = sound_records(source.records, source.removed)
    counts.update(_unknown(source))
    if options.level == "clip":
        of_clips = Task("predicate", source.classes.predicates, "multi")
        rows: Any = list(_clip_rows(records, source.classes, found, options))
        made = _write(out, rows, [of_clips], found, source, counts)
        (out / DETECTIONS).unlink(missing_ok=True)  # that of an earlier import
        return made
    places, pairs, odd = pair_lists(records, source.classes)
    counts.update(odd)
    boxes = _boxes(records)
    tracks = source.tracks(boxes)
    found.check_folders(tracks, boxes)
    names = [records.videos[place].name for place in places]
    order = [row for row, name in enumerate(names) if name in found.places]
    order.sort(key=lambda row: SPLITS.index(found.splits[names[row]]))  # training shares the rows of a split that touch
    names = [names[row] for row in order]
    lists = pairs.take(pa.array(order, pa.int64()))
    del pairs
    task = Task("predicate", source.classes.predicates, "multi", of="pair")
    table = found.table(names, {"pairs": lists, "tracks": _rows(tracks, names)})
    counts["videos with pairs, of which no trajectories are known"] = len(tracks) and len({*names} - {*tracks})
    del records, lists, boxes, tracks  # the manifest is read again when it is written
    detected = source.detections([found.annotated[name] for name in names]) if source.detections else None
    made = _write(out, table, [task], found, source, counts)
    (out / DETECTIONS).unlink(missing_ok=True)
    if detected is None:
        return made
    return replace(made, notes=(*made.notes, *_write_detections(out, detected, source.classes)))


def _write_detections(out: Path, detected: Detections, classes: Classes) -> Iterator[str]:
    """Write what was detected, if anything, and say what."""
    yield from detected.notes
    if len(detected.table):
        write_detections(out / DETECTIONS, detected.table, classes.objects)
        num_pairs = pc.sum(pc.list_value_length(detected.table.column("pairs"))).as_py()
        yield f"detections in {len(detected.table)} videos, {num_pairs} pairs: {out / DETECTIONS}"


def _clip_rows(records: Records, classes: Classes, found: Found, options: Options) -> Iterator[dict[str, Any]]:
    """Yield a row for every stretch with a key frame; a last one that the file does not fill ends with the file."""
    unreadable: list[ClipError] = []
    beyond = 0
    for video, frames, predicates in _by_video(records, records.frame, records.predicate):
        name = video.name
        read = found.times(name) if name in found.places else None
        if name not in found.places or isinstance(read, ClipError):
            unreadable += [read] if isinstance(read, ClipError) else []
            continue
        times = np.arange(frames.max() + 1) / video.rate if read is None else read
        beyond += int((frames >= len(times)).sum())
        inside = frames < len(times)
        for k, ids in segments(frames[inside], predicates[inside], times, options.segment).items():
            end = (k + 1) * options.segment
            yield {
                **{"clip_id": f"{name}_{k:05}", "split": found.splits[name], "group": name, **found.places[name]},
                **{"start": k * options.segment, "end": end if read is None or end <= times[-1] else None},
                "predicate": [classes.predicates.names[id_] for id_ in ids],
            }
    if unreadable:
        found.notes.append(f"videos left out that cannot be read: {len(unreadable)}, the first: {unreadable[0]}")
    if beyond:
        found.notes.append(f"records left out, of frames after the end of the file: {beyond}")


def _by_video(records: Records, *columns: Any) -> Iterator[tuple[Any, ...]]:
    """Yield each video that has records, with its part of the columns."""
    order = np.argsort(records.video, kind="stable")
    places, first = np.unique(records.video[order], return_index=True)
    split = [np.split(column[order], first[1:]) for column in columns]
    for number, place in enumerate(places):
        yield (records.videos[place], *(parts[number] for parts in split))


def _boxes(records: Records) -> dict[str, Boxes]:
    """Return the boxes of every video's pairs, those of the persons and those of the objects."""
    columns = (records.frame, records.person, records.thing, records.boxes)
    return {
        video.name: Boxes(
            np.concatenate([frame, frame]),
            np.concatenate([person, thing]),
            np.concatenate([boxes[:, :4], boxes[:, 4:]]),
        )
        for video, frame, person, thing, boxes in _by_video(records, *columns)
    }


def _rows(tracks: Mapping[str, Tracks], names: list[str]) -> Any:
    lists = [tracks[name].row if name in tracks else pa.nulls(1, TRACKS) for name in names]
    return pa.chunked_array(lists, type=TRACKS)


def _unknown(source: Annotated) -> Counter[str]:
    """Count the entries of the list of frames to leave out that name no record."""
    records = source.records
    names = [video.name for video in records.videos]
    known = {
        (names[video], frame) for video, frame in {*zip(records.video.tolist(), records.frame.tolist(), strict=True)}
    }
    lost = sum(entry not in known for entry in source.removed)
    return Counter({"frames to leave out that no record is of": lost})


def _write(
    out: Path, rows: Any, tasks: list[Task], found: Found, source: Annotated, counts: Mapping[str, int]
) -> Imported:
    odd = {**source.records.remarks, **counts}
    notes = [*found.notes, *(f"{text}: {count}" for text, count in odd.items() if count), *source.notes]
    if not len(rows):
        raise UserError(f"nothing is left to write to {out / MANIFEST}: {'; '.join(notes) or 'there are no records'}")
    objects = source.classes.objects if tasks[0].of == "pair" else None
    return write_import(out, rows, tasks, found.videos.root, found.missing, notes, objects)
