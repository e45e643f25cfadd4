"""Class counts of artificial long tails, as the long-tailed CIFAR sets are cut from the balanced ones."""

from __future__ import annotations


def exponential_counts(num_classes: int, largest: int, imbalance: float) -> tuple[int, ...]:
    """Return how many samples each class keeps: ``n_c = floor(largest * mu^(c / (C - 1)))``, ``mu = 1 / imbalance``.

    Source: Cui et al., CVPR 2019, section 5.1; the released codes of CB, LDAM, CDB and Meta-Weight-Net agree in the
    formula and differ in ``largest`` (CIFAR-100: 500, 475 or 450 and 490, by what is kept for validation). The CDB
    paper writes ``n_c mu^c``, the same with ``mu^(1 / (C - 1))``.

    Args:
        num_classes: C >= 1.
        largest: samples of class 0, >= 1.
        imbalance: those of class 0 over those of the last class, >= 1.

    Raises:
        ValueError: an argument is below 1, or the last class would be left without samples.

    >>> counts = exponential_counts(100, 500, imbalance=100)
    >>> counts[:3], counts[-1], sum(counts)
    ((500, 477, 455), 5, 10847)
    """
    if num_classes < 1 or largest < 1 or not 1 <= imbalance <= largest:
        raise ValueError(
            f"num_classes and largest must be at least 1 and imbalance in 1..largest, "
            f"got {num_classes = }, {largest = }, {imbalance = }"
        )
    share = 1 / imbalance
    # The exponents are formed as in the released codes: another order of rounding moves some counts by one.
    return tuple(int(largest * share ** (c / max(num_classes - 1.0, 1.0))) for c in range(num_classes))
