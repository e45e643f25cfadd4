"""The views of an evaluated clip, and the average of their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple

import torch
from annotated_types import Ge, MinLen
from pydantic import ConfigDict
from torch import Tensor
from torch.nn.functional import logsigmoid

from hoi_train.core.records import LabelKind, Split


class View(NamedTuple):
    """One view of a clip.

    Args:
        offset: number of the temporal view, in ``0..of-1``.
        of: number of temporal views.
        along: place of the crop along the picture's long side, 0 (left or top) to 1 (right or bottom).
    """

    offset: int = 0
    of: int = 1
    along: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Views:
    """Evaluate every clip from several views and average their scores (softmax or sigmoid) per clip.

    View v is temporal view ``v // crops`` and crop ``v % crops``. One view is the middle of both.

    Args:
        frames: temporal views, with frames at evenly spaced offsets; see ``segment_frames``.
        crops: crops, evenly spaced along the picture's long side; 3 are left, centre and right.
        splits: splits that are evaluated so; the others from one view. Videos of ``hoi-train predict`` count as test.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    frames: Annotated[int, Ge(1)] = 1
    crops: Annotated[int, Ge(1)] = 1
    splits: Annotated[tuple[Split, ...], MinLen(1)] = ("val", "test")

    def __len__(self) -> int:
        return self.frames * self.crops

    def __getitem__(self, number: int) -> View:
        """Return a view by its number; raises ``IndexError`` beyond the last."""
        if not 0 <= number < len(self):
            raise IndexError(f"view {number} of {len(self)}")
        offset, crop = divmod(number, self.crops)
        return View(offset, self.frames, crop / (self.crops - 1) if self.crops > 1 else 0.5)

    def of(self, split: Split) -> Views:
        """Return the views of a split."""
        return self if split in self.splits else Views()


def average_views(logits: Tensor, labels: LabelKind) -> Tensor:
    r"""Return logits whose softmax (single-label) or sigmoid (multi-label) is the mean of that of the views.

    Single-label: ``log mean_v softmax(z_v)``. Multi-label: ``log p - log(1 - p)`` with ``p = mean_v sigmoid(z_v)``.
    Video networks are tested so (SlowFast, ``tools/test_net.py``; mmaction2, ``average_clips="prob"``). Computed in
    float64. The logits of a single view come back as they are.

    Args:
        logits: floating ``[N, V, C]``.
        labels: of the task.

    Returns:
        ``[N, C]``; averages of half-precision logits are float32.

    >>> average_views(torch.tensor([[[2.0, -2.0], [-2.0, 2.0]]]), "multi").tolist()
    [[0.0, 0.0]]
    """
    if logits.shape[1] == 1:
        return logits[:, 0]
    z = logits.double()
    if labels == "single":
        averaged = z.log_softmax(2).logsumexp(1) - torch.tensor(z.shape[1], dtype=z.dtype).log()
    else:
        averaged = logsigmoid(z).logsumexp(1) - logsigmoid(-z).logsumexp(1)
    return averaged.to(torch.promote_types(logits.dtype, torch.float32))
