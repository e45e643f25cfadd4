"""Class weights from class counts or from difficulty; ``Loss.weigh`` applies them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Lt
from pydantic import Strict
from torch import Tensor

from hoi_train.core.records import ClassCounts

Scheme = Literal["inverse", "sqrt_inverse", "effective", "neg_pos", "given"]
Normalisation = Literal["sum_to_classes", "none"]
Place = Literal["row", "column", "positives"]
Epoch = Annotated[int, Strict(), Ge(0)]  # counted from 0
FLOAT32_MAX = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class ClassWeighting:
    r"""Scheme of class weights from the class counts of the training split.

    With ``N`` training samples and ``n_c`` of class c, or ``max(n_c, count_floor)`` with a floor:

    - ``inverse``: ``N / n_c``, inverse frequency weighting (IFW).
    - ``sqrt_inverse``: ``sqrt(N / n_c)``.
    - ``effective``: ``(1 - beta) / (1 - beta^n_c)``, the inverse effective number of samples (Cui et al., CVPR 2019,
      Proposition 1). ``beta = 0`` gives 1, ``beta -> 1`` gives ``1 / n_c``.
    - ``neg_pos``: ``max(N - count, 1) / n_c``.
    - ``given``: ``values`` unchanged.

    By default normalised to sum to C, a mean of 1, as in all released codes but DB's. A class without samples has
    weight 1 and no effect on others, unless there is a floor or the weights are given.

    Args:
        scheme: the formula.
        beta: 0 <= beta < 1; needed by ``effective``, refused by the others.
        values: C numbers >= 0, not all 0; needed by ``given``, refused by the others.
        count_floor: lower bound of the counts. Classes without samples then weigh most: one takes nearly all of the
            sum C if others have hundreds. VidHOI's code has 5 for ``effective`` and 1 for the others. The official
            codes of CB and DB have none; such a class gets an infinite or nan weight and makes all others 0.
        normalise: ``sum_to_classes`` or ``none``.
        place: what a weight multiplies. ``row``: a whole sample, by its true class (single-label, the only place
            there) or by the mean over its classes, 1 for a sample without (multi-label). ``column``: a class's terms
            (multi-label, the default there). ``positives``: a class's terms in proportion to the label (multi-label).
        from_epoch: deferred re-weighting (DRW; Cao et al., NeurIPS 2019, Algorithm 1): first epoch, from 0, with
            weights other than 1. The authors' CIFAR code has 160 of 200 with ``effective``, beta 0.9999.

    Raises:
        ValueError: ``beta`` or ``values`` is missing, out of range, or given to a scheme that does not use it.

    >>> ClassWeighting("inverse").of(ClassCounts.single([6, 3, 1])).tolist()
    [0.3333333333333333, 0.6666666666666666, 2.0]
    >>> ClassWeighting("effective", beta=0.0).of(ClassCounts.single([6, 3, 0])).tolist()
    [1.0, 1.0, 1.0]
    >>> ClassWeighting("inverse").of(ClassCounts.single([6, 3, 1, 0])).tolist()
    [0.3333333333333333, 0.6666666666666666, 2.0, 1.0]
    """

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}  # an unknown key in a configuration

    scheme: Scheme
    beta: Annotated[float, Strict(), Ge(0), Lt(1)] | None = None
    values: tuple[Annotated[float, Strict(), Ge(0)], ...] | None = None
    count_floor: Annotated[int, Strict(), Ge(1)] | None = None
    normalise: Normalisation = "sum_to_classes"
    place: Place | None = None
    from_epoch: Epoch = 0

    def __post_init__(self) -> None:
        for name, user in (("beta", "effective"), ("values", "given")):
            given = getattr(self, name) is not None
            if given != (self.scheme == user):
                problem = "does not use" if given else "needs"
                raise ValueError(f"scheme {self.scheme!r} {problem} {name}; {name} belongs to {user!r}")
        if self.beta is not None and not 0 <= self.beta < 1:
            raise ValueError(f"beta must be in [0, 1), got {self.beta}")
        if self.count_floor is not None and self.count_floor < 1:
            raise ValueError(f"count_floor must be at least 1, got {self.count_floor}")
        values = self.values
        if values is not None and not (min(values, default=0) >= 0 and 0 < sum(values) <= FLOAT32_MAX):
            text = "values must be finite numbers >= 0, not all 0, with a sum that float32 has"
            raise ValueError(f"{text}, got {list(values)}")

    def of(self, class_counts: ClassCounts) -> Tensor:
        """Return the weights, float64 ``[C]``; raises ``ValueError`` if ``values`` are not C numbers."""
        if self.values is not None:
            if len(self.values) != class_counts.num_classes:
                raise ValueError(f"weights.values: {len(self.values)} numbers for {class_counts.num_classes} classes")
            return self._normalised(torch.tensor(self.values, dtype=torch.float64))
        counts = class_counts.tensor()
        counted = counts > 0 if self.count_floor is None else torch.ones_like(counts, dtype=torch.bool)
        weights = torch.ones_like(counts)
        weights[counted] = self._normalised(self._raw(counts[counted], class_counts.num_samples))
        return weights

    def _normalised(self, raw: Tensor) -> Tensor:
        return sum_to_classes(raw) if self.normalise == "sum_to_classes" else raw

    def _raw(self, counts: Tensor, samples: int) -> Tensor:
        floored = counts.clamp(min=self.count_floor or 1)
        if self.beta is not None:
            return (1 - self.beta) / _one_minus_power(self.beta, floored)
        if self.scheme == "neg_pos":
            return (samples - counts).clamp(min=1) / floored
        inverse = samples / floored
        return inverse if self.scheme == "inverse" else inverse.sqrt()


def difficulty_weights(difficulty: Tensor, tau: float, normalise: Normalisation = "sum_to_classes") -> Tensor:
    """Return ``difficulty^tau``, by default scaled to sum to C (Sinha et al., ACCV 2020, section 3).

    The paper's text has no normalisation, its released codes do; they differ by a factor of the learning rate that
    changes with every validation.

    Args:
        difficulty: float64 ``[C]`` in 0..1, one minus the recall of each class.
        tau: >= 0; 0 makes all weights 1.
        normalise: ``sum_to_classes`` or ``none``.

    >>> difficulty_weights(torch.tensor([0.25, 0.75]), tau=1.0).tolist()
    [0.5, 1.5]
    """
    raw = difficulty**tau
    return sum_to_classes(raw) if normalise == "sum_to_classes" else raw


def sum_to_classes(raw: Tensor) -> Tensor:
    """Scale weights ``[C]`` to the sum C; if all are 0, all become 1."""
    total = raw.sum()
    return torch.ones_like(raw) if total == 0 else raw / total * len(raw)


def _one_minus_power(beta: float, counts: Tensor) -> Tensor:
    """Return ``1 - beta^n``; computed directly it would lose 12 of 16 digits for beta close to 1."""
    log_beta = torch.tensor(beta, dtype=torch.float64).log()  # -inf at beta = 0, valid for expm1
    return -torch.expm1(counts * log_beta)
