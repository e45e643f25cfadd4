"""All metrics of a task against scikit-learn, and our own rules for what scikit-learn leaves open."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, confusion_matrix, precision_recall_fscore_support
from torch import Tensor

from hoi_train.core.records import ClassList, EpochStats, LabelKind, Task, TaskStats
from hoi_train.metrics import task_stats

EXACT = {"rtol": 0, "atol": 1e-12, "equal_nan": True}
GROUPS = {"majority": (0,), "minority": (1, 2)}


def task_of(labels: LabelKind, num_classes: int) -> Task:
    return Task("verb", ClassList(tuple(f"c{i}" for i in range(num_classes))), labels)


def measure(
    labels: LabelKind, logits: Tensor, target: Tensor, groups: dict[str, tuple[int, ...]] | None = None, **options: Any
) -> TaskStats:
    return task_stats(task_of(labels, logits.shape[1]), logits, target, groups or {}, loss=0.0, **options)


@st.composite
def single_label_cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    """Few rows and few distinct logits: empty classes, one class only, single rows and ties all come up."""
    num_rows, num_classes = draw(st.integers(1, 12)), draw(st.integers(1, 7))
    logits = draw(st.lists(st.integers(-3, 3), min_size=num_rows * num_classes, max_size=num_rows * num_classes))
    used = draw(st.integers(1, num_classes))
    target = draw(st.lists(st.integers(0, used - 1), min_size=num_rows, max_size=num_rows))
    group = tuple(sorted(draw(st.sets(st.integers(0, num_classes - 1)))))
    return torch.tensor(logits).view(num_rows, num_classes) / 2, torch.tensor(target), group


@st.composite
def multi_label_cases(draw: st.DrawFn) -> tuple[Tensor, Tensor, tuple[int, ...], float]:
    num_rows, num_classes = draw(st.integers(1, 12)), draw(st.integers(2, 5))
    size = num_rows * num_classes
    logits = draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size))
    target = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    group = tuple(sorted(draw(st.sets(st.integers(0, num_classes - 1)))))
    threshold = draw(st.sampled_from([0.0, 0.3, 0.5, 0.9]))
    shape = (num_rows, num_classes)
    return torch.tensor(logits).view(shape) / 2, torch.tensor(target).view(shape).float(), group, threshold


def sklearn_rates(truth: np.ndarray, predicted: np.ndarray, **options: Any) -> dict[str, np.ndarray]:
    precision, recall, f1, support = precision_recall_fscore_support(truth, predicted, zero_division=0, **options)
    vectors = {"precision": precision, "recall": recall, "f1": f1}
    return {name: np.where(support > 0, vector, np.nan) for name, vector in vectors.items()}


def sklearn_ap(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    columns = range(truth.shape[1])
    return np.array(
        [average_precision_score(truth[:, c], scores[:, c]) if truth[:, c].any() else np.nan for c in columns]
    )


def check(stats: TaskStats, expected: dict[str, np.ndarray], group: tuple[int, ...]) -> None:
    for name, vector in expected.items():
        np.testing.assert_allclose(stats.vectors[name].numpy(), vector, err_msg=name, **EXACT)
        scalar = "map" if name == "ap" else f"{name}_macro"
        np.testing.assert_allclose(stats.scalars[scalar], mean(vector), err_msg=scalar, **EXACT)
    for name, scalar in (("recall", "recall_some"), ("precision", "precision_some"), ("ap", "map_some")):
        np.testing.assert_allclose(stats.scalars[scalar], mean(expected[name][list(group)]), err_msg=scalar, **EXACT)
    counted = ~np.isnan(expected["recall"])
    assert stats.scalars["classes_counted"] == counted.sum() == (stats.support > 0).sum()
    assert stats.scalars["classes_counted_some"] == counted[list(group)].sum()


def mean(vector: np.ndarray) -> float:
    counted = vector[~np.isnan(vector)]
    return float(counted.mean()) if len(counted) else math.nan


@given(case=single_label_cases())
def test_single_label_equals_scikit_learn(case: tuple[Tensor, Tensor, tuple[int, ...]]) -> None:
    logits, target, group = case
    ids = list(range(logits.shape[1]))
    stats = measure("single", logits, target, {"some": group})
    predicted, truth = logits.numpy().argmax(1), target.numpy()  # numpy takes the first of equal maxima too
    assert stats.confusion is not None
    if len(ids) > 1:  # scikit-learn warns about the matrix of a single class even when the labels are given
        np.testing.assert_array_equal(stats.confusion.numpy(), confusion_matrix(truth, predicted, labels=ids))
    expected = sklearn_rates(truth, predicted, labels=ids)
    expected["ap"] = sklearn_ap(np.eye(len(ids))[truth], logits.double().softmax(1).numpy())
    check(stats, expected, group)
    assert stats.scalars["top1"] == (predicted == truth).mean()


@given(case=multi_label_cases())
def test_multi_label_equals_scikit_learn(case: tuple[Tensor, Tensor, tuple[int, ...], float]) -> None:
    logits, target, group, threshold = case
    stats = measure("multi", logits, target, {"some": group}, threshold=threshold)
    scores, truth = logits.double().sigmoid().numpy(), target.numpy().astype(int)
    expected = sklearn_rates(truth, scores > threshold)
    expected["ap"] = sklearn_ap(truth, scores)
    check(stats, expected, group)
    assert stats.confusion is None
    assert "top1" not in stats.scalars


@given(case=single_label_cases())
def test_top_k_ranks_equal_logits_by_class_id(case: tuple[Tensor, Tensor, tuple[int, ...]]) -> None:
    logits, target, _ = case
    stats = measure("single", logits, target)
    hits = {1: 0, 5: 0}
    for row, truth in zip(logits.tolist(), target.tolist(), strict=True):
        ranking = sorted(range(len(row)), key=lambda class_id: (-row[class_id], class_id))
        for k in hits:
            hits[k] += truth in ranking[:k]
    assert (stats.scalars["top1"], stats.scalars["top5"]) == (hits[1] / len(logits), hits[5] / len(logits))


def test_a_worked_example() -> None:
    # Class 0: one row of two found. Class 1: its row found, but predicted twice. Class 2: never predicted.
    # Class 3: without support, and predicted once.
    target = torch.tensor([0, 0, 1, 2])
    logits = torch.tensor([[5.0, 0, 0, 0], [0, 5, 0, 0], [0, 5, 0, 0], [0, 0, 0, 5]])
    groups = {"majority": (0, 1), "minority": (2, 3)}
    stats = measure("single", logits, target, groups)
    assert stats.num_samples == 4
    assert stats.support.tolist() == [2, 1, 1, 0]
    assert [repr(v) for v in stats.vectors["recall"].tolist()] == ["0.5", "1.0", "0.0", "nan"]
    assert [repr(v) for v in stats.vectors["precision"].tolist()] == ["1.0", "0.5", "0.0", "nan"]
    assert stats.confusion is not None
    assert stats.confusion.tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    wanted = {"loss": 0.0, "top1": 0.5, "recall_macro": 0.5, "precision_macro": 0.5, "classes_counted": 3}
    wanted |= {"recall_majority": 0.75, "precision_majority": 0.75, "recall_minority": 0.0, "precision_minority": 0.0}
    wanted |= {"classes_counted_majority": 2, "classes_counted_minority": 1, "top5": 1.0}
    assert {name: stats.scalars[name] for name in wanted} == wanted


@pytest.mark.parametrize("labels", ["single", "multi"])
def test_without_rows_every_average_is_nan_and_no_class_is_counted(labels: LabelKind) -> None:
    target = torch.empty(0, dtype=torch.int64) if labels == "single" else torch.empty(0, 3)
    stats = measure(labels, torch.empty(0, 3), target, GROUPS)
    counts = {name: value for name, value in stats.scalars.items() if name.startswith("classes_counted")}
    assert set(counts.values()) == {0}
    assert all(math.isnan(value) for name, value in stats.scalars.items() if name not in {*counts, "loss"})
    assert all(vector.isnan().all() for vector in stats.vectors.values())


def test_a_group_without_support_is_nan_and_the_record_says_none() -> None:
    stats = measure("single", torch.eye(3)[[0, 0]], torch.tensor([0, 0]), GROUPS)
    assert stats.scalars["recall_majority"] == 1.0
    assert math.isnan(stats.scalars["recall_minority"])
    record = EpochStats(0, "val", {"verb": stats}).to_json()
    assert record["scalars"]["verb/recall_minority"] is None
    assert record["tasks"]["verb"]["recall"] == [1.0, None, None]


def test_a_task_of_one_class_is_measured() -> None:
    single = measure("single", torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64))
    assert (single.scalars["top1"], single.scalars["top5"], single.scalars["recall_macro"]) == (1.0, 1.0, 1.0)
    multi = measure("multi", torch.tensor([[1.0], [1.0], [-1.0]]), torch.tensor([[1.0], [0.0], [1.0]]))
    assert (multi.scalars["recall_macro"], multi.scalars["precision_macro"]) == (0.5, 0.5)


def test_a_score_at_the_threshold_is_not_predicted() -> None:
    assert measure("multi", torch.zeros(1, 1), torch.ones(1, 1)).scalars["recall_macro"] == 0.0


def test_saturated_scores_are_still_ranked() -> None:
    logits = torch.tensor([[900.0], [800.0], [-800.0]])
    assert measure("multi", logits, torch.tensor([[1.0], [0.0], [0.0]])).scalars["map"] == 1.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_floating_type_is_accepted_and_measured_in_float64(dtype: torch.dtype) -> None:
    stats = measure("single", torch.eye(3, dtype=dtype, requires_grad=True), torch.arange(3))
    assert stats.scalars["top1"] == 1.0
    assert {vector.dtype for vector in stats.vectors.values()} == {torch.float64}


@pytest.mark.parametrize("labels", ["single", "multi"])
def test_row_order_and_threads_do_not_change_a_bit(labels: LabelKind) -> None:
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(5000, 3, generator=draw)
    target = torch.randint(3, (5000,), generator=draw)
    target = target if labels == "single" else torch.eye(3)[target]
    order = torch.randperm(5000, generator=draw)
    first = measure(labels, logits, target, GROUPS)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        second = measure(labels, logits[order], target[order], GROUPS)
    finally:
        torch.set_num_threads(threads)
    assert first.scalars == second.scalars


def test_average_precision_of_a_large_split_takes_seconds_at_most() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(22_000, 50, generator=draw)
    target = (torch.rand(22_000, 50, generator=draw) < 0.05).float()
    measure("multi", logits[:10], target[:10])  # the import of torchmetrics is not what is measured
    start = time.perf_counter()
    measure("multi", logits, target)
    assert time.perf_counter() - start < 10  # 0.2 s of one core; the limit leaves room for a busy machine


EYE, IDS = torch.eye(3), torch.arange(3)


@pytest.mark.parametrize(
    ("labels", "arguments", "message"),
    [
        ("single", {"logits": EYE[:, :2]}, r"logits must be floating \[N, 3\], got float32 \[3, 2\]"),
        ("single", {"logits": EYE.long()}, r"logits must be floating \[N, 3\], got int64 \[3, 3\]"),
        ("single", {"logits": EYE / EYE}, "logits of 3 of 3 rows are not finite, first row 0"),
        ("single", {"target": IDS + 1}, r"target must be class ids \[3\] in 0..2, got int64 \[3\] with values 1..3"),
        ("single", {"target": EYE}, r"target must be class ids \[3\] in 0..2, got float32 \[3, 3\]"),
        ("single", {"groups": {"minority": (1, 3)}}, r"group 'minority' has class ids \(1, 3\), allowed 0..2"),
        ("multi", {"target": IDS}, r"target must be zeros and ones \[3, 3\], got int64 \[3\]"),
        ("multi", {"target": EYE / 2}, r"zeros and ones \[3, 3\], got float32 \[3, 3\] with values 0.0..0.5"),
        ("multi", {"threshold": 1.0}, r"threshold must be a score in 0..1 \(1 excluded\), got 1.0"),
    ],
)
def test_what_does_not_fit_is_refused(labels: LabelKind, arguments: dict[str, Any], message: str) -> None:
    fitting = {"logits": EYE, "target": IDS if labels == "single" else EYE, "groups": GROUPS, "loss": 0.0}
    with pytest.raises(ValueError, match=message):
        task_stats(task_of(labels, 3), **{**fitting, **arguments})
