"""The rules of both protocols once more, row by row in plain Python and in the order in which they are written down.

Shares nothing with the package, takes cases as plain rows (see ``hoi_cases``) and is far too slow for a real split.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]
Triplet = tuple[int, int, int]
Classes = dict[Triplet, dict[str, float]]
NAN = math.nan


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = width * height
    return common / (abs((a[2] - a[0]) * (a[3] - a[1])) + abs((b[2] - b[0]) * (b[3] - b[1])) - common)


def pair_iou(predicted: Row, true: Row, least: float) -> float | None:
    """Return the smaller IoU of two pairs, or None where they do not match."""
    if predicted["object_class"] != true["object_class"]:
        return None
    person = iou(predicted["person_box"], true["person_box"])
    thing = iou(predicted["object_box"], true["object_box"])
    return min(person, thing) if person >= least and thing >= least else None


def best_pair(predicted: Row, true: Iterable[tuple[int, Row]], least: float) -> int | None:
    best, best_iou = None, -1.0
    for number, row in true:
        overlap = pair_iou(predicted, row, least)
        if overlap is not None and overlap > best_iou:
            best, best_iou = number, overlap
    return best


def of_frame(rows: list[Row], frame: str) -> list[Row]:
    return [row for row in rows if row["frame"] == frame]


def log(x: float) -> float:
    return math.log(x) if x > 0 else math.log(1e-300)


def log_score(row: Row, predicate: int) -> float:
    return (log(row["scores"][predicate]) + log(row["person_score"])) + log(row["object_score"])


def product_score(row: Row, predicate: int) -> float:
    return float((row["scores"][predicate] * row["person_score"]) * row["object_score"])


def instances(case: Any) -> dict[Triplet, int]:
    counts: dict[Triplet, int] = {}
    for row in case["ground_truth"]:
        if row["frame"] in case["frames"]:
            for predicate in row["predicates"]:
                triplet = (0, predicate, row["object_class"])
                counts[triplet] = counts.get(triplet, 0) + 1
    return counts


def protocol1(case: Any, rare_below: int, top: int = 100, least: float = 0.5) -> dict[str, Classes]:
    counts = instances(case)
    rare = {triplet for triplet, count in counts.items() if count < rare_below}
    groups = {"full": set(counts), "rare": rare, "non_rare": set(counts) - rare}
    return {name: run_protocol1(case, counts, testable, top, least) for name, testable in groups.items()}


def run_protocol1(case: Any, counts: dict[Triplet, int], testable: set[Triplet], top: int, least: float) -> Classes:
    found: dict[Triplet, list[tuple[float, bool]]] = {triplet: [] for triplet in testable}
    for frame in case["frames"]:
        true, predicted = of_frame(case["ground_truth"], frame), of_frame(case["predictions"], frame)
        consumed = set()
        for score, i, j in kept(predicted, log_score, case["n_predicates"], top):
            triplet = (0, j, predicted[i]["object_class"])
            if triplet not in testable:
                continue
            competing = [(number, row) for number, row in enumerate(true) if j in row["predicates"]]
            best = best_pair(predicted[i], competing, least)
            hit = best is not None and best not in consumed
            if hit:
                consumed.add(best)
            found[triplet].append((score, hit))
    return measured(found, counts)


def protocol2(case: Any, top: int = 100, least: float = 0.5) -> Classes:
    counts = instances(case)
    found: dict[Triplet, list[tuple[float, bool]]] = {triplet: [] for triplet in counts}
    for frame in case["frames"]:
        true, predicted = of_frame(case["ground_truth"], frame), of_frame(case["predictions"], frame)
        if not any(row["predicates"] for row in true):
            continue
        for score, i, j in kept(predicted, product_score, case["n_predicates"], top):
            triplet = (0, j, predicted[i]["object_class"])
            if triplet in counts:
                hit = any(j in row["predicates"] and pair_iou(predicted[i], row, least) is not None for row in true)
                found[triplet].append((score, hit))
    return measured(found, counts)


def kept(predicted: list[Row], score: Any, num_predicates: int, top: int) -> list[tuple[float, int, int]]:
    candidates = [(score(row, j), i, j) for i, row in enumerate(predicted) for j in range(num_predicates)]
    return sorted(candidates, reverse=True)[:top]


def measured(found: dict[Triplet, list[tuple[float, bool]]], counts: dict[Triplet, int]) -> Classes:
    result = {}
    for triplet, marks in found.items():
        marks = sorted(marks, key=lambda mark: -mark[0])
        hits, points = 0, []
        for m, (_, hit) in enumerate(marks, start=1):
            hits += hit
            points.append((hits / counts[triplet], hits / m))
        ap = 0.0
        for i in range(11):
            ap += max((precision for recall, precision in points if recall >= i * 0.1), default=0.0) / 11
        numbers = {"n_gt": counts[triplet], "n_pred": len(marks), "n_tp": hits, "ap": ap}
        result[triplet] = {**numbers, "max_recall": hits / counts[triplet]}
    return result


def mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else NAN


def person_top_k(case: Any, threshold: float, k: int, least: float = 0.5) -> dict[str, float]:
    """Return the four means and, as ``n_…``, of how many entries."""
    entries: dict[str, list[float]] = {"recall": [], "precision": [], "accuracy": [], "f1": []}
    for frame in case["frames"]:
        true, predicted = of_frame(case["ground_truth"], frame), of_frame(case["predictions"], frame)
        if predicted:
            for name, value in frame_entry(true, predicted, case["n_predicates"], threshold, k, least).items():
                entries[name].append(value)
        else:
            for _ in {row["person_index"] for row in true}:
                for name, values in entries.items():
                    values.append(NAN if name == "precision" else 0.0)
    defined = {name: [value for value in values if not math.isnan(value)] for name, values in entries.items()}
    means = {name: mean(values) for name, values in defined.items()}
    return {**means, **{f"n_{name}": len(values) for name, values in defined.items()}}


def frame_entry(
    true: list[Row], predicted: list[Row], num_predicates: int, threshold: float, k: int, least: float
) -> dict[str, float]:
    taken, labels = set(), []
    for row in predicted:
        best = best_pair(row, enumerate(true), least)
        free = best is not None and best not in taken
        labels.append(set(true[best]["predicates"]) if best is not None and free else set())
        taken |= {best} if free else set()
    values: dict[str, list[float]] = {"recall": [], "precision": [], "accuracy": [], "f1": []}
    a_kept_label = False
    for person in {row["person_index"] for row in predicted}:
        own = [i for i, row in enumerate(predicted) if row["person_index"] == person]
        pool = [(i, j) for i in own for j in range(num_predicates)]
        n = sum(j in labels[i] for i, j in pool)
        best_k = sorted(pool, key=lambda pick: -product_score(predicted[pick[0]], pick[1]))[:k]
        positive = [(i, j) for i, j in best_k if predicted[i]["scores"][j] >= threshold]
        a_kept_label |= any(j in labels[i] for i, j in best_k)
        tp, pp = sum(j in labels[i] for i, j in positive), len(positive)
        if n > 0:
            values["recall"].append(tp / n)
        if pp > 0:
            values["precision"].append(tp / pp)
        if n + pp > 0:
            values["accuracy"].append(tp / (pp + n - tp))
            values["f1"].append(2 * tp / (n + pp))
    entry = {name: mean(numbers) for name, numbers in values.items()}
    if not values["precision"] and a_kept_label:
        entry["precision"] = 0.0
    return entry
