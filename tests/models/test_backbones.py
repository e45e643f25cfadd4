"""Backbones: sizes of the published networks, shapes, signatures, learning."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import typing

import pytest
import torch
from torch import nn

from hoi_train.models.backbones import BACKBONES, resnet3d, resnext3d, tiny_resnext3d
from hoi_train.models.preprocessing import PREPROCESSING
from hoi_train.models.spec import lies_in

# Parameters without the classifier. The ResNeXt and ResNet rows are the published code's models counted with its
# classifier taken off (https://github.com/kenshohara/3D-ResNets-PyTorch: ResNeXt at d9847ea, ResNet at 540a0ea).
PARAMETERS = {
    "resnet3d_18": 33_203_904,
    "resnet3d_34": 63_513_536,
    "resnet3d_50": 46_198_976,
    "resnet3d_101": 85_245_120,
    "resnet3d_152": 117_403_840,
    "resnet3d_200": 126_603_456,
    "resnext3d_50": 25_865_664,
    "resnext3d_101": 48_340_816 - (2048 * 400 + 400),
    "resnext3d_152": 65_359_296,
    "resnet3d": 46_198_976,
    "resnext3d": 47_521_216,
    "tiny_resnext3d": 385_184,
}


@pytest.mark.parametrize("name", BACKBONES)
def test_parameter_count(name: str) -> None:
    with torch.device("meta"):
        backbone = BACKBONES[name]().build()
    assert sum(parameter.numel() for parameter in backbone.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", BACKBONES)
def test_hyper_parameters_are_keyword_only_with_defaults_and_resolvable_types(name: str) -> None:
    parameters = inspect.signature(BACKBONES[name]).parameters
    assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in parameters.values())
    assert parameters.keys() <= typing.get_type_hints(BACKBONES[name], include_extras=True).keys()


@pytest.mark.parametrize("name", BACKBONES)
def test_the_specification_is_true_of_the_module(name: str) -> None:
    spec = BACKBONES[name]()
    with torch.device("meta"):
        backbone = spec.build()
        output = backbone(torch.zeros(1, 3, spec.frames.default, spec.size.default, spec.size.default))
    assert output.shape[:2] == (1, spec.num_features)
    assert output.ndim == {"map": 5, "pooled": 2}[spec.gives]
    assert set(spec.preprocessing) <= PREPROCESSING.keys()
    owners = [
        [group for group, members in spec.groups.items() if lies_in(key, members)]
        for key, _ in backbone.named_parameters()
    ]
    assert all(len(groups) == 1 for groups in owners)
    assert list(dict.fromkeys(group for (group,) in owners)) == list(spec.groups), "from stem to top"


@pytest.mark.parametrize(("frames", "side"), [(16, 112), (10, 224)])
def test_published_network_takes_both_input_sizes(frames: int, side: int) -> None:
    backbone = BACKBONES["resnext3d_101"]().build().eval()
    with torch.inference_mode():
        features = backbone(torch.zeros(1, 3, frames, side, side))
    assert features.shape == (1, 2048, 1, -(-side // 32), -(-side // 32))


@pytest.mark.parametrize(("frames", "side"), [(1, 32), (1, 1), (33, 70)])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_any_input_size_gives_the_rounded_up_map(block: typing.Any, frames: int, side: int) -> None:
    backbone = resnet3d(stage_depths=(1, 2, 1, 1), block=block, width=0.125).build().eval()
    features = backbone(torch.zeros(1, 3, frames, side, side))
    assert backbone.num_features == (256 if block == "bottleneck" else 64)
    assert features.shape == (1, backbone.num_features, -(-frames // 16), -(-side // 32), -(-side // 32))


@pytest.mark.parametrize("build", [resnet3d, resnext3d, tiny_resnext3d])
@pytest.mark.parametrize(
    ("strides", "cells"), [((1, 2, 2, 1), (6, 8)), ((1, 2, 1, 1), (12, 16)), ((1, 1, 1, 1), (24, 32))]
)
def test_strides_make_the_map_finer_and_nothing_else(
    build: typing.Any, strides: tuple[int, ...], cells: tuple[int, int]
) -> None:
    with torch.device("meta"):
        published, backbone = build().build(), build(strides=strides).build()
        features = backbone(torch.zeros(1, 3, 16, 96, 128))
    assert features.shape == (1, backbone.num_features, 1, *cells)
    shapes = [{key: value.shape for key, value in net.state_dict().items()} for net in (published, backbone)]
    assert shapes[0] == shapes[1]


def test_the_first_stage_divides_too_where_told() -> None:
    backbone = resnet3d(stage_depths=(1, 1, 1, 1), block="basic", width=0.125, strides=(2, 2, 2, 2)).build().eval()
    assert backbone(torch.zeros(1, 3, 16, 64, 128)).shape == (1, 64, 1, 1, 2)


def test_cardinality_and_width_shape_the_groups() -> None:
    backbone = resnext3d(stage_depths=(1, 1, 1, 1), cardinality=4, width=0.5).build()
    grouped = [m for m in backbone.modules() if isinstance(m, nn.Conv3d) and m.groups > 1]
    assert [(m.groups, m.in_channels) for m in grouped] == [(4, 8), (4, 16), (4, 32), (4, 64)]
    assert backbone.num_features == 1024


def test_width_without_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"width 0\.1 leaves a layer without channels; use at least 0\.25"):
        resnext3d(width=0.1)


def test_initialisation_is_kaiming_fan_out() -> None:
    torch.manual_seed(0)
    backbone = resnext3d(stage_depths=(1, 1, 1, 1), cardinality=8).build()
    for module in backbone.modules():
        if isinstance(module, nn.Conv3d):
            fan_out = module.out_channels * module.kernel_size[0] ** 3  # torch's count, which leaves groups aside
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
        elif isinstance(module, nn.BatchNorm3d):
            assert module.weight.eq(1).all()
            assert module.bias.eq(0).all()


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_gradient_reaches_every_parameter(block: typing.Any) -> None:
    torch.manual_seed(0)
    backbone = resnet3d(stage_depths=(2, 1, 1, 1), block=block, width=0.125).build()
    backbone(torch.randn(2, 3, 8, 48, 48)).square().mean().backward()
    silent = [name for name, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_tiny_network_learns_the_order_of_time() -> None:
    """A bright square appears, or the same film runs backwards: only the order of frames tells them apart."""
    torch.manual_seed(0)
    appears = torch.randn(8, 3, 8, 40, 40)
    for film, corner in zip(appears, torch.randint(0, 24, (8, 2)).tolist(), strict=True):
        film[:, 4:, corner[0] : corner[0] + 16, corner[1] : corner[1] + 16] += 4
    video = torch.cat([appears, appears.flip(2)]).to(memory_format=torch.channels_last_3d)
    target = torch.arange(2).repeat_interleave(8)
    model = nn.Sequential(tiny_resnext3d().build(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(512, 2))
    model.to(memory_format=torch.channels_last_3d)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(15):
        loss = nn.functional.cross_entropy(model(video), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 < losses[0], losses


BFLOAT16_GRADIENTS = """
import torch
from torch import nn
from hoi_train.models.backbones import resnet3d, resnext3d

def compare(conv, _, output):
    output.register_hook(lambda received: right.update({conv: gradient_of(conv, received)}))

def gradient_of(conv, received):
    with torch.autocast("cpu", enabled=False):
        return torch.nn.grad.conv3d_weight(
            seen[conv].double(), conv.weight.shape, received.double(), conv.stride, conv.padding, groups=conv.groups
        )

torch.manual_seed(0)
seen, right = {}, {}
for backbone in (
    resnext3d(stage_depths=(1, 2, 2, 2), cardinality=8, width=0.25).build(),
    resnet3d(stage_depths=(1, 2, 2, 2), block="basic", width=0.25).build(),
):
    backbone.to(memory_format=torch.channels_last_3d)
    convolutions = {name: module for name, module in backbone.named_modules() if isinstance(module, nn.Conv3d)}
    for conv in convolutions.values():
        conv.register_forward_pre_hook(lambda conv, inputs: seen.update({conv: inputs[0].detach().clone()}))
        conv.register_forward_hook(compare)
    for frames in (*range(1, 11), 16):
        backbone.zero_grad()
        video = torch.randn(2, 3, frames, 64, 64).to(memory_format=torch.channels_last_3d)
        with torch.autocast("cpu", torch.bfloat16):
            features = backbone(video)
        (features.float() * torch.randn(features.shape)).sum().backward()
        for name, conv in convolutions.items():
            error = (conv.weight.grad - right[conv]).norm() / right[conv].norm()
            assert error < 0.02, f"{frames} frames, {name}: {error:.1%} off"
"""


@pytest.mark.process
def test_bfloat16_gradients_are_right_for_any_number_of_frames() -> None:
    # Of its own process: where torch writes beyond a buffer, it is the process that ends.
    environment = {**os.environ, "MALLOC_CHECK_": "3", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", BFLOAT16_GRADIENTS], check=True, env=environment, timeout=300)
