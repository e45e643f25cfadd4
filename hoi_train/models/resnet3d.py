"""3D-ResNet and 3D-ResNeXt of any depth, cardinality and width, from pytorchvideo's residual stages.

Layout of the published networks (Hara et al., "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and
ImageNet?", CVPR 2018, https://github.com/kenshohara/3D-ResNets-PyTorch), shortcut type B::

    video [N, 3, T, S, S]
      stem    convolution 7×7×7, stride (1, 2, 2) → batch norm → ReLU → max pooling 3×3×3, stride 2
      stages  four rows of residual blocks; each of the last three halves time, height and width
    features [N, F, T/16, S/32, S/32], every quotient rounded up
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

Block = Literal["basic", "bottleneck"]
ReLU = partial(nn.ReLU, inplace=True)  # as published; a third less memory for activations


@dataclass(frozen=True)
class Stage:
    """One row of equal residual blocks, of which the first may stride.

    Args:
        depth: number of blocks.
        inner: channels between the convolutions of a block.
        out: channels that leave a block.
        groups: groups of the 3×3×3 convolution of a bottleneck; its cardinality.
        temporal_stride, spatial_stride: strides of the first block.
    """

    depth: int
    inner: int
    out: int
    groups: int
    temporal_stride: int
    spatial_stride: int


class ResNet3d(nn.Module):
    """Map preprocessed video to a map of features.

    Convolutions start from the Kaiming normal distribution (fan out, ReLU), batch norms from weight 1 and bias 0,
    as published; both draw from torch's global generator, which the caller seeds.

    Args:
        stem_channels: channels of the stem.
        pool_stride: stride in time of the stem's max pooling; 2 as published.
        block: ``"basic"`` (two 3×3×3 convolutions) or ``"bottleneck"`` (1×1×1, 3×3×3, 1×1×1).
        stages: the stages in order.

    Attributes:
        num_features: channels F of the feature map.

    Shapes:
        video floating ``[N, 3, T, H, W]``, any T, H, W of at least 1; result ``[N, F, t, h, w]``.
    """

    def __init__(self, stem_channels: int, pool_stride: int, block: Block, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.num_features = stages[-1].out
        self.stem = _stem(stem_channels, pool_stride)
        widths = [stem_channels, *(stage.out for stage in stages)]
        self.stages = nn.Sequential(
            *(_stage(stage, dim_in, block) for stage, dim_in in zip(stages, widths, strict=False))
        )
        self.apply(_initialise)

    def forward(self, video: Tensor) -> Tensor:
        """Return the feature map ``[N, F, t, h, w]`` of a preprocessed video ``[N, 3, T, H, W]``."""
        features: Tensor = self.stages(self.stem(video))
        return features


def _stem(channels: int, pool_stride: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=nn.Conv3d(3, channels, kernel_size=7, stride=(1, 2, 2), padding=3, bias=False),
        norm=nn.BatchNorm3d(channels),
        act=ReLU(),
        pool=nn.MaxPool3d(kernel_size=3, stride=(pool_stride, 2, 2), padding=1),
    )
    return nn.Sequential(layers)


def _stage(stage: Stage, dim_in: int, block: Block) -> nn.Module:
    """Build a stage with pytorchvideo, whose names of parameters it keeps: ``res_blocks.0.branch2.conv_a.weight``."""
    with warnings.catch_warnings():
        # fvcore, which pytorchvideo imports, calls torch.jit.script at import: deprecated in today's torch.
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script", category=Warning)
        from pytorchvideo.models.resnet import create_bottleneck_block, create_res_stage

    stride = (stage.temporal_stride, stage.spatial_stride, stage.spatial_stride)
    one, three = (1, 1, 1), (3, 3, 3)
    basic = block == "basic"
    result: nn.Module = create_res_stage(
        depth=stage.depth,
        dim_in=dim_in,
        dim_inner=stage.inner,
        dim_out=stage.out,
        bottleneck=_basic_branch if basic else create_bottleneck_block,
        conv_a_kernel_size=three if basic else one,
        conv_a_stride=stride if basic else one,
        conv_a_padding=one if basic else (0, 0, 0),
        conv_b_kernel_size=three,
        conv_b_stride=one if basic else stride,
        conv_b_padding=one,
        conv_b_num_groups=stage.groups,
        activation=ReLU,
    )
    return result


def _basic_branch(
    *,
    dim_in: int,
    dim_out: int,
    conv_a_kernel_size: tuple[int, int, int],
    conv_a_stride: tuple[int, int, int],
    conv_a_padding: tuple[int, int, int],
    conv_b_kernel_size: tuple[int, int, int],
    conv_b_padding: tuple[int, int, int],
    **_of_bottlenecks: Any,
) -> nn.Sequential:
    """Build the branch of a basic block, two convolutions, in the place of ``create_res_stage``'s bottleneck."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv_a=nn.Conv3d(dim_in, dim_out, conv_a_kernel_size, conv_a_stride, conv_a_padding, bias=False),
        norm_a=nn.BatchNorm3d(dim_out),
        act_a=ReLU(),
        conv_b=nn.Conv3d(dim_out, dim_out, conv_b_kernel_size, padding=conv_b_padding, bias=False),
        norm_b=nn.BatchNorm3d(dim_out),
    )
    return nn.Sequential(layers)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.BatchNorm3d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
