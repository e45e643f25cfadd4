"""Geometry and motion of the boxes of a person and an object."""

from __future__ import annotations

import torch
from torch import Tensor

NUM_GEOMETRY = 19


def describe(boxes: Tensor, key_frames: Tensor, side: int) -> Tensor:
    """Describe the two boxes of each pair by numbers of order 1.

    =======  ==================================================================================================
    columns  meaning
    =======  ==================================================================================================
    0-3      centres of person and object in the key frame, x and y
    4-7      their widths and heights there
    8-9      offset from the person's centre to the object's there, as shares of the union box, -1..1
    10-11    logarithms of the ratios of the object's width and height to the person's there
    12       intersection over union there
    13-16    motion of both centres from the first frame of the window to the last
    17-18    motion of the offset
    =======  ==================================================================================================

    Lengths are shares of the input's side. A box narrower or lower than a pixel, such as one out of view, counts as
    one pixel wide or high.

    Args:
        boxes: floating ``[M, 2, T, 4]``, of person and object, ``x0, y0, x1, y1`` in pixels.
        key_frames: int64 ``[M]``, the index of the key frame among the T frames.
        side: of the input, in pixels.

    Returns:
        ``[M, 19]``, of the boxes' type.

    >>> boxes = torch.tensor([[0.0, 0, 50, 100], [25, 50, 75, 100]]).view(1, 2, 1, 4)
    >>> describe(boxes, torch.tensor([0]), side=100)[0, 8:13]  # offset (0.25, 0.25) in a box of 0.75 × 1
    tensor([ 0.3333,  0.2500,  0.0000, -0.6931,  0.2000])
    """
    rows = torch.arange(len(boxes), device=boxes.device)
    moments = torch.stack([boxes[rows, :, key_frames], boxes[:, :, 0], boxes[:, :, -1]]) / side  # [3, M, 2, 4]
    low, high = moments[..., :2], moments[..., 2:]
    centers, sizes = (low + high) / 2, (high - low).clamp(min=1 / side)
    around = (high.amax(2) - low.amin(2)).clamp(min=1 / side)
    offsets = (centers[:, :, 1] - centers[:, :, 0]) / around  # [3, M, 2]
    shared = (high[0].amin(1) - low[0].amax(1)).clamp(min=0).prod(1)
    iou = shared / (sizes[0].prod(2).sum(1) - shared)
    columns = (
        centers[0].flatten(1),
        sizes[0].flatten(1),
        offsets[0],
        (sizes[0, :, 1] / sizes[0, :, 0]).log(),
        iou[:, None],
        (centers[2] - centers[1]).flatten(1),
        offsets[2] - offsets[1],
    )
    return torch.cat(columns, dim=1)
