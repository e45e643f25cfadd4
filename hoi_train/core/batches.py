"""Batches of clips and pairs as tensors, from the loader to the loop.

Shape letters as in ``records.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """The mixing of the clips of a batch.

    Args:
        partners: int64 ``[N]``, position in the batch of the clip mixed into each clip.
        share: the clip's own share of the mixture, 0..1.
    """

    partners: Tensor
    share: float


@dataclass  # not frozen: Fabric, which passes it to the model, refuses that
class PairBatch:
    """The M human-object pairs of the clips of a batch, any number per clip.

    Args:
        clips: int64 ``[M]``, position of each pair's clip in the batch.
        boxes: float32 ``[M, 2, T, 4]``, boxes of person and object in every frame, ``x0, y0, x1, y1`` in pixels of the
            input, clipped to it; a box outside the input has no area.
        key_frames: int64 ``[M]``, the labelled one of the T frames.
        objects: int64 ``[M]``, class of the object.
        indices: int64 ``[M]``, each pair's position among the pairs of its split.
    """

    clips: Tensor
    boxes: Tensor
    key_frames: Tensor
    objects: Tensor
    indices: Tensor

    def __post_init__(self) -> None:
        shape = (len(self.clips), 2, self.boxes.shape[2] if self.boxes.ndim == 4 else 0, 4)
        if self.boxes.shape != shape or any(len(row) != len(self.clips) for row in (self.objects, self.indices)):
            raise ValueError(f"pairs must have boxes [M, 2, T, 4] and M objects, got {self.boxes.shape}")

    def __len__(self) -> int:
        return len(self.clips)

    def map(self, function: Callable[[Tensor], Tensor]) -> PairBatch:
        """Apply a tensor function to every tensor."""
        return PairBatch(*(function(getattr(self, each.name)) for each in fields(self)))


@dataclass(frozen=True)
class ClipBatch:
    """A batch of clips.

    Args:
        video: uint8 ``[N, 3, T, S, S]``, RGB; the model normalises it.
        targets: by task int64 ``[N]`` (single-label) or float32 multi-hot ``[N, C]`` (multi-label); M rows for tasks of
            pairs.
        indices: int64 ``[N]``, each clip's position in its split.
        clip_ids: N names, for messages.
        mixture: if the clips were mixed; the targets are those of the unmixed clips.
        pairs: if the tasks are of pairs.
        views: int64 ``[N]``, number of each clip's view in evaluation; the first if not set.
    """

    video: Tensor
    targets: Mapping[str, Tensor]
    indices: Tensor
    clip_ids: tuple[str, ...]
    mixture: Mixture | None = None
    pairs: PairBatch | None = None
    views: Tensor | None = None

    def __post_init__(self) -> None:
        if not (self.video.ndim == 5 and self.video.shape[1] == 3 and self.video.dtype == torch.uint8):
            raise ValueError(f"video must be uint8 [N, 3, T, S, S], got {self.video.dtype} {self.video.shape}")

    def __len__(self) -> int:
        return len(self.clip_ids)

    @property
    def inputs(self) -> dict[str, Any]:
        """The arguments of the model's ``forward`` by name."""
        return {"video": self.video} if self.pairs is None else {"video": self.video, "pairs": self.pairs}

    @property
    def rows(self) -> Tensor:
        """Positions of the labelled rows, clips or pairs, in the split, int64."""
        return self.indices if self.pairs is None else self.pairs.indices

    @property
    def keys(self) -> Tensor:
        """The position and the view of each row, int64 ``[N, 2]``."""
        views = torch.zeros_like(self.indices) if self.views is None else self.views
        return torch.stack([self.rows, views if self.pairs is None else views[self.pairs.clips]], dim=1)

    @property
    def row_ids(self) -> tuple[str, ...]:
        """The clip id of each row, for messages."""
        return self.clip_ids if self.pairs is None else tuple(self.clip_ids[i] for i in self.pairs.clips.tolist())

    @property
    def shares(self) -> list[tuple[Mapping[str, Tensor], float]]:
        """The targets with their shares: 1, or those of the clips and of their partners, which sum to 1."""
        if self.mixture is None:
            return [(self.targets, 1.0)]
        share, theirs = self.mixture.share, {task: of[self.mixture.partners] for task, of in self.targets.items()}
        return [(self.targets, share), (theirs, 1 - share)]

    def blend(self, function: Callable[[Mapping[str, Tensor]], Tensor]) -> Tensor:
        """Return a function of the targets; for mixed clips its mean weighted by shares."""
        return torch.stack([share * function(targets) for targets, share in self.shares]).sum(0)

    def map(self, function: Any) -> ClipBatch:
        """Apply a tensor function (``.to(device)``, ``pin_memory``) to every tensor."""
        targets = {task: function(target) for task, target in self.targets.items()}
        pairs = None if self.pairs is None else self.pairs.map(function)
        views = None if self.views is None else function(self.views)
        return replace(
            self, video=function(self.video), targets=targets, indices=function(self.indices), pairs=pairs, views=views
        )

    def pin_memory(self) -> ClipBatch:
        """Return the batch in page-locked memory; the DataLoader calls this."""
        return self.map(lambda tensor: tensor.pin_memory())
