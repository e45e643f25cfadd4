"""Samples of key frames: the frames around one, and its labelled human-object pairs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from hoi_train.core.batches import ClipBatch, PairBatch
from hoi_train.core.pairs import Detections, Pairs, TruePairs
from hoi_train.core.records import ClassList, Clip, Task
from hoi_train.data.dataset import ClipDataset, ClipSample, collate, mirrored
from hoi_train.data.detections_file import SCORES, unlabelled
from hoi_train.data.manifest import Manifest
from hoi_train.data.pair_places import BOXES, Places, boxes_of, check_boxes
from hoi_train.data.samplers import Item
from hoi_train.data.sampling import Indices
from hoi_train.data.transforms import Transform


@dataclass(frozen=True)
class KeyFrames:
    """The key frames of the clips of a manifest, in the order of rows and frames.

    Args:
        rows: int64 ``[K]``, position of each one's clip.
        frames: int64 ``[K]``, number of the frame in the clip, from 0.
        starts: int64 ``[K + 1]``; the pairs of key frame k are ``order[starts[k]:starts[k + 1]]``.
        order: int64 ``[M]``, positions among all pairs of the manifest, sorted by key frame.
    """

    rows: Indices
    frames: Indices
    starts: Indices
    order: Indices

    @classmethod
    def of(cls, clips: Manifest) -> KeyFrames:
        """Find the key frames of all rows."""
        column = clips.table.column("pairs").combine_chunks()
        lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0), np.int64)
        rows = np.repeat(np.arange(len(clips)), lengths)
        frames = np.asarray(pc.struct_field(pc.list_flatten(column), "frame"), np.int64)
        order = np.lexsort((frames, rows))
        keys = np.stack([rows, frames], axis=1)[order]
        first = np.ones(len(keys), bool)
        first[1:] = (keys[1:] != keys[:-1]).any(axis=1)
        starts = np.append(np.flatnonzero(first), len(keys))
        return cls(keys[first, 0], keys[first, 1], starts, order)

    def select(self, chosen: Indices) -> KeyFrames:
        """Return some of the key frames."""
        spans = [self.order[self.starts[k] : self.starts[k + 1]] for k in chosen]
        starts = np.concatenate([[0], np.cumsum([len(span) for span in spans])]).astype(np.int64)
        order = np.concatenate(spans) if spans else np.empty(0, np.int64)
        return KeyFrames(self.rows[chosen], self.frames[chosen], starts, order)


@dataclass(frozen=True)
class PairSample(ClipSample):
    """The network's input of a key frame; the targets have a row for each of its M pairs.

    Args:
        boxes: float32 ``[M, 2, T, 4]``; see ``PairBatch``.
        key: which of the T frames is the key frame.
        objects: int64 ``[M]``.
        pairs: int64 ``[M]``, positions among the pairs of the split.
    """

    boxes: Tensor
    key: int
    objects: Tensor
    pairs: Tensor


class PairDataset(ClipDataset):
    """Read key frames with their pairs; a sample is a key frame, named ``clip@frame``.

    In training, pairs with a box of less than a pixel of width or height in the crop are left out; in evaluation all
    are kept. A box without a track is the same in all frames.

    Args:
        clips: the clips of one split; those without pairs give no samples.
        tasks: by name, tasks of pairs.
        transforms: for training and for evaluation.
        objects: classes of the objects.
        options: as of ``ClipDataset``.
    """

    def __init__(
        self,
        clips: Manifest,
        tasks: Mapping[str, Task],
        transforms: tuple[Transform, Transform],
        objects: ClassList,
        **options: Any,
    ) -> None:
        super().__init__(clips, tasks, transforms, **options)
        self.objects = objects
        self.key_frames = KeyFrames.of(clips)

    def __len__(self) -> int:
        return len(self.key_frames.rows)

    def select(self, rows: Tensor) -> PairDataset:
        """Return some of the key frames, by their positions, int64."""
        selected = copy(self)
        selected.key_frames = self.key_frames.select(rows.numpy())
        return selected

    def labels(self, task: str) -> Tensor:
        """Return which classes any pair of each key frame has, bool ``[N, C]``."""
        found = torch.zeros(len(self), self.tasks[task].num_classes, dtype=torch.bool)
        classes = pa.array(self.tasks[task].classes.names)
        predicates = pc.struct_field(self._pairs(), "predicates").take(pa.array(self.key_frames.order))
        lengths = np.asarray(pc.list_value_length(predicates))
        of_pair = np.repeat(np.arange(len(self)), np.diff(self.key_frames.starts))
        ids = np.asarray(pc.fill_null(pc.index_in(pc.list_flatten(predicates), classes), -1))
        known = ids >= 0
        found[np.repeat(of_pair, lengths)[known], ids[known]] = True
        return found

    def __getitem__(self, item: Item) -> PairSample:
        """Read and transform the frames around a key frame, and its boxes.

        Raises:
            ClipError: the clip cannot be read, has no such frame, or is of another size than its boxes are for; the
                message names it.
        """
        keys = self.key_frames
        row, frame = int(keys.rows[item.clip]), int(keys.frames[item.clip])
        positions = keys.order[keys.starts[item.clip] : keys.starts[item.clip + 1]]
        annotated = self._pairs().take(pa.array(positions))
        found = annotated.to_pylist()
        clip = self.clip_at(item.clip)
        name = f"{clip.clip_id}@{frame}"
        pixels, indices, first = self._read(clip, name, item, frame)
        if SCORES[0] not in found[0]:  # a tracker's boxes may drift away
            check_boxes(clip, Places.of(annotated), (pixels.shape[2], pixels.shape[1]))
        boxes = self._boxes(row, found, first + indices)
        shown = self.input.transform(pixels, name, item, boxes.reshape(-1, 4))
        assert shown.boxes is not None
        moved = shown.boxes.view(boxes.shape)
        key = int(np.abs(indices - frame).argmin())
        kept = torch.ones(len(found), dtype=torch.bool)
        if item.epoch is not None:
            sides = moved[:, :, key, 2:] - moved[:, :, key, :2]
            kept = (sides >= 1).flatten(1).all(1)
        found = [pair for pair, keep in zip(found, kept.tolist(), strict=True) if keep]
        targets = {task: _targets([pair["predicates"] for pair in found], of) for task, of in self.tasks.items()}
        if shown.mirrored:
            targets = {task: mirrored(target, self.tasks[task]) for task, target in targets.items()}
        objects = torch.tensor([self.objects.index(pair["object_class"]) for pair in found], dtype=torch.int64)
        pairs = torch.from_numpy(positions)[kept]
        return PairSample(shown.video, targets, item.clip, name, moved[kept], key, objects, pairs, view=item.view)

    def truth(self, task: str) -> TruePairs:
        """Return all pairs of the split in their order, which is that of ``PairBatch.indices``."""
        predicates = _targets(pc.struct_field(self._pairs(), "predicates").to_pylist(), self.tasks[task]).numpy() > 0
        return TruePairs(**self._located().columns, predicates=predicates)

    def on_detections(self, found: pa.Table) -> PairDataset:
        """Return the key frames with detected pairs in place of the annotated ones.

        Key frames without a detected pair, and pairs detected in other frames, are left out.

        Args:
            found: the columns of a file of detections.
        """
        place = pc.index_in(self.clips.table.column("clip_id"), found.column("clip_id"))
        pairs, tracks = (found.column(name).take(place).combine_chunks() for name in ("pairs", "tracks"))
        rows = np.asarray(pc.list_parent_indices(pairs), np.int64)
        frames = np.asarray(pc.struct_field(pc.list_flatten(pairs), "frame"), np.int64)
        annotated = pa.array((self.key_frames.rows << 32) + self.key_frames.frames)
        kept = np.asarray(pc.is_in(pa.array((rows << 32) + frames), annotated)) & (frames < 1 << 32)
        detected = copy(self)
        detected.clips = self.clips.with_columns({"pairs": unlabelled(pairs, kept), "tracks": tracks})
        detected.key_frames = KeyFrames.of(detected.clips)
        return detected

    def detections(self) -> Detections:
        """Return all pairs of ``on_detections`` in their order, which is that of ``PairBatch.indices``."""
        pairs = self._pairs()
        people, things = (np.asarray(pc.struct_field(pairs, name), np.float64) for name in SCORES)
        return Detections(**self._located().columns, person_scores=people, object_scores=things)

    def clip_at(self, position: int) -> Clip:
        """Return the clip of the key frame at a position."""
        return self.clips.clip(int(self.key_frames.rows[position]))

    def batch(self, items: Iterable[Item]) -> ClipBatch:
        """Return the samples of some items as a batch; raises ``ClipError`` as one of them does."""
        return collate_pairs([self[item] for item in items])

    def _located(self) -> Pairs:
        """Return where all pairs of the split are."""
        pairs, keys = self._pairs(), self.key_frames
        names = np.empty(len(pairs), dtype=object)
        clip_ids = self.clips.clip_ids
        shown = [f"{clip_ids[row]}@{frame}" for row, frame in zip(keys.rows, keys.frames, strict=True)]
        names[keys.order] = np.repeat(np.array(shown, dtype=object), np.diff(keys.starts))
        people, things = (boxes_of(pairs, name) for name in BOXES)
        classes = pc.index_in(pc.struct_field(pairs, "object_class"), pa.array(self.objects.names))
        return Pairs(
            frame_ids=names.astype(np.str_),
            person_index=_numbered(pc.struct_field(pairs, "person_id")),
            object_index=_numbered(pc.struct_field(pairs, "object_id")),
            person_boxes=people,
            object_boxes=things,
            object_class=np.asarray(classes, np.int64),
        )

    def _pairs(self) -> Any:
        return pc.list_flatten(self.clips.table.column("pairs").combine_chunks())

    def _boxes(self, row: int, pairs: Sequence[Mapping[str, Any]], frames: Indices) -> Tensor:
        """Return the boxes of pairs in frames of the file, in its pixels, float32 ``[M, 2, T, 4]``."""
        tracks = {track.track_id: track for track in self.clips.tracks(row)}
        if tracks:
            ids, at = [each[key] for each in pairs for key in ("person_id", "object_id")], torch.from_numpy(frames)
            boxes = torch.stack([tracks[track_id].boxes_at(at) for track_id in ids])
            return boxes.view(-1, 2, len(frames), 4)
        still = torch.tensor([[each["person_box"], each["object_box"]] for each in pairs], dtype=torch.float32)
        return still[:, :, None].expand(-1, -1, len(frames), -1)


def collate_pairs(samples: Sequence[PairSample]) -> ClipBatch:
    """Collate samples: videos stacked, pairs concatenated."""
    counts = torch.tensor([len(sample.pairs) for sample in samples])
    pairs = PairBatch(
        clips=torch.repeat_interleave(torch.arange(len(samples)), counts),
        boxes=torch.cat([sample.boxes for sample in samples]),
        key_frames=torch.repeat_interleave(torch.tensor([sample.key for sample in samples]), counts),
        objects=torch.cat([sample.objects for sample in samples]),
        indices=torch.cat([sample.pairs for sample in samples]),
    )
    return collate(samples, torch.cat, pairs)


def _numbered(ids: Any) -> Indices:
    """Return identities as numbers from 0, in the order they first occur."""
    return np.asarray(pc.dictionary_encode(ids).indices, np.int64)


def _targets(predicates: Sequence[Sequence[str]], task: Task) -> Tensor:
    """Return multi-hot labels, float32 ``[M, C]``; names of other tasks are ignored."""
    target = torch.zeros(len(predicates), task.num_classes)
    for row, names in enumerate(predicates):
        target[row, [task.classes.index(name) for name in names if name in task.classes.names]] = 1.0
    return target
