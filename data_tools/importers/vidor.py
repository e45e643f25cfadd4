"""VidOR's own annotation, one json a video, to the manifests of VidHOI: persons and what they do, in key frames.

    hoi-data vidor --annotations annotation --videos video --out data/vidor

The folder holds ``training/<folder>/<video>.json`` and ``validation/…``, or one of them. Classes and key frames are
those of VidHOI (``vidhoi_classes``, ``vidhoi_frames``): relations whose subject is an adult, a child or a baby, and
that hold in a key frame. VidHOI was made from these files; where a box is missing it repeated the box that it had
found for another relation, here the track's previous one is repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_tools.importers.vidhoi.classes import OBJECTS, PEOPLE, PERSON, PREDICATES, Classes, is_video_name, read_json
from data_tools.importers.vidhoi.manifest import Annotated, import_annotated
from data_tools.importers.vidhoi.records import RecordColumns, Records
from data_tools.importers.vidhoi.tracks import Boxes, Named, Tracks, make_tracks, read_boxes
from data_tools.importers.vidhoi.videos import Options
from data_tools.sources import Imported
from hoi_train.core.records import UserError, nearest
from hoi_train.data.manifest.manifest import tracks_of
from hoi_train.data.manifest.problems import Problems

PARTS = {"train": "training", "val": "validation"}
CATEGORIES = (*PEOPLE, *(name for name in OBJECTS if name != PERSON))
_RELATION = ("subject_tid", "object_tid", "predicate", "begin_fid", "end_fid")


def import_vidor(annotations: Path, videos: Path, out: Path, options: Options | None = None) -> Imported:
    """Write the manifest; see ``import_vidhoi``.

    Raises:
        ManifestError: with what is wrong in the annotation files.
        UserError: folders that are not there, or none of the videos.
    """
    problems = Problems()
    records, tracks = read_vidor(annotations, problems)
    problems.raise_if_any()

    def of(named: Named) -> Mapping[str, Tracks]:
        return {name: tracks[name] for name in named}

    return import_annotated(Annotated(records, Classes(), {}, of, None), videos, out, options or Options())


def read_vidor(annotations: Path, problems: Problems) -> tuple[Records, dict[str, Tracks]]:
    """Read all files, noting what is wrong; return the triplets and the tracks of every video that has any."""
    if not annotations.is_dir():
        raise UserError(f"--annotations: {annotations} is not a folder")
    columns = RecordColumns()
    tracks: dict[str, Tracks] = {}
    files = 0
    for part, folder in PARTS.items():
        for file in sorted((annotations / folder).glob("*/*.json")):
            files += 1
            content = read_json(file, problems)
            name = f"{file.parent.name}/{file.stem}"
            if not is_video_name(name):
                problems.add(file, None, f"{name!r} is not <folder>/<video> of letters, digits, '_' and '-'")
            elif name in columns.videos:
                known = columns.known[columns.videos[name]]
                problems.add(file, None, f"video {name} is in {PARTS[known.part]}, too")
            elif content is not None:
                tracks.update(_video(content, name, part, columns, problems, file))
    if not files:
        problems.add(
            annotations, None, f"no file {'/<folder>/<video>.json, '.join(PARTS.values())}/<folder>/<video>.json"
        )
    elif not columns.known and not problems.total:
        problems.add(annotations, None, "no person does anything in any key frame")
    return columns.records(), tracks


def key_frame_rate(fps: float) -> int:
    """Return how many frames the key frames are apart: 30 for 29.97, 24 up to 25, as published; others are rounded.

    >>> [key_frame_rate(fps) for fps in (29.97002997002997, 25.0, 23.976, 15.0, 59.94)]
    [30, 24, 24, 24, 60]
    """
    return 24 if fps < 25.01 else round(fps)


def key_frames(rate: int, frame_count: int) -> range:
    """Return the numbers of the key frames, from 0.

    >>> list(key_frames(30, 100)), list(key_frames(24, 40))
    ([14, 44, 74], [11, 35])
    """
    return range(rate // 2 - 1, frame_count - 1, rate)


def _video(
    content: Any, name: str, part: str, columns: RecordColumns, problems: Problems, file: Path
) -> Iterator[tuple[str, Tracks]]:
    """Add the triplets of a video and yield its tracks, or note what is wrong with it."""
    faults = list(_faults(content))
    boxes = "" if faults else read_boxes(content["trajectories"])
    if faults or isinstance(boxes, str):
        for fault in faults or [f"trajectories: {boxes}"]:
            problems.add(file, None, fault)
        return
    categories = {entry["tid"]: entry["category"] for entry in content["subject/objects"]}
    relations = [r for r in content["relation_instances"] if categories[r["subject_tid"]] in PEOPLE]
    named = np.array(sorted({r[key] for r in relations for key in _RELATION[:2]}), np.int64)
    kept = np.isin(boxes.track, named)
    only = Boxes(boxes.frame[kept], boxes.track[kept], boxes.corners[kept])
    row = make_tracks(only, Boxes(only.frame[:0], only.track[:0], only.corners[:0]), only_named=False)
    rate, added = key_frame_rate(content["fps"]), False
    size = (content["width"], content["height"]) if "width" in content else None
    frames = key_frames(rate, content["frame_count"])
    at = {
        track.track_id: track.boxes_at(torch.tensor(frames, dtype=torch.int64)).tolist()
        for track in tracks_of(row[0].values)
    }
    for number, frame in enumerate(frames):
        for relation in relations:
            ids = relation["subject_tid"], relation["object_tid"]
            if not relation["begin_fid"] <= frame < relation["end_fid"]:
                continue
            if not (ids[0] in at and ids[1] in at):
                columns.remarks["relations in key frames left out, of a person or object without any box"] += 1
                continue
            category = PERSON if categories[ids[1]] in PEOPLE else categories[ids[1]]
            classes = OBJECTS.index(category), PREDICATES.index(relation["predicate"])
            columns.add(
                columns.video(name, part, rate, size), frame, ids, classes, (*at[ids[0]][number], *at[ids[1]][number])
            )
            added = True
    if added:
        yield name, Tracks(row, len(content["trajectories"]))


def _faults(content: Any) -> Iterator[str]:
    """Yield what is wrong with a file, other than the boxes of its trajectories."""
    if not isinstance(content, dict):
        yield f"must be an object with the annotation of one video, got {content!r:.80}"
        return
    fps: Any = content.get("fps")
    count: Any = content.get("frame_count")
    if not (type(fps) in (int, float) and 1 <= fps < 1000):
        yield f"fps must be frames a second from 1 to 999, got {fps!r:.80}"
    if not (type(count) is int and 1 <= count < 2**31):
        yield f"frame_count must be a whole number from 1 on, got {count!r:.80}"
    size = [content[key] for key in ("width", "height") if key in content]
    if size and not (len(size) == 2 and all(type(side) is int and 0 < side < 2**31 for side in size)):
        yield f"width and height must be whole numbers of pixels, both or neither given, got {size!r:.80}"
    things, relations = content.get("subject/objects"), content.get("relation_instances")
    ids: set[Any] = set()
    if not isinstance(things, list):
        yield f"subject/objects must be a list, got {things!r:.80}"
    else:
        yield from _thing_faults(things, ids)
    if not isinstance(relations, list):
        yield f"relation_instances must be a list, got {relations!r:.80}"
    else:
        for number, relation in enumerate(relations):
            yield from (f"relation_instances[{number}]{fault}" for fault in _relation_faults(relation, ids))
    trajectories = content.get("trajectories")
    if trajectories is None:
        yield "trajectories are missing; they must be a list with the boxes of each frame"
    elif isinstance(trajectories, list) and type(count) is int and len(trajectories) != count:
        yield f"trajectories are those of {len(trajectories)} frames, frame_count is {count}"


def _thing_faults(things: list[Any], ids: set[Any]) -> Iterator[str]:
    """Yield what is wrong with the persons and objects; ``ids`` gets their ids."""
    for number, thing in enumerate(things):
        tid: Any = thing.get("tid") if isinstance(thing, dict) else None
        category: Any = thing.get("category") if isinstance(thing, dict) else None
        if type(tid) is not int or not 0 <= tid < 2**31:
            yield f"subject/objects[{number}] must be an object with a tid from 0 on and a category, got {thing!r:.80}"
        elif tid in ids:
            yield f"subject/objects[{number}]: tid {tid} occurs twice"
        elif category not in CATEGORIES:
            hint = nearest(category[:80], CATEGORIES) if isinstance(category, str) else ""
            yield f"subject/objects[{number}]: unknown category {category!r:.80}{hint}"
        ids.add(tid if type(tid) is int else None)


def _relation_faults(relation: Any, ids: set[Any]) -> Iterator[str]:
    if not isinstance(relation, dict) or not all(key in relation for key in _RELATION):
        yield f" must be an object with {', '.join(_RELATION)}, got {relation!r:.80}"
        return
    for key in _RELATION[:2]:
        if type(relation[key]) is not int or relation[key] not in ids:
            yield f": {key} {relation[key]!r:.40} is no tid of subject/objects"
    if relation["predicate"] not in PREDICATES.names:
        hint = nearest(str(relation["predicate"])[:80], PREDICATES.names)
        yield f": unknown predicate {relation['predicate']!r:.80}{hint}"
    begin, end = relation["begin_fid"], relation["end_fid"]
    if not (type(begin) is type(end) is int and 0 <= begin < end):
        yield f": begin_fid and end_fid must be frames from 0 on, first begin_fid, got {begin!r:.40} and {end!r:.40}"
