"""Make samples of clips, and batches of samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset

from hoi_train.core.batches import ClipBatch, PairBatch
from hoi_train.core.records import Clip, Task
from hoi_train.data.inputs import ClipInput
from hoi_train.data.manifest import Manifest
from hoi_train.data.pair_places import check_frame
from hoi_train.data.readers import check_reader, count_readers, open_clip
from hoi_train.data.samplers import Item
from hoi_train.data.sampling import Indices
from hoi_train.data.transforms import Transform


@dataclass(frozen=True)
class ClipSample:
    """The network's input of one clip, with its targets.

    Args:
        video: uint8 ``[3, T, S, S]``, RGB.
        targets: for each task an int64 scalar (single-label) or float32 multi-hot ``[C]`` (multi-label).
        index: position of the clip in its split.
        clip_id: its name.
        view: number of the view, in evaluation.
    """

    video: Tensor
    targets: Mapping[str, Tensor]
    index: int
    clip_id: str
    view: int = field(default=0, kw_only=True)


class ClipDataset(Dataset[ClipSample]):
    """Read samples, each a function of its item and the seed alone.

    Args:
        clips: the clips of one split.
        tasks: by name, tasks of clips.
        transforms: for training and for evaluation.
        reader: a name in ``READERS``.
        options: of ``ClipInput``.
    """

    def __init__(
        self,
        clips: Manifest,
        tasks: Mapping[str, Task],
        transforms: tuple[Transform, Transform],
        *,
        reader: str = "auto",
        **options: Any,
    ) -> None:
        check_reader(reader)
        self.clips, self.tasks, self.reader = clips, tasks, reader
        self.input = ClipInput(transforms, **options)

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.input.seed

    @property
    def num_views(self) -> int:
        """Views of each sample in evaluation."""
        return len(self.input.views)

    def __len__(self) -> int:
        return len(self.clips)

    def select(self, rows: Tensor) -> ClipDataset:
        """Return a data set of some of the clips, by their positions, int64."""
        selected = copy(self)
        selected.clips = self.clips.select(rows.numpy())
        return selected

    def clip_at(self, position: int) -> Clip:
        """Return the clip of the sample at a position."""
        return self.clips.clip(position)

    def readers(self) -> dict[str, int]:
        """Return how many of the clips each reader reads, ``auto`` resolved."""
        counted = pc.value_counts(self.clips.table.column("path")).to_pylist()
        return count_readers({self.clips.root / path["values"]: path["counts"] for path in counted}, self.reader)

    def batch(self, items: Iterable[Item]) -> ClipBatch:
        """Return the samples of some items as a batch; raises ``ClipError`` as one of them does."""
        return collate([self[item] for item in items])

    def __getitem__(self, item: Item) -> ClipSample:
        """Read and transform one clip: random frames and augmentation in training, fixed ones in evaluation.

        Raises:
            ClipError: the clip cannot be read; the message names it.
        """
        clip = self.clips.clip(item.clip)
        pixels, _, _ = self._read(clip, clip.clip_id, item)
        shown = self.input.transform(pixels, clip.clip_id, item)
        targets = {name: target_of(clip, task) for name, task in self.tasks.items()}
        if shown.mirrored:
            targets = {name: mirrored(target, self.tasks[name]) for name, target in targets.items()}
        return ClipSample(shown.video, targets, item.clip, clip.clip_id, view=item.view)

    def labels(self, task: str) -> Tensor:
        """Return the labels of all samples: int64 ``[N]`` class ids, or bool ``[N, C]``."""
        return self.clips.labels(task)

    def _read(self, clip: Clip, name: str, item: Item, key: int | None = None) -> tuple[Tensor, Indices, int]:
        """Return frames uint8 ``[T, H, W, 3]``, their places in the clip, int64 ``[T]``, and its first in the file."""
        with open_clip(clip, self.reader) as reader:
            window = reader.window()
            if key is not None:
                check_frame(clip, key, len(window))
            indices = self.input.frames(len(window), name, item, key)
            return torch.from_numpy(reader.read(window.start + indices)), indices, window.start


def target_of(clip: Clip, task: Task) -> Tensor:
    """Return a clip's label as an int64 scalar, or its labels as float32 multi-hot ``[C]``."""
    labels = clip.labels[task.name]
    if isinstance(labels, int):
        return torch.tensor(labels)
    target = torch.zeros(task.num_classes)
    target[list(labels)] = 1.0
    return target


def mirrored(target: Tensor, task: Task) -> Tensor:
    """Return the labels of a mirrored clip: an int64 class id, or multi-hot ``[…, C]``."""
    return target[..., task.in_mirror] if task.labels == "multi" else task.in_mirror[target]


def collate(
    samples: Sequence[ClipSample],
    join: Callable[[list[Tensor]], Tensor] = torch.stack,
    pairs: PairBatch | None = None,
) -> ClipBatch:
    """Stack samples to a batch; ``join`` makes one tensor of their targets.

    In memory the colours of a pixel are adjacent (channels last), as the decoder returned them.
    """
    video = torch.stack([rearrange(sample.video, "c t h w -> t h w c") for sample in samples])
    return ClipBatch(
        video=rearrange(video, "n t h w c -> n c t h w"),
        targets={task: join([sample.targets[task] for sample in samples]) for task in samples[0].targets},
        indices=torch.tensor([sample.index for sample in samples]),
        clip_ids=tuple(sample.clip_id for sample in samples),
        views=torch.tensor([sample.view for sample in samples]),
        pairs=pairs,
    )
