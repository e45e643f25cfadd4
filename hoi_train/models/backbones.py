"""The backbones: a name for each, and builders whose keyword-only parameters are the hyper-parameters.

>>> backbone = BACKBONES["tiny_resnext3d"]()
>>> backbone.num_features, sum(p.numel() for p in backbone.parameters())
(512, 388544)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from hoi_train.models.resnet3d import Block, ResNet3d, Stage

Depth = Annotated[int, Ge(1)]
Stride = Literal[1, 2]
StageDepths = tuple[Depth, Depth, Depth, Depth]
TemporalStrides = tuple[Stride, Stride, Stride, Stride, Stride]
Width = Annotated[float, Gt(0), Le(8)]
Cardinality = Annotated[int, Ge(1)]

PUBLISHED_STRIDES: TemporalStrides = (2, 1, 2, 2, 2)


def resnet3d(
    *,
    stage_depths: StageDepths = (3, 4, 6, 3),
    block: Block = "bottleneck",
    width: Width = 1.0,
    temporal_strides: TemporalStrides = PUBLISHED_STRIDES,
) -> ResNet3d:
    """Build a 3D-ResNet: inner channels 64, 128, 256, 512, four times as many out of a bottleneck.

    Args:
        stage_depths: blocks of the four stages.
        block: ``"basic"`` or ``"bottleneck"``.
        width: factor on all channels.
        temporal_strides: strides in time of the stem's pooling and of the four stages, 1 or 2 each.

    Returns:
        The backbone; F = 2048 · width with bottlenecks, 512 · width with basic blocks.

    Raises:
        ValueError: if the width leaves a layer without channels.
    """
    inner = _channels(64, width)
    expansion = 4 if block == "bottleneck" else 1
    stages = [
        Stage(depth, channels, expansion * channels, 1, stride, 1 if index == 0 else 2)
        for index, (depth, channels, stride) in enumerate(zip(stage_depths, inner, temporal_strides[1:], strict=True))
    ]
    return ResNet3d(inner[0], temporal_strides[0], block, stages)


def resnext3d(
    *,
    stage_depths: StageDepths = (3, 4, 23, 3),
    cardinality: Cardinality = 32,
    width: Width = 1.0,
    temporal_strides: TemporalStrides = PUBLISHED_STRIDES,
) -> ResNet3d:
    """Build a 3D-ResNeXt: 256, 512, 1024, 2048 channels out of the stages, groups of 4, 8, 16, 32 channels inside.

    The cardinality changes the number of groups and not their size, as in the published code, so a smaller one
    makes a smaller network.

    Args:
        stage_depths: bottlenecks of the four stages.
        cardinality: groups of the 3×3×3 convolutions.
        width: factor on all channels, those of a group included; at least 0.25.
        temporal_strides: strides in time of the stem's pooling and of the four stages, 1 or 2 each.

    Returns:
        The backbone; F = 2048 · width.

    Raises:
        ValueError: if the width leaves a group without channels.
    """
    group, out = _channels(4, width), _channels(256, width)
    rows = zip(stage_depths, group, out, temporal_strides[1:], strict=True)
    stages = [
        Stage(depth, cardinality * size, channels, cardinality, stride, 1 if index == 0 else 2)
        for index, (depth, size, channels, stride) in enumerate(rows)
    ]
    return ResNet3d(_channels(64, width)[0], temporal_strides[0], "bottleneck", stages)


def tiny_resnext3d(
    *,
    cardinality: Cardinality = 8,
    width: Width = 0.25,
    temporal_strides: TemporalStrides = PUBLISHED_STRIDES,
) -> ResNet3d:
    """Build a 3D-ResNeXt of 2-2-2-2 bottlenecks that trains in minutes on two CPU cores, for 8 frames of 64×64."""
    return resnext3d(
        stage_depths=(2, 2, 2, 2), cardinality=cardinality, width=width, temporal_strides=temporal_strides
    )


def _channels(first: int, width: float) -> list[int]:
    """Return the channels of the four stages, doubling from ``first · width``, rounded down as published."""
    if first * width < 1:
        raise ValueError(f"width {width:g} leaves a layer without channels; use at least {1 / first:g}")
    return [int(first * width * 2**index) for index in range(4)]


def _resnet(block: Block, stage_depths: StageDepths) -> Callable[..., ResNet3d]:
    def build(*, temporal_strides: TemporalStrides = PUBLISHED_STRIDES) -> ResNet3d:
        return resnet3d(stage_depths=stage_depths, block=block, temporal_strides=temporal_strides)

    return build


def _resnext(stage_depths: StageDepths) -> Callable[..., ResNet3d]:
    def build(*, temporal_strides: TemporalStrides = PUBLISHED_STRIDES) -> ResNet3d:
        return resnext3d(stage_depths=stage_depths, temporal_strides=temporal_strides)

    return build


BACKBONES: dict[str, Callable[..., ResNet3d]] = {
    "resnet3d_18": _resnet("basic", (2, 2, 2, 2)),
    "resnet3d_34": _resnet("basic", (3, 4, 6, 3)),
    "resnet3d_50": _resnet("bottleneck", (3, 4, 6, 3)),
    "resnet3d_101": _resnet("bottleneck", (3, 4, 23, 3)),
    "resnet3d_152": _resnet("bottleneck", (3, 8, 36, 3)),
    "resnet3d_200": _resnet("bottleneck", (3, 24, 36, 3)),
    "resnext3d_50": _resnext((3, 4, 6, 3)),
    "resnext3d_101": _resnext((3, 4, 23, 3)),
    "resnext3d_152": _resnext((3, 8, 36, 3)),
    "tiny_resnext3d": tiny_resnext3d,
    "resnet3d": resnet3d,
    "resnext3d": resnext3d,
}
