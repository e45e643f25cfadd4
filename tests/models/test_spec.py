"""The door for backbones: networks of other shapes go through it, from the configuration to a trained step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from annotated_types import Ge
from torch import Tensor, nn

from hoi_train import config as configuration
from hoi_train.config import Model, RunConfig, load_config
from hoi_train.core.records import ClassList, Task
from hoi_train.core.schema import Component, EntryOf
from hoi_train.core.strict_yaml import ConfigError
from hoi_train.engine.experiment import check
from hoi_train.engine.train import train
from hoi_train.models.backbones import BACKBONES
from hoi_train.models.heads import LinearHead
from hoi_train.models.pooling import PairPool
from hoi_train.models.recognizer import build_recognizer
from hoi_train.models.spec import BackboneSpec, Extent
from hoi_train.tracking.events import read_events
from tests.small import make_config, make_data


class TokenNetwork(nn.Module):
    """Tubelets, a class token, one layer of attention: the token is the pooled feature."""

    def __init__(self, width: int, side: int, frames: int) -> None:
        super().__init__()
        self.patches = nn.Conv3d(3, width, (2, 16, 16), (2, 16, 16))
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, 1 + frames // 2 * (side // 16) ** 2, width))
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(width, 2, width, batch_first=True) for _ in range(2))

    def forward(self, video: Tensor) -> Tensor:
        tokens = self.patches(video).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(tokens), -1, -1), tokens], dim=1) + self.places
        for block in self.blocks:
            tokens = block(tokens)
        return tokens[:, 0]


class TwoPathways(nn.Module):
    """A slow pathway over every second frame beside a fast one over all, joined to one map."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = nn.Sequential(nn.Conv3d(3, 6, (1, 3, 3), (1, 8, 8)), nn.BatchNorm3d(6), nn.ReLU())
        self.fast = nn.Sequential(nn.Conv3d(3, 2, (3, 3, 3), (2, 8, 8), (1, 0, 0)), nn.BatchNorm3d(2), nn.ReLU())

    def forward(self, video: Tensor) -> Tensor:
        return torch.cat([self.slow(video[:, :, ::2]), self.fast(video)], dim=1)


def token_network(*, width: Annotated[int, Ge(2)] = 8, side: Annotated[int, Ge(16)] = 32) -> BackboneSpec:
    """Describe a network whose input is fixed by a hyper-parameter."""
    return BackboneSpec(
        build=partial(TokenNetwork, width, side, 4),
        num_features=width,
        groups={"patches": ("patches", "token", "places"), "block1": ("blocks.0",), "block2": ("blocks.1",)},
        gives="pooled",
        size=Extent.fixed(side),
        frames=Extent.fixed(4),
        preprocessing=("k3d_2018",),
    )


def two_pathways() -> BackboneSpec:
    """Describe a network with a map and frames in twos."""
    return BackboneSpec(
        build=TwoPathways,
        num_features=8,
        groups={"pathways": ("slow", "fast")},
        size=Extent(32, least=16),
        frames=Extent(4, multiple_of=2),
    )


TABLE: dict[str, Callable[..., BackboneSpec]] = {"token_network": token_network, "two_pathways": two_pathways}


class OtherModel(Model):
    backbone: Annotated[Component, EntryOf(BACKBONES | TABLE)]


class OtherConfig(RunConfig):
    model: OtherModel


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, manifest: Path) -> Callable[..., RunConfig]:
    """Register the networks above, each by its line in the table; return what loads the small run with changes."""
    for name, describe in TABLE.items():
        monkeypatch.setitem(BACKBONES, name, describe)
    monkeypatch.setattr(configuration, "RunConfig", OtherConfig)  # the schema is made when the module is imported

    def make(*overrides: str, **changes: Any) -> RunConfig:
        path = make_config(tmp_path, manifest, training={"epochs": 1, "batch_size": 12}, **changes)
        return load_config(
            path, ["data.num_frames=null", "data.train=augment", "data.evaluation=center_crop", *overrides]
        )

    return make


@pytest.mark.parametrize(
    ("backbone", "inputs"),
    [
        ("token_network", (4, 32, "k3d_2018")),
        ("{name: token_network, side: 48}", (4, 48, "k3d_2018")),
        ("two_pathways", (4, 32, "kinetics_2020")),
        ("tiny_resnext3d", (10, 112, "kinetics_2020")),
    ],
)
def test_the_data_settings_come_from_the_backbone(
    backbone: str, inputs: tuple[int, int, str], load: Callable[..., RunConfig]
) -> None:
    plain = load(f"model.backbone={backbone}").plain()
    data, model = plain["data"], plain["model"]
    assert (data["num_frames"], data["train"]["size"], model["preprocessing"]) == inputs
    assert data["evaluation"]["size"] == inputs[1]


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (
            [
                "model.backbone=token_network",
                "data.num_frames=8",
                "data.train.size=112",
                "model.preprocessing=cdb_released",
            ],
            [
                "data.num_frames: backbone 'token_network' takes exactly 4, got 8",
                "data.train.size: backbone 'token_network' takes exactly 32, got 112",
                "model.preprocessing: backbone 'token_network' takes k3d_2018, got 'cdb_released'",
            ],
        ),
        (
            ["model.backbone=two_pathways", "data.num_frames=7", "data.evaluation.size=8"],
            [
                "data.num_frames: backbone 'two_pathways' takes at least 1, a multiple of 2, got 7",
                "data.evaluation.size: backbone 'two_pathways' takes at least 16, got 8",
            ],
        ),
        (
            ["model.backbone=token_network", "model.pooling=roi"],
            [
                "model.pooling: 'roi' needs a feature map, and backbone 'token_network' gives pooled features; pairs "
                "need another backbone"
            ],
        ),
        (
            ["model.backbone=tiny_resnext3d", "model.freeze_through=stage5", "model.weights=w.pth"],
            [
                "model.freeze_through: backbone 'tiny_resnext3d' has no group of layers 'stage5'; from stem to top: "
                "stem, stage1, stage2, stage3, stage4; did you mean 'stage4'?"
            ],
        ),
        (
            ["model.backbone=tiny_resnext3d", "model.freeze_through=stem"],
            ["model.freeze_through: random weights would never train; give model.weights"],
        ),
        (
            ["model.backbone={name: tiny_resnext3d, width: 0.001}"],
            ["model.backbone: width 0.001 leaves a layer without channels; use at least 0.25"],
        ),
    ],
)
def test_what_does_not_fit_the_backbone_is_refused(
    overrides: list[str], messages: list[str], load: Callable[..., RunConfig], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    assert str(caught.value).splitlines() == [f"{tmp_path / 'small.yaml'}: {message}" for message in messages]


@pytest.mark.parametrize(
    ("backbone", "hint"),
    [
        ("tiny_resnext3d", "; published weights of tiny_resnext3d: https://github.com/kenshohara/3D-ResNets-PyTorch"),
        ("token_network", ""),
    ],
)
def test_weights_that_are_not_there_are_named_with_their_source(
    backbone: str, hint: str, load: Callable[..., RunConfig]
) -> None:
    with pytest.raises(ConfigError) as caught:
        check(load(f"model.backbone={backbone}", "model.weights=gone.pth"))
    assert str(caught.value) == f"model.weights: gone.pth is not there, or not a file{hint}"


@pytest.mark.parametrize("groups", [{"slow": ("slow",)}, {"slow": ("slow",), "all": ("slow", "fast")}])
def test_every_parameter_is_in_one_group_of_layers(groups: dict[str, tuple[str, ...]]) -> None:
    task = Task("verb", ClassList(("take", "put")), "single")
    spec = replace(two_pathways(), groups=groups)
    with pytest.raises(ValueError, match=r"parameter (slow|fast)\.0\.weight of the backbone must be in one group"):
        build_recognizer(spec, {"verb": task}, {"verb": LinearHead}, "k3d_2018")


def test_pairs_need_a_map() -> None:
    task = Task("predicate", ClassList(("hold",)), "multi", of="pair")
    pooling = partial(PairPool, objects=False)
    with pytest.raises(ValueError, match="tasks of human-object pairs need a feature map, and this backbone gives"):
        build_recognizer(token_network(), {"predicate": task}, {"predicate": LinearHead}, "k3d_2018", pooling)


@pytest.mark.parametrize("backbone", TABLE)
def test_it_is_checked_and_trained(backbone: str, load: Callable[..., RunConfig]) -> None:
    config = load(f"model.backbone={backbone}", "optimizer={name: adamw, lr: 1e-3, head_factor: 10, layer_decay: 0.5}")
    check(config)
    assert train(config, quiet=True) == 0
    events = read_events(config.run_dir / "events.jsonl")
    assert [row["step"] for row in events if row["event"] == "train"] == [1]


@pytest.mark.parametrize("method", [{"name": "fit"}, {"name": "crt", "epochs": 1}])
def test_frozen_layers_keep_their_weights_and_statistics(
    method: dict[str, Any], load: Callable[..., RunConfig], tmp_path: Path
) -> None:
    """Whatever a method lets train: the first stage of ``crt`` lets everything."""
    torch.manual_seed(1)
    spec = BACKBONES["tiny_resnext3d"](cardinality=2)
    given = {f"backbone.{key}": tensor for key, tensor in spec.build().state_dict().items()}
    torch.save(given, tmp_path / "given.pth")
    fine_tuning = [
        f"model.weights={tmp_path / 'given.pth'}",
        "model.freeze_through=stage2",
        "optimizer={name: adamw, lr: 1e-3, head_factor: 10, layer_decay: 0.5}",
        "training.epochs=2",
        "data.num_frames=4",
        "data.train.size=32",
        "data.evaluation.size=32",
        f"method={json.dumps(method)}",
    ]
    config = load(*fine_tuning)
    check(config)
    assert train(config, quiet=True) == 0
    first, last = sorted((config.run_dir / "checkpoints").iterdir())
    trained = torch.load(last / "model.pt", weights_only=True)
    kept = {key for key, tensor in given.items() if torch.equal(trained[key], tensor)}
    frozen = tuple(f"backbone.{member}." for group in ("stem", "stage1", "stage2") for member in spec.groups[group])
    assert kept == {key for key in given if key.startswith(frozen)}

    again = load(*fine_tuning, f"runs={tmp_path / 'again'}")
    shutil.copytree(first, again.run_dir / "checkpoints" / first.name)
    assert train(again, quiet=True) == 0
    resumed = torch.load(again.run_dir / "checkpoints" / last.name / "model.pt", weights_only=True)
    assert all(torch.equal(resumed[key], tensor) for key, tensor in trained.items())


@pytest.mark.parametrize(
    ("extent", "inside", "outside", "text"),
    [
        (Extent(112), (1, 999), (0, -1), "at least 1"),
        (Extent.fixed(16), (16,), (15, 17, 32), "exactly 16"),
        (
            Extent(64, least=32, most=96, multiple_of=32),
            (32, 64, 96),
            (0, 48, 128),
            "at least 32, at most 96, a multiple of 32",
        ),
    ],
)
def test_extents(extent: Extent, inside: tuple[int, ...], outside: tuple[int, ...], text: str) -> None:
    assert [value in extent for value in (*inside, *outside)] == [True] * len(inside) + [False] * len(outside)
    assert str(extent) == text


def test_a_default_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="the default 10 is not at least 1, a multiple of 4"):
        Extent(10, multiple_of=4)
