"""Weights: the published layout, this program's own, reports, and files that must be refused."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hoi_train.core.records import ClassList, Task
from hoi_train.models.backbones import BACKBONES, resnet3d, resnext3d, tiny_resnext3d
from hoi_train.models.heads import LinearHead
from hoi_train.models.pooling import PairPool
from hoi_train.models.preprocessing import PREPROCESSING
from hoi_train.models.recognizer import Recognizer, build_recognizer
from hoi_train.models.spec import BackboneSpec
from hoi_train.models.weights import WeightsError, load_weights


def recognizer(spec: BackboneSpec, preprocessing: str = "k3d_2018", **classes: int) -> Recognizer:
    tasks = {name: Task(name, ClassList(tuple(map(str, range(count)))), "single") for name, count in classes.items()}
    return build_recognizer(spec, tasks, dict.fromkeys(tasks, LinearHead), preprocessing)


def norm(name: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def published_shapes(num_classes: int, depths: tuple[int, ...], cardinality: int = 32) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published 3D-ResNeXt, in its order, written down without this program's network."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7, 7), **norm("bn1", 64)}
    entering = 64
    for layer, depth in enumerate(depths):
        group, leaving = 4 * 2**layer, 256 * 2**layer
        inner = cardinality * group
        for index in range(depth):
            block = f"layer{layer + 1}.{index}"
            shapes |= {f"{block}.conv1.weight": (inner, entering, 1, 1, 1), **norm(f"{block}.bn1", inner)}
            shapes |= {f"{block}.conv2.weight": (inner, group, 3, 3, 3), **norm(f"{block}.bn2", inner)}
            shapes |= {f"{block}.conv3.weight": (leaving, inner, 1, 1, 1), **norm(f"{block}.bn3", leaving)}
            if index == 0:
                shapes |= {f"{block}.downsample.0.weight": (leaving, entering, 1, 1, 1)}
                shapes |= norm(f"{block}.downsample.1", leaving)
            entering = leaving
    return shapes | {"fc.weight": (num_classes, 2048), "fc.bias": (num_classes,)}


def formula(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Return the golden file's weights: see ``formula`` there."""
    phase = (zlib.crc32(key.encode()) + seed) % 10007
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    s = torch.sin(0.731 * i + 0.37 * phase + 0.001 * i * (phase % 13 + 1)).reshape(shape)
    if key.endswith("running_var"):
        return 1 + 0.2 * s
    if key.endswith(("running_mean", "bias")):
        return 0.05 * s
    if len(shape) == 1:
        return 0.8 + 0.1 * s
    return s * 1.414 * (2 / torch.Size(shape[1:]).numel()) ** 0.5


def save_published(path: Path, state: dict[str, Tensor], arch: str = "resnext-101") -> Path:
    content = {"epoch": 151, "arch": arch, "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return path


def small_published(num_classes: int, depths: tuple[int, ...] = (1, 1, 1, 1)) -> dict[str, Tensor]:
    shapes = published_shapes(num_classes, depths, cardinality=1)
    return {f"module.{key}": formula(key, shape, 0).float() for key, shape in shapes.items()}


def small_network() -> BackboneSpec:
    return resnext3d(stage_depths=(1, 1, 1, 1), cardinality=1)


@pytest.mark.slow
@pytest.mark.parametrize("case", range(3))
def test_published_resnext_101_gives_the_official_logits(case: int, golden: Path, tmp_path: Path) -> None:
    rows = json.loads((golden / "k3d_resnext101.json").read_text())["cases"]
    row = rows[case]
    assert len(rows) == 3, "a case is untested"
    shapes = published_shapes(row["num_classes"], (3, 4, 23, 3))
    state = {f"module.{key}": formula(f"module.{key}", shape, row["seed"]) for key, shape in shapes.items()}
    assert len(state) == row["num_tensors"]
    path = save_published(tmp_path / "resnext-101-kinetics.pth", state)
    del state
    model = recognizer(BACKBONES["resnext3d_101"](), task=row["num_classes"]).double().eval()

    report = load_weights(model, path)

    path.unlink()  # 390 MB, which pytest would keep
    assert len(report.loaded) == row["num_tensors"]
    assert report.missing == report.mismatched == report.unexpected == ()
    i = torch.arange(torch.Size(row["input_shape"]).numel(), dtype=torch.float64)
    video = (100 * torch.sin(0.0137 * i + row["seed"]) + 20 * torch.sin(1.7 * i)).reshape(row["input_shape"])
    with torch.inference_mode():
        logits = model.heads["task"](model.backbone(video).mean(dim=(2, 3, 4)))[0]
    expected = torch.tensor(row["logits"], dtype=torch.float64)
    assert ((logits - expected).abs() / expected.abs()).max().item() <= 1e-9


def test_head_of_another_size_is_left_out_and_reported(tmp_path: Path) -> None:
    path = save_published(tmp_path / "k.pth", small_published(400))
    model = recognizer(small_network(), "cdb_released", verb=19)
    before = model.heads["verb"].linear.weight.clone()
    report = load_weights(model, path)
    assert torch.equal(model.backbone.stem.conv.weight, small_published(400)["module.conv1.weight"])
    assert torch.equal(model.heads["verb"].linear.weight, before)
    assert str(report) == (
        f"weights from {path}: 85 tensors loaded\n"
        "  2 of another shape, initial values kept: heads.verb.linear.weight (file [400, 2048], model [19, 2048]), "
        "heads.verb.linear.bias (file [400], model [19])\n"
        "  published with preprocessing k3d_2018, used here with cdb_released"
    )


def test_several_heads_keep_their_values_and_the_classifier_is_left_out(tmp_path: Path) -> None:
    path = save_published(tmp_path / "k.pth", small_published(19))
    report = load_weights(recognizer(small_network(), verb=19, noun=19), path)
    assert report.missing == tuple(f"heads.{t}.linear.{p}" for t in ("verb", "noun") for p in ("weight", "bias"))
    assert report.unexpected == ("fc.weight", "fc.bias")
    assert str(report).splitlines()[1:] == [
        "  4 not in the file, initial values kept: " + ", ".join(report.missing),
        "  2 in the file but not in the model, left out: fc.weight, fc.bias",
    ]


def test_checkpoints_saved_on_a_gpu_load_on_a_machine_without(tmp_path: Path) -> None:
    path = save_published(tmp_path / "k.pth", small_published(7))
    pickled = path.read_bytes()
    from_gpu = pickled.replace(b"ctorch\nFloatStorage\n", b"ctorch.cuda\nFloatStorage\n")
    from_gpu = from_gpu.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert from_gpu.count(b"cuda:0") >= 1
    path.write_bytes(from_gpu)
    model = recognizer(small_network(), verb=7)
    assert len(load_weights(model, path).loaded) == 87
    assert torch.equal(model.heads["verb"].linear.bias, small_published(7)["module.fc.bias"])


def test_published_layout_of_2020_with_basic_blocks(tmp_path: Path) -> None:
    """No prefix, batch counters, two convolutions a block, no projection in the first stage."""
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (64, 3, 7, 7, 7), **norm("bn1", 64)}
    for layer, channels in enumerate((64, 128, 256, 512), start=1):
        entering = max(64, channels // 2)
        shapes |= {
            f"layer{layer}.0.conv1.weight": (channels, entering, 3, 3, 3),
            **norm(f"layer{layer}.0.bn1", channels),
        }
        shapes |= {
            f"layer{layer}.0.conv2.weight": (channels, channels, 3, 3, 3),
            **norm(f"layer{layer}.0.bn2", channels),
        }
        if layer > 1:
            shapes |= {f"layer{layer}.0.downsample.0.weight": (channels, entering, 1, 1, 1)}
            shapes |= norm(f"layer{layer}.0.downsample.1", channels)
    shapes |= {"fc.weight": (700, 512), "fc.bias": (700,)}
    state = {key: formula(key, shape, 0).float() for key, shape in shapes.items()}
    counters = {key.replace("running_mean", "num_batches_tracked") for key in shapes if key.endswith("running_mean")}
    state |= dict.fromkeys(counters, torch.tensor(5))
    path = tmp_path / "r3d10_K_200ep.pth"
    torch.save({"epoch": 200, "arch": "resnet-10", "state_dict": state}, path)
    model = recognizer(resnet3d(stage_depths=(1, 1, 1, 1), block="basic"), "k3d_2018", task=700)
    report = load_weights(model, path)
    assert (len(report.loaded), report.missing, report.unexpected) == (len(state), (), ())
    assert report.published_with == "kinetics_2020"


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_own_state_dict_round_trip(prefix: str, wrapped: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    source, target = recognizer(tiny_resnext3d(), verb=3, noun=4), recognizer(tiny_resnext3d(), verb=3, noun=4)
    source(torch.randint(0, 256, (2, 3, 4, 32, 32), dtype=torch.uint8))  # moves the running statistics
    state = {prefix + key: tensor for key, tensor in source.state_dict().items()}
    torch.save({"state_dict": state} if wrapped else state, tmp_path / "own.pth")
    report = load_weights(target, tmp_path / "own.pth")
    assert str(report) == f"weights from {tmp_path / 'own.pth'}: {len(state)} tensors loaded"
    assert all(torch.equal(value, target.state_dict()[key]) for key, value in source.state_dict().items())


def test_the_pooling_of_pairs_is_loaded_where_it_fits_and_starts_anew_where_not(tmp_path: Path) -> None:
    def network(num_objects: int, pairs: bool = True) -> Recognizer:
        backbone, pooling = tiny_resnext3d(strides=(1, 2, 2, 1)).build(), PairPool(512, num_objects, features=8)
        heads = {"contact": LinearHead(8, 2)}
        return Recognizer(backbone, heads, PREPROCESSING["k3d_2018"], pooling if pairs else None)

    names = [f"pooling.{name}" for name in PairPool(512, 1).state_dict()]
    torch.save(network(3).state_dict(), tmp_path / "own.pth")
    torch.save(network(3, pairs=False).state_dict(), tmp_path / "clips.pth")
    assert not load_weights(network(3), tmp_path / "own.pth").missing
    other = load_weights(network(4), tmp_path / "own.pth")
    assert [row.key for row in other.mismatched] == ["pooling.objects.weight"]
    assert list(load_weights(network(3), tmp_path / "clips.pth").missing) == names
    assert list(load_weights(network(3, pairs=False), tmp_path / "own.pth").unexpected) == names


def test_own_weights_go_to_the_heads_of_the_same_task_and_size(tmp_path: Path) -> None:
    torch.save(recognizer(tiny_resnext3d(), verb=3, noun=4, tool=2).state_dict(), tmp_path / "own.pth")
    report = load_weights(recognizer(tiny_resnext3d(), verb=3, noun=5, scene=6), tmp_path / "own.pth")
    assert {"heads.verb.linear.weight", "heads.verb.linear.bias"} <= set(report.loaded)
    assert [row.key for row in report.mismatched] == ["heads.noun.linear.weight", "heads.noun.linear.bias"]
    assert report.missing == ("heads.scene.linear.weight", "heads.scene.linear.bias")
    assert report.unexpected == ("heads.tool.linear.weight", "heads.tool.linear.bias")


def test_another_depth_is_refused_with_the_name_of_the_right_backbone(tmp_path: Path) -> None:
    """Every tensor of a ResNeXt-50 is found in a ResNeXt-101's file, in the same shape: it must not load."""
    state = {
        f"module.{key}": torch.zeros(()).expand(shape) for key, shape in published_shapes(9, (3, 4, 23, 3)).items()
    }
    path = save_published(tmp_path / "k.pth", state)
    with torch.device("meta"):
        model = recognizer(BACKBONES["resnext3d_50"](), verb=9)
    with pytest.raises(WeightsError) as caught:
        load_weights(model, path)
    assert str(caught.value) == (
        f"{path} does not fit the model's backbone; it fits backbone 'resnext3d_101'. Of the model's tensors 0 are "
        "missing and 0 of another shape; 255 of the file are not in the model "
        "(backbone.stages.2.res_blocks.6.branch2.conv_a.weight, "
        "backbone.stages.2.res_blocks.6.branch2.norm_a.weight, backbone.stages.2.res_blocks.6.branch2.norm_a."
        "bias, backbone.stages.2.res_blocks.6.branch2.norm_a.running_mean and 251 more)"
    )


def test_a_backbone_of_no_table_entry_is_refused_and_the_model_left_alone(tmp_path: Path) -> None:
    path = save_published(tmp_path / "k.pth", small_published(9, depths=(1, 1, 1, 2)))
    model = recognizer(tiny_resnext3d(), verb=9)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(
        WeightsError, match=r"it fits none of the backbones at their defaults.*conv\.weight \(file \[64"
    ):
        load_weights(model, path)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


class Hostile:
    """What an attacker puts into a pickle: a command to run on loading."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("hostile-code-ran",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_is_refused(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    content = {"state_dict": small_published(9), "optimizer": Hostile()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError) as caught:
        load_weights(recognizer(small_network(), verb=9), path)
    assert str(caught.value) == (
        f"{path} is refused: it would run {os.mkdir.__module__}.mkdir when loaded, and only tensors and plain "
        "values are loaded. Get the file from its publisher again; save your own with torch.save(model.state_dict(), …)"
    )
    assert not Path("hostile-code-ran").exists()


@pytest.mark.parametrize("content", [b"", b"<html>quota exceeded</html>", b"PK\x03\x04 no archive", b"\x80\x04\x95 x"])
def test_a_file_that_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "k.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"k\.pth is not a PyTorch checkpoint, or is damaged or cut short; get the"):
        load_weights(recognizer(small_network(), verb=9), path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.01, 0.5, 0.999])
def test_a_download_cut_short_is_refused(zipped: bool, kept: float, tmp_path: Path) -> None:
    path = tmp_path / "k.pth"
    torch.save({"state_dict": small_published(9)}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(WeightsError, match=r"is damaged or cut short"):
        load_weights(recognizer(small_network(), verb=9), path)


def test_a_damaged_pickle_is_refused(tmp_path: Path) -> None:
    path = save_published(tmp_path / "k.pth", small_published(9))
    path.write_bytes(path.read_bytes().replace(b"_rebuild_tensor_v2", b"_rebuild_tensor"))  # torch: a TypeError
    with pytest.raises(WeightsError, match=r"is damaged or cut short"):
        load_weights(recognizer(small_network(), verb=9), path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"epoch": 3, "net": 4}, "a dict with epoch, net"),
        ({"state_dict": {}}, "a dict with state_dict"),
        ({0: torch.zeros(2)}, "a dict with 0"),
        (torch.zeros(2), "a Tensor"),
        ([1, 2], "a list"),
    ],
)
def test_what_holds_no_state_dict_is_refused(content: Any, found: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "k.pth")
    with pytest.raises(WeightsError, match=rf"k\.pth holds {found}, not a state dict; save one with torch\.save"):
        load_weights(recognizer(small_network(), verb=9), tmp_path / "k.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights file .*gone\.pth does not exist or is not a file; check the path"):
        load_weights(recognizer(small_network(), verb=9), tmp_path / "gone.pth")
