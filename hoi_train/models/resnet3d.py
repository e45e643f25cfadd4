"""3D-ResNet and 3D-ResNeXt of any depth, cardinality and width, from pytorchvideo's residual stages.

Layout of the published networks (Hara et al., "Can Spatiotemporal 3D CNNs Retrace the History of 2D CNNs and
ImageNet?", CVPR 2018, https://github.com/kenshohara/3D-ResNets-PyTorch), shortcut type B::

    video     [N, 3, T, S, S]
    stem      convolution 7×7×7, stride (1, 2, 2) → batch norm → ReLU → max pooling 3×3×3, stride 2
    stages    four rows of residual blocks; each of the last three halves time, height and width
    features  [N, F, T/16, S/32, S/32], every quotient rounded up

A stage with stride 1 keeps height and width, for a finer map; its parameters stay the same.

The published code pools with a window for one input size; here the recognizer pools, so that any number of frames
and any side fit.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d, pad

Block = Literal["basic", "bottleneck"]
Size = tuple[int, int, int]
ReLU = partial(nn.ReLU, inplace=True)  # as published; nothing else uses its input


@dataclass(frozen=True)
class Stage:
    """One row of residual blocks.

    Args:
        depth: number of blocks.
        inner: channels between the convolutions of a block.
        out: channels after a block.
        stride: divisor of height and width.
        groups: groups of the 3×3×3 convolution of a bottleneck: its cardinality.
    """

    depth: int
    inner: int
    out: int
    stride: int
    groups: int = 1


class ResNet3d(nn.Module):
    """Map preprocessed video to a map of features.

    Convolutions start from the Kaiming normal distribution (fan out, ReLU), batch norms from weight 1 and bias 0, as
    published. The draws come from torch's global generator, which the caller seeds.

    Args:
        stem_channels: channels of the stem.
        block: ``"basic"`` (3×3×3, 3×3×3) or ``"bottleneck"`` (1×1×1, 3×3×3, 1×1×1).
        stages: the stages in order; all but the first halve time.

    Attributes:
        num_features: channels F of the feature map.
    """

    def __init__(self, stem_channels: int, block: Block, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.num_features = stages[-1].out
        self.stem = _stem(stem_channels)
        self.stages = nn.Sequential()
        dim_in = stem_channels
        for index, stage in enumerate(stages):
            self.stages.append(_stage(stage, dim_in, block, time_stride=1 if index == 0 else 2))
            dim_in = stage.out
        self.apply(_initialise)

    def forward(self, video: Tensor) -> Tensor:
        """Return the feature map, floating ``[N, F, t, h, w]``, of a preprocessed video ``[N, 3, T, H, W]``."""
        features: Tensor = self.stages(self.stem(video))
        return features


class _Conv3d(nn.Conv3d):
    """A convolution that pads few frames, rows or columns by itself in bfloat16 on a CPU.

    Where the input is no longer than the kernel and torch does the padding, oneDNN's kernels for AVX-512 return wrong
    gradients of the weights, 75 % off and more, or write beyond their buffers and end the process (torch 2.14.1; seen
    with 3×3×3 and 2 frames, with 5×5×5 and 2 to 4, with 7×7×7 and 1 to 7, and with 7×7×7 and 2 rows).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of ``[N, C, T, H, W]``."""
        if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        few = [size <= kernel for size, kernel in zip(input.shape[2:], self.kernel_size, strict=True)]
        sides = [int(side) for side in self.padding]
        ours, theirs = ([side * (own == mine) for side, own in zip(sides, few, strict=True)] for mine in (True, False))
        padded = pad(input, [side for side in reversed(ours) for _ in range(2)]) if any(ours) else input
        return conv3d(padded, self.weight, self.bias, self.stride, theirs, self.dilation, self.groups)


def _stem(channels: int) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=_Conv3d(3, channels, kernel_size=7, stride=(1, 2, 2), padding=3, bias=False),
        norm=nn.BatchNorm3d(channels),
        act=ReLU(),
        pool=nn.MaxPool3d(kernel_size=3, stride=2, padding=1),
    )
    return nn.Sequential(layers)


def _stage(stage: Stage, dim_in: int, block: Block, time_stride: int) -> nn.Module:
    with warnings.catch_warnings():
        # fvcore, which pytorchvideo imports, calls torch.jit.script when imported; torch has deprecated that.
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.script", category=Warning)
        from pytorchvideo.models.resnet import create_bottleneck_block, create_res_stage

    one, three, strides = (1, 1, 1), (3, 3, 3), (time_stride, stage.stride, stage.stride)
    basic = block == "basic"
    result: nn.Module = create_res_stage(
        depth=stage.depth,
        dim_in=dim_in,
        dim_inner=stage.inner,
        dim_out=stage.out,
        bottleneck=_basic_branch if basic else create_bottleneck_block,
        conv_b=_Conv3d,
        conv_a_kernel_size=three if basic else one,
        conv_a_stride=strides if basic else one,
        conv_a_padding=one if basic else (0, 0, 0),
        conv_b_kernel_size=three,
        conv_b_stride=one if basic else strides,
        conv_b_padding=one,
        conv_b_num_groups=stage.groups,
        activation=ReLU,
    )
    return result


def _basic_branch(
    *,
    dim_in: int,
    dim_inner: int,
    dim_out: int,
    conv_a_kernel_size: Size,
    conv_a_stride: Size,
    conv_a_padding: Size,
    conv_b_kernel_size: Size,
    conv_b_padding: Size,
    **_for_bottlenecks: Any,
) -> nn.Sequential:
    """Build the two convolutions of a basic block where ``create_res_stage`` asks for a bottleneck."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv_a=_Conv3d(dim_in, dim_inner, conv_a_kernel_size, conv_a_stride, conv_a_padding, bias=False),
        norm_a=nn.BatchNorm3d(dim_inner),
        act_a=ReLU(),
        conv_b=_Conv3d(dim_inner, dim_out, conv_b_kernel_size, padding=conv_b_padding, bias=False),
        norm_b=nn.BatchNorm3d(dim_out),
    )
    return nn.Sequential(layers)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.BatchNorm3d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
