"""VidOR's own annotation, one json per video, to the manifests of VidHOI: persons and what they do, in key frames.

    hoi-data vidor --annotations annotation --videos video --out data/vidor

The folder holds ``training/<folder>/<video>.json`` and ``validation/…``, or one of them. Classes and key frames are
those of VidHOI (``vidhoi.classes``, ``vidhoi.frames``): relations whose subject is an adult, a child or a baby, and
that hold in a key frame. VidHOI was made from these files; where a box is missing it repeated the box that it had
found for another relation, here the track's previous one is repeated.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.importers.samples import Options, Reading, Sample
from data_tools.importers.vidhoi.classes import OBJECTS, PEOPLE, PERSON, PREDICATES, Classes, is_video_name, read_json
from data_tools.importers.vidhoi.pairs import pair_lists, sound_records
from data_tools.importers.vidhoi.records import RecordColumns, Records
from data_tools.importers.vidhoi.samples import Level, OfficialVal, SampleMaker
from data_tools.importers.vidhoi.tracks import Boxes, VideoTracks, make_tracks, read_boxes
from hoi_train.core.records import nearest
from hoi_train.data.manifest.manifest import tracks_of

PARTS = {"train": "training", "val": "validation"}
CATEGORIES = (*PEOPLE, *(name for name in OBJECTS if name != PERSON))
_RELATION = ("subject_tid", "object_tid", "predicate", "begin_fid", "end_fid")


def read_vidor(
    options: Options,
    *,
    annotations: Path,
    level: Level = "pair",
    segment: float = 2.0,
    official_val: OfficialVal = "test",
) -> Reading:
    """Read the annotation of VidOR itself: what persons do with objects, once per second, as VidHOI has it.

    Args:
        options: what every importer is told; videos are <folder>/<video>.mp4, or frame folders <folder>/<video>/ with
            every frame of the video.
        annotations: folder with training/<folder>/<video>.json and validation/<folder>/<video>.json.
        level: a row per video with the pairs of its key frames, or a row per stretch with the predicates in it.
        segment: length of a stretch in seconds, by default about the 64 frames that published networks see.
        official_val: what the official validation part becomes; there is no other test part.

    Raises:
        UserError: folders that are not there, or options that exclude each other.
    """
    maker, classes = SampleMaker(options, annotations, level, segment, official_val), Classes()
    return maker.reading(_samples(maker, classes), classes)


def _samples(maker: SampleMaker, classes: Classes) -> Iterator[Sample]:
    """Yield the samples of all files, as long as nothing is wrong with any of them."""
    problems, parts, has_relations = maker.problems, dict[str, str](), False
    for part, folder in PARTS.items():
        for file in sorted((maker.annotations / folder).glob("*/*.json")):
            name = f"{file.parent.name}/{file.stem}"
            content = read_json(file, problems)
            if not is_video_name(name):
                problems.add(file, None, f"{name!r} is not <folder>/<video> of letters, digits, '_' and '-'")
            elif parts.setdefault(name, part) != part:
                problems.add(file, None, f"video {name} is in {PARTS[parts[name]]}, too")
            elif content is not None:
                faults = list(_faults(content))
                boxes = "" if faults else read_boxes(content["trajectories"])
                for fault in faults or ([f"trajectories: {boxes}"] if isinstance(boxes, str) else []):
                    problems.add(file, None, fault)
                if not isinstance(boxes, str) and not problems.total:
                    columns = RecordColumns()
                    tracks = _add_relations(content, boxes, name, part, columns)
                    maker.remarks.update(columns.remarks)
                    if columns.known:
                        has_relations = True
                        yield from _samples_of(columns.records(), tracks, classes, maker)
    if not parts and not problems.total:
        there = ", ".join(f"{folder}/<folder>/<video>.json" for folder in PARTS.values())
        problems.add(maker.annotations, None, f"no file {there}")
    elif not has_relations and not problems.total:
        problems.add(maker.annotations, None, "no person does anything in any key frame")


def _samples_of(records: Records, tracks: VideoTracks, classes: Classes, maker: SampleMaker) -> Iterator[Sample]:
    """Yield the samples of one video."""
    records, counts = sound_records(records, {})
    maker.remarks.update(counts)
    if maker.level == "clip":
        yield from maker.stretches(records, classes)
        return
    videos, pairs, counts = pair_lists(records, classes)
    maker.remarks.update(counts)
    yield from maker.videos(videos, pairs, {video.name: tracks for video in videos}, {})


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


def _add_relations(content: Any, boxes: Boxes, name: str, part: str, columns: RecordColumns) -> VideoTracks:
    """Add the triplets of a video's key frames to the columns and return the tracks that its relations name."""
    categories = {entry["tid"]: entry["category"] for entry in content["subject/objects"]}
    relations = [r for r in content["relation_instances"] if categories[r["subject_tid"]] in PEOPLE]
    named = np.array(sorted({r[key] for r in relations for key in _RELATION[:2]}), np.int64)
    kept = np.isin(boxes.track, named)
    only = Boxes(boxes.frame[kept], boxes.track[kept], boxes.corners[kept])
    row = make_tracks(only, Boxes(only.frame[:0], only.track[:0], only.corners[:0]), only_named=False)
    rate = key_frame_rate(content["fps"])
    size = (content["width"], content["height"]) if "width" in content else None
    frames = key_frames(rate, content["frame_count"])
    import torch  # takes seconds, which the other importers need not wait for

    wanted = torch.tensor(frames, dtype=torch.int64)
    at = {track.track_id: track.boxes_at(wanted).tolist() for track in tracks_of(row[0].values)}
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
            video = columns.video(name, part, rate, size)
            columns.add(video, frame, ids, classes, (*at[ids[0]][number], *at[ids[1]][number]))
    return VideoTracks(row, len(content["trajectories"]))


def _faults(content: Any) -> Iterator[str]:
    """Yield what is wrong with a file, other than the boxes of its trajectories."""
    if not isinstance(content, dict):
        yield f"must be an object with the annotation of one video, got {content!r:.80}"
        return
    fps: Any = content.get("fps")
    count: Any = content.get("frame_count")
    if not (type(fps) in (int, float) and 1 <= fps < 1000):
        yield f"fps must be frames per second from 1 to 999, got {fps!r:.80}"
    if not (type(count) is int and 1 <= count < 2**31):
        yield f"frame_count must be a whole number from 1 on, got {count!r:.80}"
    size = [content[key] for key in ("width", "height") if key in content]
    if size and not (len(size) == 2 and all(type(side) is int and 0 < side < 2**31 for side in size)):
        yield f"width and height must be whole numbers of pixels, both or neither given, got {size!r:.80}"
    entities, relations = content.get("subject/objects"), content.get("relation_instances")
    ids: set[Any] = set()
    if not isinstance(entities, list):
        yield f"subject/objects must be a list, got {entities!r:.80}"
    else:
        yield from _entity_faults(entities, ids)
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


def _entity_faults(entities: list[Any], ids: set[Any]) -> Iterator[str]:
    """Yield what is wrong with the persons and objects; ``ids`` gets their ids."""
    for number, entity in enumerate(entities):
        tid: Any = entity.get("tid") if isinstance(entity, dict) else None
        category: Any = entity.get("category") if isinstance(entity, dict) else None
        if type(tid) is not int or not 0 <= tid < 2**31:
            yield f"subject/objects[{number}] must be an object with a tid from 0 on and a category, got {entity!r:.80}"
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
