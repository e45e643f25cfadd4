"""Map manifest rows to re-encoded or cached clips: frames, boxes, pairs and tracks.

Labels of a frame that is not in the result cannot be kept and raise ``InexactError``, as do labels beyond the clip's
end; the tools exclude the latter clips beforehand.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_tools.derive.rates import Indices
from hoi_train.core.records import Clip, Track, UserError
from hoi_train.data.manifest.columns import PAIRS, TRACKS
from hoi_train.data.readers.base import clip_error

if TYPE_CHECKING:  # imports torch, which would delay every worker process
    from hoi_train.data.manifest import Manifest


class InexactError(UserError):
    """Labels refer to a frame that the result does not have."""


@dataclass(frozen=True)
class ClipMapping:
    """Frames and size of a derived clip, relative to its source; stored in its record.

    Args:
        rate: frames per second of the result.
        size, source_size: width and height of the result and of its source.
        first, count: first frame and number of frames of the clip in the source.
        frames: source frame of each frame of the result, ascending, int64 ``[K]``; ``None`` for each frame once.
    """

    rate: Fraction
    size: tuple[int, int]
    source_size: tuple[int, int]
    first: int
    count: int
    frames: Indices | None

    @property
    def num_frames(self) -> int:
        """Number of frames of the result, K."""
        return self.count if self.frames is None else len(self.frames)

    @property
    def sources(self) -> Indices:
        """The source frame of each frame of the result, int64 ``[K]``."""
        return np.arange(self.first, self.first + self.count) if self.frames is None else self.frames

    def facts(self) -> dict[str, Any]:
        """Return the fields as plain JSON."""
        frames = None if self.frames is None else self.frames.tolist()
        return {**self.__dict__, "rate": str(self.rate), "frames": frames}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> ClipMapping:
        """Build a mapping from the JSON of ``facts()``."""
        frames = None if facts["frames"] is None else np.array(facts["frames"], np.int64)
        size, source_size = tuple(facts["size"]), tuple(facts["source_size"])
        return cls(Fraction(facts["rate"]), size, source_size, facts["first"], facts["count"], frames)

    def places(self, frames: Sequence[int]) -> Indices:
        """Return the indices in the result, int64, of frames of the clip counted from its first.

        Raises:
            InexactError: a frame is not in the result, or beyond the clip's end.
        """
        wanted = self.first + np.asarray(frames, np.int64)
        places = np.searchsorted(self.sources, wanted)
        shown = self.sources[np.minimum(places, len(self.sources) - 1)] == wanted
        if not shown.all():
            lost = int(wanted[~shown][0]) - self.first
            if lost >= self.count:
                raise InexactError(
                    f"labels are of frame {lost}, beyond the clip's end: it has frames 0 to {self.count - 1}; "
                    "correct the manifest, or leave the clip out"
                )
            raise InexactError(
                f"labels are of frame {lost}, which is left out at {float(self.rate):g} frames per second; "
                "give a higher --fps, one at which every labelled frame stays"
            )
        return places


def rows_by_source(table: Any, rows: Indices) -> Iterator[list[int]]:
    """Yield rows of a manifest, ascending, grouped by file and rate.

    The order of sources is random, so that concurrent runs seldom work on the same one.
    """
    chosen = table.select(["path", "fps"]).take(pa.array(rows))
    rate = np.asarray(pc.fill_null(chosen.column("fps"), 0.0))
    path = np.asarray(chosen.column("path").combine_chunks().dictionary_encode().indices)
    order = np.lexsort((rate, path))
    new = (np.diff(path[order]) != 0) | (np.diff(rate[order]) != 0)
    groups = np.split(rows[order], np.flatnonzero(new) + 1) if len(rows) else []
    random.shuffle(groups)  # unseeded: differs between runs
    yield from (group.tolist() for group in groups)


def notes_of(manifest: Path) -> Iterator[str]:
    """Warn about sidecar files of a manifest that are not converted."""
    if (manifest.parent / "detections.parquet").exists():
        yield "note: detections.parquet is of the sources; make it anew for the clips made here"


def groups_of(table: Any) -> Any:
    """Return the group of each row; clips without a group that share a source are grouped by it."""
    path, group = (table.column(name).cast(pa.string()).combine_chunks() for name in ("path", "group"))
    counts = path.value_counts()
    shared = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    return pc.if_else(pc.and_(group.is_null(), pc.is_in(path, shared)), path, group)


def derived_rows(
    kept: Manifest, made: Sequence[ClipMapping], *, paths: Sequence[str], fps: Sequence[float | None], groups: Any
) -> Any:
    """Return the manifest rows of derived clips, which are whole files without start and end times.

    Args:
        kept: source rows of N clips.
        made: mapping of each clip.
        paths: paths of the results in the new manifest.
        fps: frames per second of the results; ``None`` if they have no times.
        groups: groups of the results, an Arrow array.

    Returns:
        An Arrow table with N rows.

    Raises:
        InexactError: a pair's frame is not in the result; names the clip.
    """
    table, moved = kept.table, list[list[dict[str, Any]] | None]()
    for row, (pairs, each) in enumerate(zip(table.column("pairs").to_pylist(), made, strict=True)):
        try:
            moved.append(None if pairs is None else move_pairs(pairs, each))
        except InexactError as error:
            raise inexact(kept.clip(row), error) from None
    tracked = table.column("tracks").is_valid().to_pylist()
    columns = {
        "path": pa.array(paths, pa.string()),
        "group": groups,
        "start": pa.nulls(len(kept), pa.float64()),
        "end": pa.nulls(len(kept), pa.float64()),
        "num_frames": pa.array([each.num_frames for each in made], pa.int64()),
        "width": pa.array([each.size[0] for each in made], pa.int64()),
        "height": pa.array([each.size[1] for each in made], pa.int64()),
        "fps": pa.array(fps, pa.float64()),
        "pairs": pa.array(moved, PAIRS),
        "tracks": move_tracks([(kept.tracks(row), made[row]) if known else None for row, known in enumerate(tracked)]),
    }
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def inexact(clip: Clip, error: InexactError) -> InexactError:
    """Add the clip to the error's text."""
    return InexactError(str(clip_error(clip, str(error))))


def move_pairs(pairs: Sequence[Mapping[str, Any]], made: ClipMapping) -> list[dict[str, Any]]:
    """Return human-object pairs with the frames and boxes of the result; raises ``InexactError``."""
    places = made.places([pair["frame"] for pair in pairs])
    moved = []
    for pair, place in zip(pairs, places.tolist(), strict=True):
        boxes = _scale_boxes(np.array([pair["person_box"], pair["object_box"]]), made).tolist()
        moved.append({**pair, "frame": place, "person_box": boxes[0], "object_box": boxes[1]})
    return moved


def move_tracks(rows: Sequence[tuple[Sequence[Track], ClipMapping] | None]) -> Any:
    """Return tracks mapped to the frames and pixels of the results, as an Arrow array; a row may be ``None``.

    A track has a box in every frame of the result whose source frame had one. A track without any is kept with its
    nearest box, because pairs may refer to it.
    """
    counts = [None if row is None else len(row[0]) for row in rows]
    moved = [_map_track(track, made) for tracks, made in filter(None, rows) for track in tracks]
    corners = np.concatenate([np.empty((0, 4), np.float32), *(boxes for _, _, boxes in moved)])
    each = pa.ListArray.from_arrays(pa.array(np.arange(len(corners) + 1) * 4, pa.int32()), pa.array(corners.ravel()))
    lengths = np.array([len(boxes) for _, _, boxes in moved], np.int64)
    boxes = pa.ListArray.from_arrays(pa.array(np.concatenate([[0], lengths.cumsum()]), pa.int32()), each)
    ids, starts = (pa.array([track[k] for track in moved], pa.int64()) for k in (0, 1))
    structs = pa.StructArray.from_arrays([ids, starts, boxes], names=[field.name for field in TRACKS.value_type])
    return pa.ListArray.from_arrays(pa.array(_offsets(counts), pa.int32()), structs)


def _offsets(counts: Sequence[int | None]) -> Iterator[int | None]:
    total = 0
    for count in counts:
        yield None if count is None else total
        total += count or 0
    yield total


def _map_track(track: Track, made: ClipMapping) -> tuple[int, int, npt.NDArray[np.float32]]:
    relative = made.sources - track.start_frame
    start, stop = np.searchsorted(relative, [0, len(track.boxes)])
    if start == stop:
        start = min(int(start), len(relative) - 1)
        stop = start + 1
    boxes = track.boxes.numpy()[relative[start:stop].clip(0, len(track.boxes) - 1)]
    return track.track_id, int(start), _scale_boxes(boxes, made)


def _scale_boxes(boxes: npt.NDArray[Any], made: ClipMapping) -> npt.NDArray[Any]:
    """Scale boxes ``[…, 4]`` to pixels of the result; rounding never makes a box empty."""
    scale = np.array(made.size, np.float64) / made.source_size
    moved = (boxes * np.tile(scale, 2)).astype(boxes.dtype)
    moved[..., 2:] = np.maximum(moved[..., 2:], np.nextafter(moved[..., :2], np.inf, dtype=boxes.dtype))
    return moved
