"""Majority and minority rules."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hoi_train.core.records import ClassCounts, ClassList
from hoi_train.metrics.groups import GROUP_RULES, Names, Threshold, TopK

# Verbs of EGTEA Gaze+ in their official order, counts of the full training split 1 (8299 clips) and of the 6372
# clips that remain without the paper's validation subjects.
# fmt: off
VERBS = ClassList((
    "Inspect/Read", "Open", "Take", "Cut", "Turn on", "Put", "Operate", "Close", "Move Around", "Wash", "Spread",
    "Turn off", "Divide/Pull Apart", "Clean/Wipe", "Mix", "Pour", "Compress", "Crack", "Squeeze",
))
# fmt: on
FULL = [602, 1034, 1868, 845, 204, 1731, 189, 400, 335, 358, 90, 90, 153, 62, 108, 139, 32, 30, 29]
TRAIN = [429, 779, 1421, 822, 129, 1335, 130, 308, 223, 249, 54, 54, 139, 42, 78, 117, 26, 15, 22]
ABC = ClassList(("a", "b", "c"))


def names(ids: tuple[int, ...]) -> set[str]:
    return {VERBS.names[class_id] for class_id in ids}


def test_the_egtea_rule_of_the_paper_gives_its_five_verbs() -> None:
    rule = TopK(k=5, count_splits=("train", "val"))
    groups = rule(ClassCounts.single(FULL), VERBS)
    assert names(groups["majority"]) == {"Take", "Put", "Open", "Cut", "Inspect/Read"}
    assert sum(FULL[i] for i in groups["majority"]) / 5 == 1216.0  # the paper's means: 1216.0 and 158.5
    assert round(sum(FULL[i] for i in groups["minority"]) / 14, 1) == 158.5


def test_the_egtea_rule_of_the_released_code_gives_four_verbs() -> None:
    groups = Threshold(above=600)(ClassCounts.single(TRAIN), VERBS)
    assert names(groups["majority"]) == {"Take", "Put", "Open", "Cut"}


def test_the_verbs_above_are_the_official_ones(test_data: Path) -> None:
    lines = (test_data / "egtea" / "action_annotation" / "verb_idx.txt").read_text().splitlines()
    assert {line.rsplit(" ", 1)[0]: int(line.rsplit(" ", 1)[1]) - 1 for line in lines} == {
        name: class_id for class_id, name in enumerate(VERBS)
    }


def test_names_takes_the_classes_named() -> None:
    assert Names(majority=("c", "a"))(ClassCounts.single([1, 2, 3]), ABC) == {"majority": (0, 2), "minority": (1,)}


@given(counts=st.lists(st.integers(0, 9), min_size=2, max_size=12), data=st.data())
def test_top_k_is_the_k_largest_with_ties_to_the_lower_id(counts: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(counts) - 1))
    classes = ClassList(tuple(f"c{i}" for i in range(len(counts))))
    groups = TopK(k=k)(ClassCounts.single(counts), classes)
    majority, minority = groups["majority"], groups["minority"]
    assert sorted(majority + minority) == list(range(len(counts)))
    assert len(majority) == k
    for kept in majority:
        for left in minority:
            assert counts[kept] > counts[left] or (counts[kept] == counts[left] and kept < left)


@pytest.mark.parametrize(
    ("name", "hyper", "counts", "message"),
    [
        ("top_k", {"k": 3}, [3, 2, 1], "k = 3 of 3 classes leaves none for the minority; choose k below 3"),
        ("top_k", {"k": 5}, [3, 2, 1], "k = 5 of 3 classes leaves none"),
        ("top_k", {"k": 0}, [3, 2, 1], "k must be at least 1, got 0"),
        ("top_k", {"k": 1, "count_splits": ()}, [3, 2, 1], "count_splits must name some of train, val, test"),
        ("top_k", {"k": 1, "count_splits": ("train", "train")}, [3, 2, 1], "each at most once"),
        ("top_k", {"k": 1, "count_splits": ("vall",)}, [3, 2, 1], "train, val, test, each at most once, got .'vall'."),
        ("threshold", {"above": 3}, [3, 2, 1], "their counts are 1..3; choose above from 1 to 2"),
        ("threshold", {"above": 0}, [3, 2, 1], "above = 0 puts all classes into one group"),
        ("threshold", {"above": 2}, [2, 2, 2], "every class has 2 samples, no threshold divides them"),
        ("threshold", {"above": -1}, [3, 2, 1], "above must be at least 0, got -1"),
        ("names", {"majority": ()}, [3, 2, 1], "majority must name at least one class"),
        ("names", {"majority": ("a", "b", "c")}, [3, 2, 1], "names all 3 classes, none is left for the minority"),
        ("names", {"majority": ("a ",)}, [3, 2, 1], "unknown class 'a '; did you mean 'a'?"),
    ],
)
def test_what_does_not_divide_the_classes_is_refused(
    name: str, hyper: dict[str, Any], counts: list[int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        GROUP_RULES[name](**hyper)(ClassCounts.single(counts), ABC)


@pytest.mark.parametrize("name", GROUP_RULES)
def test_the_schema_can_be_made_from_the_signature(name: str) -> None:
    rule = GROUP_RULES[name]
    hyper = inspect.signature(rule).parameters
    assert hyper
    assert {parameter.kind for parameter in hyper.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert set(hyper) <= set(get_type_hints(rule, include_extras=True))
