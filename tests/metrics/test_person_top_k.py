"""Person-wise top-k against values from the published code, a slow implementation, and cases with plain answers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from hoi_train.metrics.person_top_k import MEASURES, person_top_k
from tests.metrics import slow_triplets
from tests.metrics.hoi_cases import Case, case_of, evaluated_frames, predicted_row, random_case, true_row


def numbers(case: Case, threshold: float = 0.5, k: int = 2) -> dict[str, float]:
    result = person_top_k(evaluated_frames(case), thresholds=(threshold,), ks=(k,))
    values = {name: result.values[name].item() for name in MEASURES}
    return {**values, **{f"n_{name}": result.counted[name].item() for name in MEASURES}}


def near(expected: dict[str, Any]) -> Any:
    return pytest.approx({name: float(value) for name, value in expected.items()}, abs=1e-9, rel=0, nan_ok=True)


def test_top_k_equals_the_published_code(golden: Path) -> None:
    cases = json.loads((golden / "vidhoi_eval.json").read_text())["cases"]
    assert cases
    for case in cases:
        rows = case["expected"]["protocol2"]["person_top_k"]
        thresholds, ks = (tuple(sorted({row[name] for row in rows})) for name in ("threshold", "k"))
        result = person_top_k(evaluated_frames(case), thresholds=thresholds, ks=ks)
        for row in rows:
            at = thresholds.index(row["threshold"]), ks.index(row["k"])
            ours = {name: result.values[name][at] for name in MEASURES}
            ours |= {f"n_{name}": result.counted[name][at] for name in MEASURES}
            assert ours == near({name: row[name] for name in ours}), (case["name"], row["threshold"], row["k"])


@pytest.mark.parametrize("block", range(5))
def test_random_cases_equal_the_slow_implementation(block: int) -> None:
    thresholds, ks = (0.2, 0.5), (1, 3, 100)
    recalls = []
    for seed in range(10_000 + 200 * block, 10_000 + 200 * block + 200):
        case, least = random_case(seed), (0.5, 0.25)[seed % 2]
        result = person_top_k(evaluated_frames(case), thresholds=thresholds, ks=ks, iou_threshold=least)
        for i, threshold in enumerate(thresholds):
            for j, k in enumerate(ks):
                slow = slow_triplets.person_top_k(case, threshold, k, least)
                ours = {name: result.values[name][i, j] for name in MEASURES}
                ours |= {f"n_{name}": result.counted[name][i, j] for name in MEASURES}
                assert ours == near(slow), (seed, threshold, k)
                recalls.append(slow["recall"])
    assert sum(0 < recall < 1 for recall in recalls) > 50  # the cases are not all empty


def test_a_worked_example() -> None:
    # Labels 0 and 1; the two best are 1 (0.9) and 2 (0.6), both predicted at 0.5: one hit of two labels.
    case = case_of([true_row("a", [0, 1])], [predicted_row("a", [0.4, 0.9, 0.6])])
    half = {"recall": 1 / 2, "precision": 1 / 2, "accuracy": 1 / 3, "f1": 1 / 2}
    counted = dict.fromkeys((f"n_{name}" for name in MEASURES), 1)
    assert numbers(case) == near({**half, **counted})
    assert numbers(case, k=1) == near({**half, "precision": 1, "accuracy": 1 / 2, "f1": 2 / 3, **counted})
    assert numbers(case, threshold=0.1, k=3) == near(
        {**half, "recall": 1, "precision": 2 / 3, "accuracy": 2 / 3, "f1": 0.8} | counted
    )


def test_a_score_at_the_threshold_is_predicted_and_boxes_only_rank() -> None:
    case = case_of([true_row("a", [0])], [predicted_row("a", [0.5, 0, 0], person_score=0.1, object_score=0.1)])
    assert numbers(case)["recall"] == 1.0
    assert numbers(case, threshold=0.5000001)["recall"] == 0.0


def test_without_a_positive_prediction_precision_is_zero_where_a_label_was_kept() -> None:
    low = predicted_row("a", [0.4, 0.1, 0.1])
    assert numbers(case_of([true_row("a", [0])], [low]))["precision"] == 0.0
    assert numbers(case_of([true_row("a", [2])], [low]))["n_precision"] == 0  # kept are 0 and 1


def test_the_first_pair_takes_the_true_pair_whatever_its_score() -> None:
    first, better = predicted_row("a", [0.6, 0, 0]), predicted_row("a", [0.9, 0, 0], person_index=2)
    result = numbers(case_of([true_row("a", [0])], [first, better]))
    assert (result["recall"], result["precision"]) == (1.0, 0.5)  # the other person has no label, so no recall


def test_a_frame_without_predictions_counts_for_each_true_person() -> None:
    people = [true_row("b", [0], person_index=number) for number in (0, 4, 4)]
    case = case_of([true_row("a", [0]), *people], [predicted_row("a", [1, 0, 0])], ("a", "b"))
    result = numbers(case)
    assert [result[f"n_{name}"] for name in MEASURES] == [3, 1, 3, 3]
    assert [result[name] for name in MEASURES] == pytest.approx([1 / 3, 1, 1 / 3, 1 / 3])


@pytest.mark.parametrize("frames", [(), ("a",)])
def test_without_pairs_there_is_no_number(frames: tuple[str, ...]) -> None:
    result = numbers(case_of([], [], frames))
    assert all(math.isnan(result[name]) and result[f"n_{name}"] == 0 for name in MEASURES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": ()}, r"thresholds must be scores in 0..1, at least one, got \(\)"),
        ({"thresholds": (0.5, 5)}, r"thresholds must be scores in 0..1, at least one, got \(0.5, 5\)"),
        ({"ks": (0, 1)}, r"ks must be numbers of at least 1, at least one, got \(0, 1\)"),
        ({"ks": ()}, r"ks must be numbers of at least 1, at least one, got \(\)"),
        ({"iou_threshold": 2.0}, "iou_threshold must be above 0, at most 1, got 2.0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        person_top_k(evaluated_frames(case_of([], [])), **options)
