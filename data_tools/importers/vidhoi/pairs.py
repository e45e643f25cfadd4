"""From triplets to multi-label pairs: one list of them a video, or the set of predicates of each stretch of a video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_tools.importers.vidhoi.classes import Classes
from data_tools.importers.vidhoi.records import Records, Video
from hoi_train.data.manifest.columns import PAIRS
from hoi_train.data.readers.base import MICROSECOND

Counts = dict[str, int]


def sound_records(records: Records, removed: Mapping[tuple[str, int], str]) -> tuple[Records, Counts]:
    """Leave out what no pair can be made of, and the frames that were asked to be left out; say how many of each."""
    boxes = records.boxes.reshape(-1, 2, 2, 2)  # box, corner, x and y
    flat = ~(boxes[:, :, 0] < boxes[:, :, 1]).all(axis=(1, 2))
    sizes = np.array([video.size or (np.inf, np.inf) for video in records.videos])[records.video]
    outside = ((boxes[:, :, 0] >= sizes[:, None]) | (boxes[:, :, 1] <= 0)).any(axis=(1, 2)) & ~flat
    same = (records.person_id == records.object_id) & ~(flat | outside)
    places = {video.name: place for place, video in enumerate(records.videos)}
    keys = [(places[name] << 32) + frame for name, frame in removed if name in places]
    out = np.isin((records.video.astype(np.int64) << 32) + records.frame, np.array(keys, np.int64))
    counts = {
        "records left out, a box without area": int(flat.sum()),
        "records left out, a box outside the picture": int(outside.sum()),
        "records left out, person and object are the same track": int(same.sum()),
        "records left out, of the frames to leave out": int((out & ~(flat | outside | same)).sum()),
    }
    kept = ~(flat | outside | same | out)
    return records if kept.all() else records.where(kept), {text: count for text, count in counts.items() if count}


def pair_lists(records: Records, classes: Classes) -> tuple[list[Video], Any, Counts]:
    """Group triplets to pairs, by video, frame, person and object.

    The boxes of a pair are those of its first record. A predicate that is recorded twice counts once.

    Returns:
        The V videos that have pairs, in the order of ``records.videos``; their pairs, an Arrow array of V lists,
        ordered by frame and ids; and what is odd.
    """
    order = np.lexsort((records.object_id, records.person_id, records.frame, records.video))
    keys = np.stack([column[order] for column in (records.video, records.frame, records.person_id, records.object_id)])
    begins = np.ones(len(order), bool)
    begins[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    group = np.cumsum(begins) - 1
    first = order[begins]
    labels = np.unique(group * len(classes.predicates) + records.predicate[order])
    owner, predicate = np.divmod(labels, len(classes.predicates))
    alike = records.object_class[order] == records.object_class[first][group]
    for corner in records.boxes.T:
        alike &= corner[order] == corner[first][group]
    counts = {
        "records that repeat a predicate of a pair, counted once": len(order) - len(labels),
        "records with another box or object class than the first of their pair, which counts": int((~alike).sum()),
    }
    columns = {
        "frame": pa.array(records.frame[first], pa.int64()),
        "person_id": pa.array(records.person_id[first]),
        "object_id": pa.array(records.object_id[first]),
        "person_box": box_lists(records.boxes[first, :4]),
        "object_box": box_lists(records.boxes[first, 4:]),
        "object_class": pa.array(classes.objects.names).take(pa.array(records.object_class[first])),
        "predicates": lists_of(
            np.bincount(owner, minlength=len(first)), pa.array(classes.predicates.names).take(pa.array(predicate))
        ),
    }
    pairs = structs_of(columns, PAIRS.value_type)
    places, lengths = np.unique(records.video[first], return_counts=True)
    videos = [records.videos[place] for place in places]
    return videos, lists_of(lengths, pairs), {text: count for text, count in counts.items() if count}


def segments(
    frames: NDArray[np.int32], predicates: NDArray[np.int32], times: NDArray[np.float64], seconds: float
) -> dict[int, list[int]]:
    """Return the predicates of each stretch of a video that has a key frame.

    Args:
        frames: int32 ``[R]``, the key frame of each triplet.
        predicates: int32 ``[R]``, its predicate.
        times: float64 ``[F]``, when each frame of the file is shown, in seconds; R frames are below F.
        seconds: length of a stretch.

    Returns:
        By the number k of the stretch, frames shown at ``k * seconds <= t < (k + 1) * seconds`` as readers compare
        them, the ascending ids of the predicates that occur there.
    """
    shown = times[frames] + MICROSECOND
    number = np.floor(shown / seconds).astype(np.int64)
    number -= number * seconds > shown  # what a division may round up or down
    number += (number + 1) * seconds <= shown
    found: dict[int, list[int]] = {}
    for k, predicate in sorted({*zip(number.tolist(), predicates.tolist(), strict=True)}):
        found.setdefault(k, []).append(predicate)
    return found


def lists_of(lengths: NDArray[Any], values: Any) -> Any:
    """Return an Arrow array of lists, of lengths int ``[N]`` that sum to the number of values."""
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()), values)


def box_lists(corners: NDArray[Any]) -> Any:
    """Return an Arrow array of boxes from their corners, ``[N, 4]``."""
    return lists_of(np.full(len(corners), 4), pa.array(corners.ravel()))


def structs_of(columns: Mapping[str, Any], type_: Any) -> Any:
    """Return an Arrow array of structs of a type from the values of its fields, Arrow's or numpy's."""
    fields, values = list(type_), [columns[field.name] for field in type_]
    arrays = [value if isinstance(value, pa.Array) else pa.array(value) for value in values]
    return pa.StructArray.from_arrays(arrays, fields=fields)
