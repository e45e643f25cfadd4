"""The published Kinetics weights of the 3D-ResNets (https://github.com/kenshohara/3D-ResNets-PyTorch, 2018 and 2020).

The files name their tensors ``conv1.weight``, ``layer1.0.bn1.bias``, ``layer1.0.downsample.0.weight``, ``fc.weight``;
those of 2018 have DataParallel's prefix ``module.`` and no batch counters of batch norms.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from torch import Tensor

from hoi_train.models.spec import PublishedWeights

_LAYERS = {
    "conv1": "branch2.conv_a",
    "bn1": "branch2.norm_a",
    "conv2": "branch2.conv_b",
    "bn2": "branch2.norm_b",
    "conv3": "branch2.conv_c",
    "bn3": "branch2.norm_c",
    "downsample.0": "branch1_conv",
    "downsample.1": "branch1_norm",
}


def _adapt(saved: Mapping[str, Tensor], classifier: str | None) -> dict[str, Tensor]:
    outside = {"conv1": "backbone.stem.conv", "bn1": "backbone.stem.norm", "fc": classifier or "fc"}

    def rename(key: str) -> str:
        block = re.fullmatch(r"layer(\d)\.(\d+)\.(\w+|downsample\.\d)\.(\w+)", key)
        if block and block[3] in _LAYERS:
            stage, index, layer, kind = block.groups()
            return f"backbone.stages.{int(stage) - 1}.res_blocks.{index}.{_LAYERS[layer]}.{kind}"
        module, _, kind = key.rpartition(".")
        return f"{outside[module]}.{kind}" if module in outside else key

    return {rename(key): tensor for key, tensor in saved.items()}


def _preprocessing(names: Collection[str]) -> str | None:
    if "module.conv1.weight" in names and "module.bn1.num_batches_tracked" not in names:
        return "k3d_2018"
    if "conv1.weight" in names and "bn1.num_batches_tracked" in names:
        return "kinetics_2020"
    return None


KINETICS = PublishedWeights("https://github.com/kenshohara/3D-ResNets-PyTorch", _adapt, _preprocessing)
