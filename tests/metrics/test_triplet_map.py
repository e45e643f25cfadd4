"""Triplet mAP against values from the published code, a slow implementation, and cases with plain answers."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hoi_train.metrics.candidates import log_sum, product
from hoi_train.metrics.triplet_map import Protocol, TripletClasses, TripletMap, triplet_map
from tests.conftest import ROOT
from tests.metrics import slow_triplets
from tests.metrics.hoi_cases import BOX, Case, case_of, evaluated_frames, predicted_row, random_case, true_row

PROTOCOLS: tuple[Protocol, ...] = ("vidhoi", "per_triplet")
COUNTS = ("n_gt", "n_pred", "n_tp")
VALUES = ("ap", "max_recall")


@pytest.fixture(scope="module")
def cases(golden: Path) -> list[dict[str, Any]]:
    """The published results, with their strings for what is not finite made numbers."""
    found: list[dict[str, Any]] = json.loads((golden / "vidhoi_eval.json").read_text())["cases"]
    assert found
    return found


def table(classes: TripletClasses) -> dict[tuple[int, ...], dict[str, float]]:
    return {
        tuple(triplet): {name: getattr(classes, name)[k].item() for name in (*COUNTS, *VALUES)}
        for k, triplet in enumerate(classes.triplets.tolist())
    }


def near(value: float | str) -> Any:
    return pytest.approx(float(value), abs=1e-9, rel=0, nan_ok=True)


def check_classes(classes: TripletClasses, expected: list[dict[str, Any]]) -> None:
    """Compare every number of every class; ours must also lie between the bounds of another order of equal scores."""
    ours = table(classes)
    assert len(ours) == len(classes) == len(expected)
    for row in expected:
        mine = ours[tuple(row["triplet"])]
        assert {name: mine[name] for name in COUNTS if name in row} == {
            name: row[name] for name in COUNTS if name in row
        }
        for name in VALUES:
            if name in row:
                assert mine[name] == near(row[name]), (row["triplet"], name)
        if "ap_tie_bounds" in row:
            lower, upper = row["ap_tie_bounds"]
            assert lower - 1e-9 <= mine["ap"] <= upper + 1e-9


def check_means(classes: TripletClasses, expected: dict[str, Any]) -> None:
    assert len(classes) == expected["n_classes"]
    assert classes.mean_ap == near(expected["mAP"])
    mean = classes.max_recall.mean() if len(classes) else math.nan
    assert mean == near(expected["mean_max_recall"])
    for bound, sign in zip(expected.get("mAP_tie_bounds", ()), (1, -1), strict=False):
        assert math.isnan(float(bound)) or sign * (classes.mean_ap - float(bound)) >= -1e-9


def cut_from_full(result: TripletMap) -> dict[str, TripletClasses]:
    """Return the classes of the full run by their group: equal to the groups under ``per_triplet`` only."""
    is_rare = result.full.n_gt < result.rare_below
    return {"rare": result.full.where(is_rare), "non_rare": result.full.where(~is_rare)}


def test_vidhoi_equals_the_published_code(cases: list[dict[str, Any]]) -> None:
    for case in cases:
        expected, evaluated = case["expected"]["protocol1"], evaluated_frames(case)
        for groups in expected["rare"].values():
            result = triplet_map(evaluated, "vidhoi", rare_below=groups["threshold"])
            check_classes(result.full, expected["full"]["classes"])
            check_means(result.full, expected["full"])
            for name, classes in (("rare", result.rare), ("non_rare", result.non_rare)):
                check_classes(classes, groups[name]["classes"])
                check_means(classes, groups[name])
                assert cut_from_full(result)[name].mean_ap == near(groups["partition_of_full"][name])


def test_per_triplet_equals_the_published_code(cases: list[dict[str, Any]]) -> None:
    for case in cases:
        expected, evaluated = case["expected"]["protocol2"]["map"], evaluated_frames(case)
        for groups in expected["rare"].values():
            result = triplet_map(evaluated, "per_triplet", rare_below=groups["threshold"])
            check_classes(result.full, expected["classes"])
            check_means(result.full, expected)
            for name, classes in (("rare", result.rare), ("non_rare", result.non_rare)):
                assert len(classes) == groups[f"n_{name}"]
                assert classes.mean_ap == near(groups[f"mAP_{name}"])
                assert table(cut_from_full(result)[name]) == table(classes)


def test_the_slow_implementation_equals_the_published_code(cases: list[dict[str, Any]]) -> None:
    for case in cases[::4]:
        expected = case["expected"]
        for groups in expected["protocol1"]["rare"].values():
            slow = slow_triplets.protocol1(case, groups["threshold"])
            for name, wanted in (("full", expected["protocol1"]["full"]), ("rare", groups["rare"])):
                assert slow_triplets.mean(row["ap"] for row in slow[name].values()) == near(wanted["mAP"])
        slow_map = slow_triplets.mean(row["ap"] for row in slow_triplets.protocol2(case).values())
        assert slow_map == near(expected["protocol2"]["map"]["mAP"])


@pytest.mark.parametrize("block", range(10))
def test_random_cases_equal_the_slow_implementation(block: int) -> None:
    hits = 0
    for seed in range(100 * block, 100 * block + 100):
        case, top, least, rare_below = random_case(seed), (1, 4, 100)[seed % 3], (0.5, 0.25)[seed % 2], seed % 4 + 1
        options: dict[str, Any] = {"top": top, "iou_threshold": least, "rare_below": rare_below}
        evaluated = evaluated_frames(case)
        official, later = (triplet_map(evaluated, protocol, **options) for protocol in PROTOCOLS)
        for name, slow in slow_triplets.protocol1(case, rare_below, top, least).items():
            check_equal(getattr(official, name), slow, seed)
        check_equal(later.full, slow_triplets.protocol2(case, top, least), seed)
        hits += int(official.full.n_tp.sum())
    assert hits > 50  # the cases are not all empty


def check_equal(classes: TripletClasses, slow: slow_triplets.Classes, seed: int) -> None:
    ours = table(classes)
    assert ours.keys() == slow.keys(), seed
    for triplet, wanted in slow.items():
        assert {name: ours[triplet][name] for name in COUNTS} == {name: wanted[name] for name in COUNTS}, seed
        assert [ours[triplet][name] for name in VALUES] == pytest.approx([wanted[name] for name in VALUES], abs=1e-12)


def measure(case: Case, protocol: Protocol, **options: Any) -> TripletClasses:
    return triplet_map(evaluated_frames(case), protocol, **options).full


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_perfect_prediction(protocol: Protocol) -> None:
    case = case_of([true_row("a", [2], object_class=7)], [predicted_row("a", [0, 0, 1], object_class=7)])
    assert table(measure(case, protocol)) == {
        (0, 2, 7): {"n_gt": 1, "n_pred": 1, "n_tp": 1, "ap": 1.0, "max_recall": 1.0}
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "changes",
    [
        {"object_class": 6},
        {"person_box": [0.0, 0.0, 9.0, 9.0]},
        {"object_box": [0.0, 0.0, 9.0, 9.0]},
        {"scores": [0, 1, 0], "top": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_is_wrong_in_one_thing_is_no_hit(protocol: Protocol, changes: dict[str, Any]) -> None:
    row = {**predicted_row("a", [0, 0, 1], object_class=7), **changes}
    top = row.pop("top", 100)
    classes = measure(case_of([true_row("a", [2], object_class=7)], [row]), protocol, top=top)
    assert (classes.n_gt.tolist(), classes.n_tp.tolist(), classes.mean_ap) == ([1], [0], 0.0)


@pytest.mark.parametrize(("protocol", "n_tp", "mean_ap"), [("vidhoi", [0, 1, 0], 1 / 3), ("per_triplet", [1, 1, 1], 1)])
def test_a_pair_with_three_predicates(protocol: Protocol, n_tp: list[int], mean_ap: float) -> None:
    case = case_of([true_row("a", [0, 1, 2])], [predicted_row("a", [0.8, 0.9, 0.7])])
    classes = measure(case, protocol)
    assert classes.triplets.tolist() == [[0, 0, 1], [0, 1, 1], [0, 2, 1]]
    assert classes.n_tp.tolist() == n_tp
    assert classes.mean_ap == pytest.approx(mean_ap)


@pytest.mark.parametrize(("protocol", "n_tp", "max_recall"), [("vidhoi", 1, 1.0), ("per_triplet", 2, 2.0)])
def test_a_prediction_twice(protocol: Protocol, n_tp: int, max_recall: float) -> None:
    row = predicted_row("a", [1, 0, 0])
    classes = measure(case_of([true_row("a", [0])], [row, row]), protocol)
    assert (classes.n_tp.tolist(), classes.max_recall.tolist(), classes.mean_ap) == ([n_tp], [max_recall], 1.0)


@pytest.mark.parametrize(("protocol", "ap"), [("vidhoi", 0.5), ("per_triplet", 1.0)])
def test_a_frame_without_ground_truth(protocol: Protocol, ap: float) -> None:
    predicted = [predicted_row("empty", [0.9, 0, 0]), predicted_row("a", [0.8, 0, 0])]
    assert measure(case_of([true_row("a", [0])], predicted, ("a", "empty")), protocol).mean_ap == ap


def test_rare_classes_are_evaluated_anew_by_vidhoi_only() -> None:
    # The frequent predicate, scored higher, takes the pair from the rare one in the full run.
    true = [true_row("a", [0, 1]), true_row("b", [0])]
    predicted = [predicted_row("a", [0.9, 0.8, 0]), predicted_row("b", [0.9, 0, 0])]
    official, later = (
        triplet_map(evaluated_frames(case_of(true, predicted, ("a", "b"))), protocol, rare_below=2)
        for protocol in PROTOCOLS
    )
    assert (official.rare.mean_ap, cut_from_full(official)["rare"].mean_ap) == (1.0, 0.0)
    assert (official.full.mean_ap, official.non_rare.mean_ap) == (0.5, 1.0)
    assert (later.rare.mean_ap, later.non_rare.mean_ap, later.full.mean_ap) == (1.0, 1.0, 1.0)
    assert (official.protocol, official.top, official.iou_threshold, official.rare_below) == ("vidhoi", 100, 0.5, 2)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("hits", "points"), [(3, 3), (4, 5), (6, 6), (7, 7), (9, 10), (10, 11)])
def test_a_recall_of_exactly_three_tenths_misses_its_point(protocol: Protocol, hits: int, points: int) -> None:
    frames = tuple("abcdefghij")
    predicted = [predicted_row(frame, [1, 0, 0]) for frame in frames[:hits]]
    classes = measure(case_of([true_row(frame, [0]) for frame in frames], predicted, frames), protocol)
    assert classes.max_recall.tolist() == [hits / 10]
    assert classes.mean_ap == pytest.approx(points / 11)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("frames", [(), ("a",)])
def test_an_empty_evaluation_has_no_class_and_no_mean(protocol: Protocol, frames: tuple[str, ...]) -> None:
    result = triplet_map(evaluated_frames(case_of([], [], frames)), protocol)
    for classes in (result.full, result.rare, result.non_rare, *cut_from_full(result).values()):
        assert len(classes) == 0
        assert classes.triplets.shape == (0, 3)
        assert math.isnan(classes.mean_ap)
        assert len(classes.max_recall) == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_of_equal_scores_the_later_pair_and_the_higher_predicate_are_kept(protocol: Protocol) -> None:
    case = case_of([true_row("a", [1, 2])], [predicted_row("a", [1, 1, 1])] * 2)
    assert measure(case, protocol, top=1).n_pred.tolist() == [0, 1]
    assert measure(case, protocol, top=4).n_pred.tolist() == [1, 2]


def test_scores_are_those_of_the_published_code_to_the_last_bit() -> None:
    draw = np.random.default_rng(0)
    rows = [
        predicted_row("a", draw.random(50), person_score=draw.random(), object_score=draw.random()) for _ in range(99)
    ]
    predicted = evaluated_frames(case_of([], rows, n_predicates=50)).predicted
    for ours, slow in ((log_sum, slow_triplets.log_score), (product, slow_triplets.product_score)):
        assert ours(predicted, np.arange(99)).tolist() == [[slow(row, j) for j in range(50)] for row in rows]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_iou_of_exactly_the_threshold_matches(protocol: Protocol) -> None:
    x0, y0, x1, y1 = BOX
    half = predicted_row("a", [1, 0, 0], person_box=[x0, y0, (x0 + x1) / 2, y1])
    case = case_of([true_row("a", [0])], [half])
    assert measure(case, protocol).mean_ap == 1.0
    assert measure(case, protocol, iou_threshold=0.5000001).mean_ap == 0.0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pairs_on_other_frames_can_be_left_out(protocol: Protocol) -> None:
    true, predicted = (
        [row("a", value), row("b", value)] for row, value in ((true_row, [0]), (predicted_row, [1, 0, 0]))
    )
    classes = measure(case_of(true, predicted, ("b",)), protocol)
    assert (classes.n_gt.tolist(), classes.n_pred.tolist(), classes.n_tp.tolist()) == ([1], [1], [1])


def test_boxes_without_area_match_nothing_not_even_themselves() -> None:
    flat = {"person_box": [5.0, 5.0, 5.0, 9.0]}
    case = case_of([true_row("a", [0], **flat)], [predicted_row("a", [1, 0, 0], **flat)])
    assert measure(case, "vidhoi").n_tp.tolist() == [0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "vidho"}, "protocol must be vidhoi or per_triplet, got 'vidho'; did you mean 'vidhoi'?"),
        ({"top": 0}, "top must be at least 1, got 0"),
        ({"rare_below": 0}, "rare_below must be at least 1, got 0"),
        ({"iou_threshold": 0.0}, "iou_threshold must be above 0, at most 1, got 0.0"),
        ({"iou_threshold": math.nan}, "iou_threshold must be above 0, at most 1, got nan"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        triplet_map(evaluated_frames(case_of([], [])), **options)


MEASUREMENT = """
import json, sys, time
import torch
torch.set_num_threads(1)
from torchvision.ops import box_iou
from hoi_train.metrics.candidates import log_sum, product
from hoi_train.metrics.triplet_map import triplet_map
from tests.memory import peak_gib
from tests.metrics.hoi_cases import vidhoi_sized

before = peak_gib()
evaluated = vidhoi_sized(int(sys.argv[1]))
start = time.process_time()
result = triplet_map(evaluated)
seconds = time.process_time() - start
print(json.dumps([seconds, peak_gib() - before, len(result.full), int(result.full.n_pred.sum())]))
"""


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize(
    "num_frames",
    [
        2_281,
        pytest.param(22_808, marks=pytest.mark.campaign),
    ],
)
def test_all_key_frames_of_vidhoi_take_minutes_at_most(num_frames: int) -> None:
    # 22,808 frames: 10 s of one core and 0.45 GiB, the pairs included (2-core machine under load).
    command = [sys.executable, "-c", MEASUREMENT, str(num_frames)]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    seconds, gib, classes, predictions = json.loads(output.splitlines()[-1])
    share = num_frames / 22_808
    assert classes > 500
    assert predictions > 90 * num_frames
    assert seconds < 180 * share
    assert gib < 4 * share
