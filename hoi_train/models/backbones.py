"""The table of backbones: from hyper-parameters, which are keyword-only, to a ``BackboneSpec``.

The names with a depth are the published networks, whose published weights fit; ``resnet3d``, ``resnext3d`` and
``tiny_resnext3d`` have their depth, cardinality, width and strides as hyper-parameters.

Strides divide height and width in each of the four stages, after the stem has divided them by 4; time is divided as
published in any case. The published ``(1, 2, 2, 2)`` gives a map of S/32 × S/32. ``(1, 2, 2, 1)`` gives S/16 × S/16,
which separates boxes that would share a cell, for 1.05 to 1.2 times the operations of networks of full width,
``(1, 2, 1, 1)`` S/8 × S/8 for 1.9 to 2.5 times (16 frames of 112×112, 8 of 224×224). The parameters are the same, so
published weights fit; only a first stride of 2 adds a projection to basic blocks.

>>> spec = BACKBONES["tiny_resnext3d"]()
>>> spec.num_features, list(spec.groups), sum(parameter.numel() for parameter in spec.build().parameters())
(512, ['stem', 'stage1', 'stage2', 'stage3', 'stage4'], 385184)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from hoi_train.models.preprocessing import PREPROCESSING
from hoi_train.models.resnet3d import Block, ResNet3d, Stage
from hoi_train.models.resnet3d_weights import KINETICS
from hoi_train.models.spec import BackboneSpec

Depth = Annotated[int, Ge(1)]
StageDepths = tuple[Depth, Depth, Depth, Depth]
Cardinality = Annotated[int, Ge(1)]
Width = Annotated[float, Gt(0), Le(8)]
Stride = Literal[1, 2]
Strides = tuple[Stride, Stride, Stride, Stride]


def resnet3d(
    *,
    stage_depths: StageDepths = (3, 4, 6, 3),
    block: Block = "bottleneck",
    width: Width = 1.0,
    strides: Strides = (1, 2, 2, 2),
) -> BackboneSpec:
    """Describe a 3D-ResNet: 64, 128, 256, 512 channels inside the blocks, four times as many out of a bottleneck.

    Args:
        stage_depths: blocks of the four stages.
        block: ``"basic"`` (two convolutions) or ``"bottleneck"`` (three).
        width: factor on all channels.
        strides: divisors of height and width in the four stages.

    Returns:
        Its specification; F = 2048 · width with bottlenecks, 512 · width with basic blocks.

    Raises:
        ValueError: if the width leaves a layer without channels.
    """
    inner = _channels(64, width)
    expansion = 4 if block == "bottleneck" else 1
    rows = zip(stage_depths, inner, strides, strict=True)
    stages = [Stage(depth, size, expansion * size, stride) for depth, size, stride in rows]
    return _spec(inner[0], block, stages)


def resnext3d(
    *,
    stage_depths: StageDepths = (3, 4, 23, 3),
    cardinality: Cardinality = 32,
    width: Width = 1.0,
    strides: Strides = (1, 2, 2, 2),
) -> BackboneSpec:
    """Describe a 3D-ResNeXt: 256, 512, 1024, 2048 channels out of the stages; groups of 4, 8, 16, 32 channels inside.

    The cardinality is the number of groups and does not change their size, as in the published code: a lower one
    makes a smaller network.

    Args:
        stage_depths: bottlenecks of the four stages.
        cardinality: groups of the 3×3×3 convolutions.
        width: factor on all channels, those of a group included; at least 0.25.
        strides: divisors of height and width in the four stages.

    Returns:
        Its specification; F = 2048 · width.

    Raises:
        ValueError: if the width leaves a group without channels.
    """
    rows = zip(stage_depths, _channels(4, width), _channels(256, width), strides, strict=True)
    stages = [Stage(depth, cardinality * size, out, stride, groups=cardinality) for depth, size, out, stride in rows]
    return _spec(_channels(64, width)[0], "bottleneck", stages)


def tiny_resnext3d(
    *, cardinality: Cardinality = 8, width: Width = 0.25, strides: Strides = (1, 2, 2, 2)
) -> BackboneSpec:
    """Describe a 3D-ResNeXt of 2-2-2-2 bottlenecks that learns in minutes on two CPU cores, from 8 frames of 64×64.

    Time is halved as in the published networks. Halving it less often costs throughput and, measured on events that
    differ by nothing but their order, gains nothing: the convolutions see all 8 frames anyway.

    Args:
        cardinality: groups of the 3×3×3 convolutions.
        width: factor on all channels; at least 0.25.
        strides: divisors of height and width in the four stages.
    """
    return resnext3d(stage_depths=(2, 2, 2, 2), cardinality=cardinality, width=width, strides=strides)


def _channels(first: int, width: float) -> list[int]:
    """Return the channels of the four stages, doubling from ``first · width``, rounded down as published."""
    if first * width < 1:
        raise ValueError(f"width {width:g} leaves a layer without channels; use at least {1 / first:g}")
    return [int(first * width * 2**stage) for stage in range(4)]


def _spec(stem_channels: int, block: Block, stages: list[Stage]) -> BackboneSpec:
    return BackboneSpec(
        build=partial(ResNet3d, stem_channels, block, stages),
        num_features=stages[-1].out,
        groups={"stem": ("stem",)} | {f"stage{number}": (f"stages.{number - 1}",) for number in (1, 2, 3, 4)},
        preprocessing=tuple(PREPROCESSING),
        weights=KINETICS,
    )


def _resnet(block: Block, stage_depths: StageDepths) -> Callable[[], BackboneSpec]:
    def describe() -> BackboneSpec:
        return resnet3d(stage_depths=stage_depths, block=block)

    return describe


def _resnext(stage_depths: StageDepths) -> Callable[[], BackboneSpec]:
    def describe() -> BackboneSpec:
        return resnext3d(stage_depths=stage_depths)

    return describe


BACKBONES: dict[str, Callable[..., BackboneSpec]] = {
    "resnet3d_18": _resnet("basic", (2, 2, 2, 2)),
    "resnet3d_34": _resnet("basic", (3, 4, 6, 3)),
    "resnet3d_50": _resnet("bottleneck", (3, 4, 6, 3)),
    "resnet3d_101": _resnet("bottleneck", (3, 4, 23, 3)),
    "resnet3d_152": _resnet("bottleneck", (3, 8, 36, 3)),
    "resnet3d_200": _resnet("bottleneck", (3, 24, 36, 3)),
    "resnext3d_50": _resnext((3, 4, 6, 3)),
    "resnext3d_101": _resnext((3, 4, 23, 3)),
    "resnext3d_152": _resnext((3, 8, 36, 3)),
    "resnet3d": resnet3d,
    "resnext3d": resnext3d,
    "tiny_resnext3d": tiny_resnext3d,
}
