"""Rules that divide the classes of a task into majority and minority.

A rule's fields are the hyper-parameters of the configuration, for example
``groups: {name: top_k, k: 5, count_splits: [train, val]}``. A rule is called with the class
counts of the splits in its ``count_splits`` together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Protocol

from annotated_types import Ge

from hoi_train.core.records import SPLITS, ClassCounts, ClassGroups, ClassList, Split


class GroupRule(Protocol):
    """Divides the classes of a task into ``majority`` and ``minority``, neither of them empty."""

    @property
    def count_splits(self) -> tuple[Split, ...]:
        """The splits whose rows are counted for :meth:`__call__`."""

    def __call__(self, counts: ClassCounts, classes: ClassList) -> ClassGroups:
        """Return the class ids of each group, ascending; raises ``ValueError`` if the rule does not fit the classes."""


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Take the k most frequent classes as the majority; of equal counts the lower id.

    The EGTEA paper (CDB loss) counts the full official training split, which here is ``train`` and ``val``, and takes
    k = 5: Take, Put, Open, Cut, Inspect/Read.

    Args:
        k: number of majority classes.
        count_splits: splits whose rows are counted.

    >>> TopK(k=1)(ClassCounts.single([3, 7, 7]), ClassList(("a", "b", "c")))
    {'majority': (1,), 'minority': (0, 2)}
    """

    k: Annotated[int, Ge(1)] = 5
    count_splits: tuple[Split, ...] = ("train",)

    def __post_init__(self) -> None:
        _check_splits(self.count_splits)
        if self.k < 1:
            raise ValueError(f"groups rule top_k: k must be at least 1, got {self.k}")

    def __call__(self, counts: ClassCounts, classes: ClassList) -> ClassGroups:
        """Return the two groups; raises ``ValueError`` if k leaves no class for the minority."""
        if self.k >= len(classes):
            raise ValueError(
                f"groups rule top_k: k = {self.k} of {len(classes)} classes leaves none for the minority; "
                f"choose k below {len(classes)}"
            )
        by_count = sorted(range(len(classes)), key=lambda class_id: (-counts.positives[class_id], class_id))
        return _split(by_count[: self.k], len(classes))


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """Take the classes with more than ``above`` samples as the majority.

    Args:
        above: largest count of a minority class.
        count_splits: splits whose rows are counted.

    >>> Threshold(above=5)(ClassCounts.single([5, 6]), ClassList(("a", "b")))
    {'majority': (1,), 'minority': (0,)}
    """

    above: Annotated[int, Ge(0)]
    count_splits: tuple[Split, ...] = ("train",)

    def __post_init__(self) -> None:
        _check_splits(self.count_splits)
        if self.above < 0:
            raise ValueError(f"groups rule threshold: above must be at least 0, got {self.above}")

    def __call__(self, counts: ClassCounts, classes: ClassList) -> ClassGroups:
        """Return the two groups; raises ``ValueError`` if either is empty."""
        fewest, most = min(counts.positives), max(counts.positives)
        if fewest == most:
            raise ValueError(
                f"groups rule threshold: every class has {most} samples, no threshold divides them; use top_k or names"
            )
        if not fewest <= self.above < most:
            raise ValueError(
                f"groups rule threshold: above = {self.above} puts all classes into one group, their counts are "
                f"{fewest}..{most}; choose above from {fewest} to {most - 1}"
            )
        return _split((i for i, count in enumerate(counts.positives) if count > self.above), len(classes))


@dataclass(frozen=True, kw_only=True)
class Names:
    """Take the listed classes as the majority, whatever their counts.

    Args:
        majority: names of the majority classes.

    >>> Names(majority=("b",))(ClassCounts.single([5, 6]), ClassList(("a", "b")))
    {'majority': (1,), 'minority': (0,)}
    """

    majority: tuple[str, ...]
    count_splits: ClassVar[tuple[Split, ...]] = ("train",)

    def __post_init__(self) -> None:
        if not self.majority:
            raise ValueError("groups rule names: majority must name at least one class")

    def __call__(self, counts: ClassCounts, classes: ClassList) -> ClassGroups:
        """Return the two groups; raises ``ValueError`` with the nearest name for an unknown class."""
        try:
            ids = {classes.index(name) for name in self.majority}
        except ValueError as error:
            raise ValueError(f"groups rule names: {error}") from None
        if len(ids) == len(classes):
            raise ValueError(f"groups rule names: majority names all {len(ids)} classes, none is left for the minority")
        return _split(ids, len(classes))


def _split(majority: Iterable[int], num_classes: int) -> ClassGroups:
    chosen = set(majority)
    return {"majority": tuple(sorted(chosen)), "minority": tuple(i for i in range(num_classes) if i not in chosen)}


def _check_splits(splits: tuple[Split, ...]) -> None:
    if not splits or len(set(splits)) < len(splits) or not set(splits) <= set(SPLITS):
        raise ValueError(f"count_splits must name some of {', '.join(SPLITS)}, each at most once, got {list(splits)}")


GROUP_RULES: dict[str, type[GroupRule]] = {"top_k": TopK, "threshold": Threshold, "names": Names}
