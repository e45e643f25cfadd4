"""The recognizer: logits of every task, features, layouts, errors."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hoi_train.core.batches import PairBatch
from hoi_train.core.records import ClassList, Task
from hoi_train.models.backbones import tiny_resnext3d
from hoi_train.models.heads import HEADS
from hoi_train.models.pooling import POOLING
from hoi_train.models.recognizer import Recognizer, build_recognizer

TASKS = {
    "verb": Task("verb", ClassList(("take", "put", "open")), "single"),
    "noun": Task("noun", ClassList(("cup", "plate")), "multi"),
}


def build(**changes: Any) -> Recognizer:
    arguments: dict[str, Any] = {
        "spec": tiny_resnext3d(),
        "tasks": TASKS,
        "heads": {"verb": partial(HEADS["linear"], dropout=0.5), "noun": partial(HEADS["linear"], prior=0.01)},
        "preprocessing": "kinetics_2020",
    }
    return build_recognizer(**arguments | changes)


PAIR_TASKS = {"contact": Task("contact", ClassList(("hold", "next_to", "watch")), "multi", of="pair")}


def build_for_pairs(**changes: Any) -> Recognizer:
    arguments: dict[str, Any] = {
        "spec": tiny_resnext3d(strides=(1, 2, 2, 1)),
        "tasks": PAIR_TASKS,
        "heads": {"contact": HEADS["linear"]},
        "pooling": partial(POOLING["roi"], features=32),
        "num_objects": 5,
    }
    return build(**arguments | changes)


def pair_batch(clips: list[int], frames: int = 8, side: int = 64) -> PairBatch:
    generator, m = torch.Generator().manual_seed(1), len(clips)
    corners = side * torch.rand(m, 2, frames, 2, 2, generator=generator)
    boxes = torch.cat([corners.amin(3), corners.amax(3)], dim=3)
    rows, of = torch.arange(m), torch.tensor(clips, dtype=torch.int64)
    return PairBatch(clips=of, boxes=boxes, key_frames=rows % frames, objects=rows % 5, indices=rows)


def clip_batch(n: int = 2, frames: int = 8, side: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, frames, side, side), dtype=torch.uint8, generator=generator)


def test_logits_of_every_task_come_from_the_same_pooled_features() -> None:
    model, video = build().eval(), clip_batch()
    features, logits = model.features(video), model(video)
    pooled = nn.AdaptiveAvgPool3d(1)(model.backbone(model.normalize(video))).flatten(1)
    torch.testing.assert_close(features, pooled)
    assert {task: tuple(values.shape) for task, values in logits.items()} == {"verb": (2, 3), "noun": (2, 2)}
    torch.testing.assert_close(logits["noun"], model.heads["noun"](features))


def test_gradient_reaches_every_parameter() -> None:
    model = build()
    sum(logits.square().mean() for logits in model(clip_batch()).values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("along", ["key", "trajectory"])
def test_logits_and_gradients_of_pairs(along: str) -> None:
    model = build_for_pairs(pooling=partial(POOLING["roi"], features=32, along=along))
    assert (model.num_features, model.heads["contact"].linear.in_features) == (32, 32)
    video, pairs = clip_batch(), pair_batch([1, 1, 0])
    assert model.features(video, pairs).shape == (3, 32)
    logits = model(video=video, pairs=pairs)["contact"]
    assert logits.shape == (3, 3)
    logits.square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_batch_without_pairs_has_no_logits_and_leaves_the_network_alone() -> None:
    model = build_for_pairs()
    logits = model(clip_batch(), pair_batch([]))["contact"]
    assert logits.shape == (0, 3)
    logits.sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or p.grad.any()] == []


def test_only_the_pairs_of_a_changed_clip_change() -> None:
    model, video, pairs = build_for_pairs().eval(), clip_batch(), pair_batch([0, 1, 0, 1])
    other = torch.cat([video[:1], 255 - video[1:]])
    before, after = model(video, pairs)["contact"], model(other, pairs)["contact"]
    changed = (before - after).abs().amax(dim=1) > 1e-5
    assert changed.tolist() == [False, True, False, True]


def test_pairs_in_channels_last_and_bfloat16() -> None:
    model, video, pairs = build_for_pairs().eval(), clip_batch(), pair_batch([0, 1, 1])
    expected = model(video, pairs)["contact"]
    model.to(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(model(video, pairs)["contact"], expected, rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(video, pairs)["contact"]
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1)


def test_loss_falls_on_one_batch_of_both_tasks() -> None:
    torch.manual_seed(0)
    model, video = build(heads=dict.fromkeys(TASKS, HEADS["linear"])), clip_batch(6, frames=4, side=32)
    verb, noun = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]] * 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    losses = []
    for _ in range(12):
        logits = model(video)
        loss = nn.functional.cross_entropy(logits["verb"], verb)
        loss = loss + nn.functional.binary_cross_entropy_with_logits(logits["noun"], noun)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0], losses


def test_channels_last_runs_in_that_layout_and_agrees() -> None:
    model, video = build().eval(), clip_batch()
    expected = model(video)["verb"]
    model.to(memory_format=torch.channels_last_3d)
    assert model.backbone(model.normalize(video)).is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(model(video)["verb"], expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_autocast_gives_finite_logits() -> None:
    model = build().eval()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(clip_batch())["verb"]
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


@pytest.mark.slow
def test_one_graph_for_torch_compile() -> None:
    model, video = build().eval(), clip_batch(1, 2, 32)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(video)["verb"], model(video)["verb"])


def test_state_dict_names_are_those_that_checkpoints_keep() -> None:
    keys = list(build().state_dict())
    assert keys[0] == "backbone.stem.conv.weight"
    assert keys[-1] == "heads.noun.linear.bias"
    assert "backbone.stages.3.res_blocks.1.branch2.conv_b.weight" in keys
    assert {key.split(".")[0] for key in keys} == {"backbone", "heads"}


def test_state_dict_names_of_a_network_for_pairs() -> None:
    keys = list(build_for_pairs().state_dict())
    assert [key for key in keys if not key.startswith("backbone.")] == [
        "pooling.geometry.weight",
        "pooling.geometry.bias",
        "pooling.objects.weight",
        "pooling.joint.weight",
        "pooling.joint.bias",
        "heads.contact.linear.weight",
        "heads.contact.linear.bias",
    ]


def test_pairs_are_asked_for_and_refused() -> None:
    with pytest.raises(ValueError, match=r"the recognizer labels human-object pairs, but was given no pairs"):
        build_for_pairs()(clip_batch())
    with pytest.raises(ValueError, match=r"the recognizer labels whole clips, but was given pairs"):
        build()(clip_batch(), pair_batch([0, 1]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"preprocessing": "k3d_2108"},
            r"preprocessing 'k3d_2108' is unknown; did you mean 'k3d_2018'\?; allowed: kin",
        ),
        ({"heads": {"verb": HEADS["linear"]}}, r"every task needs one head: tasks verb, noun; heads verb$"),
        (
            {"tasks": PAIR_TASKS, "heads": {"contact": HEADS["linear"]}},
            r"^contact labels human-object pairs, but the pooling gives features of whole clips; choose a pooling of "
            r"human-object pairs: roi$",
        ),
        (
            {"pooling": POOLING["roi"], "num_objects": 5},
            r"^verb, noun labels whole clips, but the pooling gives features of human-object pairs; choose a pooling "
            r"of whole clips: mean$",
        ),
        (
            {"tasks": TASKS | {"noun": Task("noun", ClassList(("on",)), "multi", of="pair")}},
            r"labels whole clips or human-object pairs, not both: noun labels human-object pairs",
        ),
        (
            {"tasks": {"type": TASKS["verb"]}, "heads": {"type": HEADS["linear"]}},
            r"task name 'type' cannot name a head; rename the task",
        ),
        (
            {"tasks": {"a.b": TASKS["verb"]}, "heads": {"a.b": HEADS["linear"]}},
            r"task name 'a\.b' cannot name a head; rename the task",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**changes)
