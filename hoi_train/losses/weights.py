"""Weights per class: how often a class occurs, or how well it is recognised, turned into how much it counts.

``Loss.weigh`` applies them.
"""

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
    r"""Say how the class counts of the training split become one weight per class.

    With ``N`` training samples and ``n_c`` of class c, or ``max(n_c, count_floor)`` where a floor is given:

    - ``inverse``: ``N / n_c``, inverse frequency weighting (IFW).
    - ``sqrt_inverse``: ``sqrt(N / n_c)``.
    - ``effective``: ``(1 - beta) / (1 - beta^n_c)``, the inverse effective number of samples (Cui et al., CVPR 2019,
      Proposition 1). ``beta = 0`` gives 1, ``beta -> 1`` gives ``1 / n_c``.
    - ``neg_pos``: ``max(N - count, 1) / n_c``.
    - ``given``: ``values`` as they are.

    Normalised to sum to C, as all released codes but DB's do, the mean over classes is 1. A class without samples
    weighs 1 and changes no other's weight, unless there is a floor or the weights are given.

    Args:
        scheme: which formula.
        beta: 0 <= beta < 1; for ``effective``, which needs it, and for nothing else.
        values: C numbers >= 0, not all 0; for ``given``, which needs them, and for nothing else.
        count_floor: smallest count used, also for classes without samples, which then weigh most: one of them takes
            nearly all of the sum C where others have hundreds. VidHOI's code has 5 for ``effective`` and 1 for the
            others. The official lines of CB and DB have none, and one such class makes its own weight infinite or
            nan and all others 0.
        normalise: ``sum_to_classes`` or ``none``.
        place: what a weight multiplies. ``row``: all of a sample, by its true class (single-label, the only place
            there) or by the mean over its classes, 1 for a sample without (multi-label). ``column``: a class's own
            terms (multi-label, the default there). ``positives``: of those only where the label holds (labels
            between 0 and 1: by as much as they hold).
        from_epoch: deferred re-weighting (DRW; Cao et al., NeurIPS 2019, Algorithm 1): before this epoch, from 0,
            every weight is 1. The authors' CIFAR code has 160 of 200 with ``effective``, beta 0.9999.

    Raises:
        ValueError: ``beta`` or ``values`` missing, out of range, or given to a scheme that does not use them.

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
        """Return the weights, float64 ``[C]``; raises ``ValueError`` if ``values`` are not one a class."""
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
    """Return ``difficulty^tau``, scaled to sum to C unless told not to (Sinha et al., ACCV 2020, section 3).

    The paper's text has no normalisation, its released codes have; the two differ by a factor on the learning rate
    that changes with every validation.

    Args:
        difficulty: float64 ``[C]`` in 0..1, one minus the recall of each class.
        tau: >= 0; at 0 all weights are 1.
        normalise: ``sum_to_classes`` or ``none``.

    >>> difficulty_weights(torch.tensor([0.25, 0.75]), tau=1.0).tolist()
    [0.5, 1.5]
    """
    raw = difficulty**tau
    return sum_to_classes(raw) if normalise == "sum_to_classes" else raw


def sum_to_classes(raw: Tensor) -> Tensor:
    """Scale ``[C]`` weights to the sum C; where all are 0 no class stands out, and all become 1."""
    total = raw.sum()
    return torch.ones_like(raw) if total == 0 else raw / total * len(raw)


def _one_minus_power(beta: float, counts: Tensor) -> Tensor:
    """Return ``1 - beta^n``; as written it would lose 12 of 16 digits where beta is close to 1."""
    log_beta = torch.tensor(beta, dtype=torch.float64).log()  # -inf at beta = 0, which expm1 takes
    return -torch.expm1(counts * log_beta)
