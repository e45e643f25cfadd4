"""Mix two clips and their losses, for single- and multi-label tasks.

A batch is mixed with itself in another order. The loss of a mixed clip is the mixture of the losses that both targets
give: ``share L(z, y_a) + (1 - share) L(z, y_b)``. For cross-entropy and BCE that equals the loss of mixed labels, and
it needs nothing from a loss that knows hard labels only, which torchvision's ``MixUp`` and ``CutMix`` rule out: they
take class ids and give mixed labels. A loss that learns from batches learns from both targets, from each by its share.

As in the papers there is one share, and one box of CutMix, per global batch: they are drawn from ``joint``, a
generator in the same state on all ranks. The partners are drawn per rank.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
import torch
from annotated_types import Gt

from hoi_train.core.batches import ClipBatch, Mixture


class NoMixing:
    """Leave every clip as it is."""

    def __call__(self, batch: ClipBatch, joint: np.random.Generator) -> ClipBatch:
        """Return the batch."""
        return batch


class Mixup:
    """Add two clips pixel by pixel: ``share x_a + (1 - share) x_b``, ``share ~ Beta(alpha, alpha)``, one per batch.

    Source: Zhang et al., "mixup", ICLR 2018, section 2 and the released code. Rounded to uint8.

    Args:
        alpha: > 0; small values leave most batches nearly unmixed. The paper has 0.2 for ImageNet, 1 for CIFAR.
    """

    def __init__(self, *, alpha: Annotated[float, Gt(0)] = 0.2) -> None:
        self.alpha = alpha

    def __call__(self, batch: ClipBatch, joint: np.random.Generator) -> ClipBatch:
        """Return the mixed batch; draws partners from torch's global generator."""
        share, partners = joint.beta(self.alpha, self.alpha), torch.randperm(len(batch))
        mixed = torch.lerp(batch.video[partners].float(), batch.video.float(), share)
        video = mixed.round_().to(torch.uint8)
        return replace(batch, video=video, mixture=Mixture(partners.to(video.device), share))


class CutMix:
    """Paste a box of one clip, through all its frames, into another; the share is the area that is left.

    The box has ``sqrt(1 - share)`` of the height and width, ``share ~ Beta(alpha, alpha)``, around a uniform centre,
    cut at the border; one box per batch. Source: Yun et al., "CutMix", ICCV 2019, equations 1 and 2.

    Args:
        alpha: > 0; the paper has 1.
    """

    def __init__(self, *, alpha: Annotated[float, Gt(0)] = 1.0) -> None:
        self.alpha = alpha

    def __call__(self, batch: ClipBatch, joint: np.random.Generator) -> ClipBatch:
        """Return the mixed batch; draws partners from torch's global generator."""
        share, partners = joint.beta(self.alpha, self.alpha), torch.randperm(len(batch))
        height, width = batch.video.shape[-2:]
        rows, columns = (_span(size, (1 - share) ** 0.5, joint) for size in (height, width))
        video = batch.video.clone()
        video[..., rows, columns] = batch.video[partners][..., rows, columns]
        pasted = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        return replace(batch, video=video, mixture=Mixture(partners.to(video.device), 1 - pasted))


def _span(size: int, part: float, joint: np.random.Generator) -> slice:
    """Return a stretch of ``part`` of ``size`` around a random centre, cut at both ends."""
    centre, half = int(joint.integers(size)), int(size * part) / 2
    return slice(max(int(centre - half), 0), min(int(centre + half), size))


Mixing = NoMixing | Mixup | CutMix
MIXING: dict[str, type[Mixing]] = {"none": NoMixing, "mixup": Mixup, "cutmix": CutMix}
