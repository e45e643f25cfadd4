"""Which unit goes to which split: iterative stratification, then a search that moves whole units.

Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data" (ECML PKDD 2011), gives the start. It
knows whether a unit has a class, not how many samples of it, so a local search goes on with the counts. It lessens

    Σ over splits s, columns k of (n_sk - r_s n_k)² / (r_s (1 - r_s) Σ_u x_uk²)  +  missing samples × a large number

with n_sk samples of class k in split s, x_uk of them in unit u, n_k in all, and r_s the fraction wanted. A term is the
squared deviation in units of its variance if units were drawn at random, so 1 is what chance gives for a rare class
and for a frequent one alike. Column 0, the clips, keeps the sizes of the splits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_tools.split.units import Indices, Units
from hoi_train.core.records import UserError

Numbers = NDArray[np.float64]

WISHED, DEMANDED = 10.0, 1e4  # the price of a sample below the minimum: three standard deviations, or any
TRAIN = 2  # a sample costs more by this where train lacks it: with too few for all splits, train comes first
WORK = 30_000_000  # entries looked at: bounds the time to some ten seconds, whatever the machine
STEPS = 10_000  # moves tried on small sets, where a step costs a fraction of a millisecond
PATIENCE = 400  # new descents in a row that find nothing better
SHAKEN = 8  # units moved at random, at most, before a new descent
LARGEST_DENSE = 4_000_000_000  # cells of the library's matrix, a byte each


@dataclass(frozen=True)
class Wanted:
    """What a division should be.

    Args:
        fractions: ``[S]``, above 0, sum 1; the first is that of train.
        minimum: samples of each class in each split.
        demanded: the minimum goes before the sizes of the splits; else it is a wish, and the sizes go first.
    """

    fractions: Numbers
    minimum: int
    demanded: bool


def find_division(
    units: Units, wanted: Wanted, seed: int, progress: Callable[[float], None] = lambda done: None
) -> Indices:
    """Return the split of each unit, int64 ``[U]`` of 0..S-1; the same for the same seed.

    Args:
        units: what to divide; at least as many as splits.
        wanted: the fractions and the minimum.
        seed: 0 to 2**32 - 1.
        progress: called with the part of the search that is done, 0..1.
    """
    random = np.random.RandomState(seed)  # its stream is fixed for all versions of numpy
    search = _Search(units, wanted)
    best, best_cost = search.descend(_start(units, wanted, random))
    vain = 0
    while search.left() and vain < PATIENCE:
        trial, cost = search.descend(_shaken(best, len(wanted.fractions), random))
        vain += 1
        if cost < best_cost - 1e-9:
            best, best_cost, vain = trial, cost, 0
        progress(search.done())
    progress(1.0)
    return best


def _shaken(places: Indices, num_splits: int, random: np.random.RandomState) -> Indices:
    """Return a division in which some units were moved at random, or exchanged, which keeps the sizes about equal."""
    trial: Indices = places.copy()
    number = 1 + random.randint(max(1, min(SHAKEN, len(places) // 4)))
    chosen: Indices = random.randint(len(places), size=number)
    if random.randint(2):
        trial[chosen] = random.randint(num_splits, size=number)
    else:
        trial[chosen] = places[np.roll(chosen, 1)]
    return trial


def _start(units: Units, wanted: Wanted, random: np.random.RandomState) -> Indices:
    """Return the division of iterative stratification by which classes a unit has."""
    try:
        from iterstrat.ml_stratifiers import IterativeStratification
    except ImportError as error:
        raise UserError(f"split needs iterative-stratification: pip install 'hoi_train[split]' ({error})") from None
    present = units.totals[1:] > 0
    place = np.cumsum(present) - 1
    if len(units.names) * int(present.sum()) > LARGEST_DENSE:
        raise UserError(
            f"{len(units.names):,} units of {present.sum():,} classes are more than split can hold; "
            "take larger units: --group path or a group column"
        )
    has = np.zeros((len(units.names), int(present.sum())), bool)
    classes = units.columns > 0
    has[units.entry_units[classes], place[units.columns[classes] - 1]] = True
    return np.asarray(IterativeStratification(has, wanted.fractions.copy(), random), np.int64)


class _Search:
    """Costs of divisions, and the descent by the best move of one unit at a time."""

    def __init__(self, units: Units, wanted: Wanted) -> None:
        self.units, self.num_splits = units, len(wanted.fractions)
        self.entry_units = units.entry_units
        fractions = wanted.fractions[:, None]
        squares = np.bincount(units.columns, units.counts.astype(np.float64) ** 2, minlength=len(units.totals))
        self.targets = fractions * units.totals
        self.weights = 1 / (fractions * (1 - fractions) * np.maximum(squares, 1))
        self.weights[:, 0] *= np.count_nonzero(units.totals)  # the sizes weigh as much as all classes together
        self.minimum = np.full(len(units.totals), wanted.minimum)
        self.minimum[0] = 1  # no split stays empty
        self.minimum[units.totals == 0] = 0
        self.prices = np.full((self.num_splits, 1), DEMANDED if wanted.demanded else WISHED)
        self.prices[0] *= TRAIN
        self.work = self.steps = 0

    def done(self) -> float:
        """Return the part of the work that is done."""
        return min(1.0, max(self.work / WORK, self.steps / STEPS))

    def left(self) -> bool:
        """Return whether there is work left."""
        return self.done() < 1.0

    def descend(self, places: Indices) -> tuple[Indices, float]:
        """Move units while a move lessens the cost; return the division and its cost."""
        every = np.arange(len(places))
        while True:
            counts = self.units.count(places, self.num_splits)
            base = self._cost(counts, slice(None), slice(None))
            gains = self._moves(places, counts, base)
            gains[every, places] = 0
            self.work += len(self.entry_units)
            self.steps += 1
            unit, split = np.unravel_index(np.argmin(gains), gains.shape)
            if gains[unit, split] > -1e-9:
                return places, float(base.sum())
            places[unit] = split

    def _moves(self, places: Indices, counts: Indices, base: Numbers) -> Numbers:
        """Return by how much the cost changes if a unit goes to a split, ``[U, S]``."""
        columns, number, first = self.units.columns, self.units.counts, self.units.first
        own = places[self.entry_units]
        removed = self._cost(counts[own, columns] - number, own, columns) - base[own, columns]
        gains = np.empty((len(places), self.num_splits))
        for split in range(self.num_splits):
            added = self._cost(counts[split, columns] + number, split, columns) - base[split, columns]
            gains[:, split] = np.add.reduceat(added + removed, first)
        return gains

    def _cost(self, counts: Indices, split: int | slice | Indices, columns: slice | Indices) -> Numbers:
        deviations = counts - self.targets[split, columns]
        prices = self.prices[split] if isinstance(split, slice) else self.prices[split, 0]
        missing = np.maximum(self.minimum[columns] - counts, 0)
        cost: Numbers = deviations**2 * self.weights[split, columns] + prices * missing
        return cost
