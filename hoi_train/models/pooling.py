"""The pooling: from the backbone's output for a batch of clips to the features of what is labelled, clips or pairs.

A pooling takes the number of features of that output and the number of object classes; its keyword-only arguments are
its hyper-parameters. The cells of a feature map divide height and width of the input evenly, as its frames divide the
window: map frame j of t covers the input's frames from ``j T / t`` up to ``(j + 1) T / t``.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn
from torch.nn.functional import relu

from hoi_train.core.batches import PairBatch
from hoi_train.models.pair_geometry import NUM_GEOMETRY, describe
from hoi_train.models.regions import region_means

WIDTH = 64  # of the layer over the geometry, and of the embedding of a class


class Pooling(nn.Module):
    """The attributes of every pooling.

    Attributes:
        of: whether a row of the result belongs to a clip or to a pair.
        num_features: columns of the result.
    """

    of: ClassVar[Literal["clip", "pair"]]
    num_features: int


class MeanPool(Pooling):
    """Average the map over time and space to features of whole clips; leave pooled features as they are.

    Args:
        in_features: features F of the backbone's output.
        num_objects: not used.

    >>> MeanPool(4)(torch.ones(2, 4, 1, 7, 7)).shape
    torch.Size([2, 4])
    """

    of = "clip"

    def __init__(self, in_features: int, num_objects: int = 0) -> None:
        super().__init__()
        self.num_features = in_features

    def forward(self, output: Tensor, *_of_pairs: Any) -> Tensor:
        """Return the features ``[N, F]`` of a map ``[N, F, t, h, w]`` or of pooled features ``[N, F]``."""
        # The same as AdaptiveAvgPool3d(1), whose gradient is not deterministic on CUDA.
        return output if output.ndim == 2 else output.mean(dim=(2, 3, 4))


class PairPool(Pooling):
    """Join the map's features at a pair's boxes, the geometry and motion of the boxes, and the object's class.

    ``features = dropout(relu(W [regions, relu(G geometry), embedding of the class] + b))``, where regions are the means
    of the map over the person's box, the object's and the union box (see ``region_means``), and the geometry is
    that of ``describe``. Boxes are clipped to the input; one that lies wholly outside has a mean of zeros, also within
    the average along a trajectory. Means and geometry are computed in float32 under autocast too: rounded to bfloat16,
    an edge at pixel 200 may move by half a pixel. Initial values are drawn from torch's global generator.
    On CUDA the gradient of the regions is summed in no fixed order, so that runs agree to rounding only.

    Args:
        in_features: channels F of the map.
        num_objects: classes of objects.
        along: ``key``: boxes of the key frame, on the frame of the map that covers it; ``trajectory``: the average over
            the frames of the map, each with the boxes of the middle of the input's frames it covers. The 3D-ResNets'
            map has one frame for 16 of the input: up to 16, a trajectory is one box.
        features: features D of a pair.
        objects: whether the network sees the class of the object.
        dropout: probability of dropping a feature in training.

    Raises:
        ValueError: if ``objects`` is set and the data have no classes of objects.

    >>> boxes, first = torch.tensor([[0.0, 0, 50, 100], [25, 50, 75, 100]]).view(1, 2, 1, 4), torch.tensor([0])
    >>> pairs = PairBatch(first, boxes, key_frames=first, objects=first, indices=first)
    >>> PairPool(8, num_objects=78, features=16)(torch.rand(1, 8, 1, 7, 7), pairs, side=100, num_frames=1).shape
    torch.Size([1, 16])
    """

    of = "pair"

    def __init__(
        self,
        in_features: int,
        num_objects: int,
        *,
        along: Literal["key", "trajectory"] = "key",
        features: Annotated[int, Ge(1)] = 512,
        objects: bool = True,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
    ) -> None:
        super().__init__()
        if objects and num_objects < 1:
            raise ValueError("the data name no classes of objects; set objects to false")
        self.along, self.num_features = along, features
        self.geometry = nn.Linear(NUM_GEOMETRY, WIDTH)
        self.objects = nn.Embedding(num_objects, WIDTH) if objects else None
        self.joint = nn.Linear(3 * in_features + (2 if objects else 1) * WIDTH, features)
        self.dropout = nn.Dropout(dropout)

    def forward(self, feature_map: Tensor, pairs: PairBatch, side: int, num_frames: int) -> Tensor:
        """Return the features of the pairs.

        Args:
            feature_map: floating ``[N, F, t, h, w]``.
            pairs: the M pairs of the N clips; M may be 0.
            side: of the input, in pixels.
            num_frames: T, of the input and of the pairs' boxes.

        Returns:
            ``[M, D]``.

        Raises:
            ValueError: if the pairs have boxes of another number of frames.
        """
        if pairs.boxes.shape[2] != num_frames:
            raise ValueError(f"the video has {num_frames} frames, the pairs have boxes of {pairs.boxes.shape[2]}")
        with torch.autocast(feature_map.device.type, enabled=False):
            precise = feature_map.to(torch.promote_types(feature_map.dtype, torch.float32))
            geometry = describe(pairs.boxes, pairs.key_frames, side).to(self.geometry.weight.dtype)
            parts = [self.regions(precise, pairs, side), relu(self.geometry(geometry))]
            if self.objects is not None:
                parts.append(self.objects(pairs.objects))
        joint: Tensor = self.dropout(relu(self.joint(torch.cat(parts, dim=1))))
        return joint

    def regions(self, feature_map: Tensor, pairs: PairBatch, side: int) -> Tensor:
        """Return the means over person, object and both, ``[M, 3F]``, of the map, float32 or better."""
        num_features, t, height, width = feature_map.shape[1:]
        frames, places = self._moments(pairs.key_frames, pairs.boxes.shape[2], t)
        rows = torch.arange(len(pairs), device=frames.device)[:, None]
        boxes = pairs.boxes[rows, :, frames]  # [M, r, 2, 4]
        both = torch.cat([boxes[..., :2].amin(2), boxes[..., 2:].amax(2)], dim=-1)
        cells = boxes.new_tensor([width, height, width, height]) / side
        boxes = torch.cat([boxes, both[:, :, None]], dim=2).clamp(0, side) * cells  # [M, r, 3, 4]
        numbers = (pairs.clips[:, None] * t + places)[..., None].expand(boxes.shape[:3])
        means = region_means(feature_map.transpose(1, 2).flatten(0, 1), numbers.flatten(), boxes.flatten(0, 2))
        return means.view(*boxes.shape[:3], num_features).mean(dim=1).flatten(1)

    def _moments(self, key_frames: Tensor, num_frames: int, t: int) -> tuple[Tensor, Tensor]:
        """Return for each pair the frames of the input and those of the map to average, each int64 ``[M, r]``."""
        if self.along == "key":
            return key_frames[:, None], key_frames[:, None] * t // num_frames
        places = torch.arange(t, device=key_frames.device).expand(len(key_frames), t)
        return (2 * places + 1) * num_frames // (2 * t), places


POOLING: dict[str, type[Pooling]] = {
    "mean": MeanPool,
    "roi": PairPool,
}
