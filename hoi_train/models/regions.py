"""The mean of a feature map over boxes."""

from __future__ import annotations

import torch
from torch import Tensor


def region_means(maps: Tensor, numbers: Tensor, boxes: Tensor) -> Tensor:
    """Average maps over boxes by RoI alignment (He et al., "Mask R-CNN", ICCV 2017, section 3).

    Each box is one bin of ``torchvision.ops.roi_align``: the average of bilinear samples, at least one per cell in
    height and in width; the centre of cell i is at i + 0.5. More bins, averaged afterwards, would multiply the memory.
    A box without area has the mean 0.

    There is a gradient but no forward derivative: ``torch.func.jvp`` silently returns 0 (torchvision 0.29.1), so
    methods that differentiate forward cannot be used with these means.

    Args:
        maps: float32 or float64 ``[N, F, h, w]``.
        numbers: int64 ``[K]``, the index of each box's map.
        boxes: floating ``[K, 4]``, ``x0, y0, x1, y1`` in cells, within ``0..w`` and ``0..h``.

    Returns:
        ``[K, F]``, of the maps' type; no gradient for the boxes.

    >>> maps = torch.arange(4.0).view(1, 1, 2, 2)
    >>> region_means(maps, torch.tensor([0, 0]), torch.tensor([[0.0, 0, 2, 2], [1, 1, 2, 2]]))
    tensor([[1.5000],
            [3.0000]])
    """
    from torchvision.ops import roi_align

    rois = torch.cat([numbers[:, None].to(maps.dtype), boxes.to(maps.dtype)], dim=1)
    means: Tensor = roi_align(maps, rois, output_size=1, aligned=True)
    return means.flatten(1)
