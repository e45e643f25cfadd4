"""Pooling: means over boxes by hand, times, geometry, pairs in any order and none, gradients, mixed precision."""

from __future__ import annotations

import inspect
import math
import typing
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hoi_train.core.batches import PairBatch
from hoi_train.models.pair_geometry import NUM_GEOMETRY, describe
from hoi_train.models.pooling import POOLING, MeanPool, PairPool
from hoi_train.models.regions import region_means

SIDE = 64


def make_pairs(
    rows: list[tuple[int, int, list[list[list[float]]]]], num_frames: int = 8, objects: list[int] | None = None
) -> PairBatch:
    """Make pairs of rows (clip, key frame, boxes ``[2, T or 1, 4]``)."""
    boxes = [torch.tensor(each).expand(2, num_frames, 4) for _, _, each in rows]
    return PairBatch(
        clips=torch.tensor([clip for clip, _, _ in rows], dtype=torch.int64),
        boxes=torch.stack(boxes) if boxes else torch.empty(0, 2, num_frames, 4),
        key_frames=torch.tensor([key for _, key, _ in rows], dtype=torch.int64),
        objects=torch.tensor(objects or [0] * len(rows), dtype=torch.int64),
        indices=torch.arange(len(rows)),
    )


def random_pairs(clips: list[int], num_frames: int = 8, num_objects: int = 5) -> PairBatch:
    m, generator = len(clips), torch.Generator().manual_seed(1)
    corners = SIDE * torch.rand(m, 2, num_frames, 2, 2, generator=generator)
    return PairBatch(
        clips=torch.tensor(clips, dtype=torch.int64),
        boxes=torch.cat([corners.amin(3), corners.amax(3)], dim=3),
        key_frames=torch.randint(num_frames, (m,), generator=generator),
        objects=torch.randint(num_objects, (m,), generator=generator),
        indices=torch.arange(m),
    )


def pair_pool(channels: int = 1, **hyper: Any) -> PairPool:
    torch.manual_seed(0)
    return PairPool(channels, 5, **{"features": 16} | hyper)


def regions_of(feature_map: Tensor, pairs: PairBatch, along: str = "key") -> list[list[float]]:
    """Return the means over person, object and both of a map of one channel, ``[M, 3]``."""
    means: list[list[float]] = pair_pool(along=along).regions(feature_map, pairs, SIDE).tolist()
    return means


@pytest.mark.parametrize("name", POOLING)
def test_contract_of_every_pooling(name: str) -> None:
    pooling = POOLING[name](16, 5)
    n, clips = 3, [2, 0, 0, 1]
    features = pooling(torch.rand(n, 16, 2, 4, 4), random_pairs(clips), SIDE, 8)
    assert features.shape == ({"clip": n, "pair": len(clips)}[pooling.of], pooling.num_features)
    first, second, *hyper = inspect.signature(POOLING[name]).parameters.values()
    assert (first.name, second.name) == ("in_features", "num_objects")
    assert all(p.kind is p.KEYWORD_ONLY for p in hyper)
    assert {p.name for p in hyper} <= typing.get_type_hints(POOLING[name].__init__, include_extras=True).keys()


def test_mean_pool_is_the_mean_and_has_no_state() -> None:
    feature_map = torch.randn(2, 3, 2, 4, 4)
    pooling = MeanPool(3)
    torch.testing.assert_close(pooling(feature_map), nn.AdaptiveAvgPool3d(1)(feature_map).flatten(1))
    assert not pooling.state_dict()


def test_means_over_person_object_and_both_by_hand() -> None:
    """Cells are 8 pixels; where a box keeps half a cell inside a block of ones, its samples see ones alone."""
    feature_map = torch.zeros(2, 1, 1, 8, 8)
    feature_map[1, 0, 0, 2:6, 1:5] = 1
    inside, outside, across = [12.0, 20.0, 36.0, 44.0], [48.0, 56.0, 60.0, 64.0], [24.0, 24.0, 56.0, 40.0]
    pairs = make_pairs([(1, 3, [[inside], [outside]]), (0, 3, [[inside], [outside]]), (1, 3, [[across], [inside]])])
    first, of_empty_map, third = regions_of(feature_map, pairs)
    # The box around both, (12, 20)-(60, 64), is 6 × 5.5 cells: 6 × 6 samples.
    x, y = 1.5 + torch.arange(6) + 0.5, 2.5 + (torch.arange(6) + 0.5) * 5.5 / 6
    around = (share(y - 0.5, 2, 5)[:, None] * share(x - 0.5, 1, 4)).mean().item()
    assert first == pytest.approx([1.0, 0.0, around])
    assert of_empty_map == [0.0, 0.0, 0.0]
    # (24, 24)-(56, 40) lies on columns 3 to 6 of rows 3 and 4; the first two columns are ones.
    assert third[:2] == [0.5, 1.0]


def share(at: Tensor, first: int, last: int) -> Tensor:
    """Return how much bilinear samples of one axis see of cells ``first`` to ``last``."""
    return torch.minimum((at - (first - 1)), (last + 1) - at).clamp(0, 1)


def test_the_box_around_both_is_seen_whole() -> None:
    feature_map = torch.zeros(1, 1, 1, 8, 8)
    feature_map[0, 0, 0, 3:5, 3:5] = 1  # between the two boxes
    pairs = make_pairs([(0, 0, [[[0.0, 0.0, 16.0, 16.0]], [[48.0, 48.0, 64.0, 64.0]]])])
    assert regions_of(feature_map, pairs) == [pytest.approx([0.0, 0.0, 4 / 64])]


def test_height_and_width_are_not_mixed_up() -> None:
    feature_map = torch.arange(4.0).view(1, 1, 1, 1, 4)  # one row, four columns of 16 pixels
    pairs = make_pairs([(0, 0, [[[32.0, 0.0, 48.0, 64.0]], [[16.0, 0.0, 32.0, 64.0]]])])
    assert regions_of(feature_map, pairs) == [[2.0, 1.0, 1.5]]


@pytest.mark.parametrize(("key", "num_frames", "expected"), [(0, 8, 0), (3, 8, 0), (4, 8, 1), (7, 8, 1), (3, 10, 0)])
def test_the_frame_of_the_map_is_that_of_the_key_frame(key: int, num_frames: int, expected: int) -> None:
    feature_map = torch.tensor([0.0, 1.0]).view(1, 1, 2, 1, 1).expand(1, 1, 2, 8, 8)
    boxes = [[[0.0, 0.0, 16.0, 16.0]], [[8.0, 8.0, 32.0, 32.0]]]
    assert regions_of(feature_map, make_pairs([(0, key, boxes)], num_frames)) == [[expected] * 3]


def test_the_key_frames_box_is_looked_at() -> None:
    columns = torch.arange(8.0).expand(1, 1, 2, 8, 8)
    person = [[8.0 * frame, 0.0, 8.0 * frame + 8, 64.0] for frame in range(8)]  # column f in frame f
    for key in range(8):
        (found,) = regions_of(columns, make_pairs([(0, key, [person, person])]))
        assert found == [key] * 3


def test_the_trajectory_is_averaged_over_the_maps_frames_by_hand() -> None:
    columns = torch.arange(8.0).expand(8, 8)
    feature_map = torch.stack([columns, 10 * columns])[None, None]  # frames 0-3 and 4-7, with middles 2 and 6
    person = [[8.0 * frame, 0.0, 8.0 * frame + 8, 64.0] for frame in range(8)]
    still = [[0.0, 0.0, 16.0, 64.0]] * 8
    (found,) = regions_of(feature_map, make_pairs([(0, 0, [person, still])]), "trajectory")
    # Both: columns 0 to 2 in frame 2, 0 to 6 in frame 6.
    assert found == pytest.approx([(2 + 60) / 2, (0.5 + 5) / 2, (1 + 30) / 2])


def test_boxes_beyond_the_view_are_cut_and_wholly_outside_give_zeros() -> None:
    columns = torch.arange(1.0, 9.0).expand(1, 1, 1, 8, 8)
    beyond = [[[-40.0, -9.0, 8.0, 70.0]], [[56.0, 0.0, 200.0, 64.0]]]
    outside = [[[-20.0, 0.0, 0.0, 64.0]], [[70.0, 0.0, 99.0, 64.0]]]
    no_area = [[[64.0, 10.0, 64.0, 30.0]], [[0.0, 0.0, 8.0, 64.0]]]
    found = regions_of(columns, make_pairs([(0, 0, beyond), (0, 0, outside), (0, 0, no_area)]))
    assert found[0] == [1.0, 8.0, 4.5]
    assert found[1] == [0.0, 0.0, 4.5]
    assert found[2][:2] == [0.0, 1.0]
    pool = pair_pool()
    assert pool(columns, make_pairs([(0, 0, outside), (0, 0, no_area)]), SIDE, 8).isfinite().all()


def test_a_box_out_of_view_for_a_while_counts_as_zeros_in_the_average() -> None:
    away = [[0.0, 0.0, 64.0, 64.0]] * 4 + [[64.0, 0.0, 64.0, 64.0]] * 4
    pairs = make_pairs([(0, 0, [away, away])])
    assert regions_of(torch.ones(1, 1, 2, 8, 8), pairs, "trajectory") == [[0.5, 0.5, 0.5]]


def test_geometry_by_hand() -> None:
    person = [[0.0, 0.0, 32.0, 64.0], [16.0, 0.0, 48.0, 64.0]]
    thing = [[16.0, 32.0, 48.0, 64.0], [16.0, 32.0, 32.0, 48.0]]
    (found,) = describe(torch.tensor([[person, thing]]), torch.tensor([0]), SIDE).tolist()
    assert len(found) == NUM_GEOMETRY
    centers, sizes = [0.25, 0.5, 0.5, 0.75], [0.5, 1.0, 0.5, 0.5]
    offset = [0.25 / 0.75, 0.25 / 1.0]  # in the box of 48 × 64 around both
    moved = [0.25, 0.0, -0.125, -0.125, -0.125 / 0.5 - offset[0], 0.125 / 1.0 - offset[1]]
    iou = 16 * 32 / (32 * 64 + 32 * 32 - 16 * 32)
    assert found == pytest.approx([*centers, *sizes, *offset, 0.0, math.log(0.5), iou, *moved])


def test_geometry_of_boxes_without_area_is_finite_and_of_equal_boxes_neutral() -> None:
    point, box = [5.0, 5.0, 5.0, 5.0], [8.0, 8.0, 24.0, 40.0]
    boxes = torch.tensor([[[point], [point]], [[point], [box]], [[box], [box]]])
    found = describe(boxes, torch.zeros(3, dtype=torch.int64), SIDE)
    assert found.isfinite().all()
    assert found[2, 8:].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("along", ["key", "trajectory"])
def test_order_of_pairs_and_of_clips_has_no_say(along: str) -> None:
    feature_map, clips = torch.randn(3, 4, 2, 8, 8), [0, 2, 1, 2, 0, 0]
    pool, pairs = pair_pool(4, along=along).eval(), random_pairs(clips)
    found = pool(feature_map, pairs, SIDE, 8)
    order = torch.tensor([4, 1, 5, 0, 3, 2])
    torch.testing.assert_close(pool(feature_map, pairs.map(lambda rows: rows[order]), SIDE, 8), found[order])
    shuffled = torch.tensor([2, 0, 1])
    elsewhere = PairBatch(shuffled.argsort()[pairs.clips], *list(vars(pairs).values())[1:])
    torch.testing.assert_close(pool(feature_map[shuffled], elsewhere, SIDE, 8), found)
    alone = pairs.map(lambda rows: rows[3:4])
    torch.testing.assert_close(pool(feature_map, alone, SIDE, 8), found[3:4])


def test_the_class_of_the_object_matters_only_where_it_is_given() -> None:
    feature_map, box = torch.rand(1, 1, 1, 8, 8), [[[0.0, 0.0, 32.0, 32.0]], [[8.0, 8.0, 40.0, 64.0]]]
    pairs = make_pairs([(0, 0, box), (0, 0, box)], objects=[1, 4])
    one, other = pair_pool(objects=True)(feature_map, pairs, SIDE, 8)
    assert (one - other).abs().max() > 0.01
    blind = pair_pool(objects=False)
    torch.testing.assert_close(*blind(feature_map, pairs, SIDE, 8))
    assert not [key for key in blind.state_dict() if "objects" in key]


@pytest.mark.parametrize("along", ["key", "trajectory"])
def test_no_pairs_give_no_rows_and_gradients_of_zero(along: str) -> None:
    pool, feature_map = pair_pool(4, along=along, dropout=0.5), torch.randn(2, 4, 2, 8, 8, requires_grad=True)
    features = pool(feature_map, make_pairs([]), SIDE, 8)
    assert features.shape == (0, 16)
    features.sum().backward()
    gradients = [feature_map.grad, *(parameter.grad for parameter in pool.parameters())]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_gradient_reaches_the_cells_under_the_boxes_alone_and_every_parameter() -> None:
    pool, feature_map = pair_pool(2), torch.rand(2, 2, 1, 8, 8, requires_grad=True)
    pairs = make_pairs([(1, 0, [[[0.0, 0.0, 16.0, 16.0]], [[8.0, 8.0, 32.0, 24.0]]])], objects=[3])
    pool(feature_map, pairs, SIDE, 8).square().sum().backward()
    assert feature_map.grad is not None
    touched = feature_map.grad.abs().sum((1, 2))
    assert not touched[0].any()
    assert touched[1, :3, :4].gt(0).all()
    assert not touched[1, 4:].any()
    assert not touched[1, :, 5:].any()
    assert all(p.grad is not None and p.grad.any() for p in pool.parameters())


def test_gradient_of_means() -> None:
    maps = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[0.0, 0, 5, 4], [1.3, 0.2, 2.1, 3.9], [2, 1, 2, 3]], dtype=torch.float64)
    numbers = torch.tensor([1, 0, 0])
    assert torch.autograd.gradcheck(lambda maps: region_means(maps, numbers, boxes), maps)


def test_means_and_geometry_are_computed_in_float32_under_autocast() -> None:
    pool, pairs = pair_pool(4).eval(), random_pairs([0, 1, 1])
    feature_map = torch.randn(2, 4, 2, 8, 8).to(torch.bfloat16)
    seen: dict[str, Tensor] = {}
    pool.joint.register_forward_pre_hook(lambda _, inputs: seen.update(joint=inputs[0]))
    exact = pool(feature_map.float(), pairs, SIDE, 8)
    expected = seen["joint"]
    with torch.autocast("cpu", torch.bfloat16):
        features = pool(feature_map, pairs, SIDE, 8)
    assert features.dtype == torch.bfloat16
    torch.testing.assert_close(seen["joint"], expected, rtol=0, atol=0)
    torch.testing.assert_close(features.float(), exact, rtol=0.05, atol=0.05)


def test_float64_stays() -> None:
    pool = pair_pool(4).double()
    assert pool(torch.rand(1, 4, 2, 8, 8, dtype=torch.float64), random_pairs([0]), SIDE, 8).dtype == torch.float64


def test_dropout_acts_in_training_only_and_all_is_repeatable() -> None:
    pool, feature_map, pairs = pair_pool(4, dropout=0.5), torch.rand(2, 4, 2, 8, 8), random_pairs([0, 1, 1, 0])
    assert not torch.equal(pool(feature_map, pairs, SIDE, 8), pool(feature_map, pairs, SIDE, 8))
    pool.eval()
    assert torch.equal(pool(feature_map, pairs, SIDE, 8), pool(feature_map, pairs, SIDE, 8))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the data name no classes of objects; set objects to false"):
        PairPool(4, 0)
    assert PairPool(4, 0, objects=False).num_features == 512
    with pytest.raises(ValueError, match=r"the video has 4 frames, the pairs have boxes of 8"):
        pair_pool(4)(torch.rand(1, 4, 1, 8, 8), random_pairs([0]), SIDE, 4)
