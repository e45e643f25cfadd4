"""Sampling rules: draw the clips of an epoch uniformly, or rare classes more often.

Each rule gives class c the probability ``p_c = n_c^q / sum_k n_k^q`` of being drawn next, with ``n_c`` the training
clips that carry it; then a clip of that class is taken, all of them once before any comes again. Multi-label clips
are drawn through each of their classes; a clip without a label is drawn by ``instance`` only. An epoch keeps its
length. Source: Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020,
section 3; the draw within a class is that of the released ``ClassAwareSampler``.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from hoi_train.core.randomness import generator


class ClassBalanced:
    """Draw all classes equally often, ``q = 0``.

    Args:
        task: whose classes count; the run's first task if not given.
    """

    q: ClassVar[float] = 0.0

    def __init__(self, *, task: str | None = None) -> None:
        self.task = task

    def draw(self, labels: Tensor, epoch: int, epochs: int, seed: int) -> Tensor | None:
        """Return the positions of the clips to draw, int64 ``[N]``, a function of the arguments alone.

        Args:
            labels: int64 ``[N]`` class ids or bool ``[N, C]``, of the clips of the training split.
            epoch: from 0, of ``epochs`` that the rule is in force.
            epochs: at least 1.
            seed: of the run.

        Returns:
            ``None`` for each clip once, in the loader's own order.
        """
        return draw_by_class(labels, self.shares(class_counts(labels), epoch, epochs), seed, epoch)

    def shares(self, counts: Tensor, epoch: int, epochs: int) -> Tensor:
        """Return the probability of each class, float64 ``[C]``, from the clips that carry it."""
        raw = torch.where(counts > 0, counts.double() ** self.q, 0.0)
        return raw / raw.sum()


class SquareRoot(ClassBalanced):
    """Draw classes with the square root of their frequencies, ``q = 1/2`` (Mahajan et al., ECCV 2018).

    Args:
        task: whose classes count; the run's first task if not given.
    """

    q = 0.5


class Progressive(ClassBalanced):
    """Move from instance-balanced to class-balanced sampling: ``(1 - t) p_instance + t p_class``.

    ``t`` grows from 0 to 1 over the epochs (Kang et al., ICLR 2020, equation 3).

    Args:
        task: whose classes count; the run's first task if not given.
    """

    def shares(self, counts: Tensor, epoch: int, epochs: int) -> Tensor:
        """Return the probability of each class, float64 ``[C]``, from the clips that carry it."""
        progress = epoch / max(epochs - 1, 1)
        return (1 - progress) * counts.double() / counts.sum() + progress * super().shares(counts, epoch, epochs)


class Instance(ClassBalanced):
    """Draw every clip once per epoch, in random order."""

    def __init__(self) -> None:
        super().__init__()

    def draw(self, labels: Tensor, epoch: int, epochs: int, seed: int) -> None:
        """Return ``None``: each clip once."""


def class_counts(labels: Tensor) -> Tensor:
    """Return how many clips carry each class, int64 ``[C]``, of ids ``[N]`` or multi-hot ``[N, C]``.

    >>> class_counts(torch.tensor([0, 0, 2])).tolist()
    [2, 0, 1]
    """
    return torch.bincount(labels) if labels.ndim == 1 else labels.sum(0)


def draw_by_class(labels: Tensor, shares: Tensor, seed: int, epoch: int, num_draws: int | None = None) -> Tensor:
    """Draw classes with given probabilities, then clips of each class without replacement.

    Args:
        labels: int64 ``[N]`` class ids, or bool ``[N, C]``.
        shares: float64 ``[C]``, not negative; 0 for classes without clips.
        seed: of the run.
        epoch: from 0; with the seed the address of the draw.
        num_draws: as many as there are clips if not given.

    Returns:
        int64 ``[num_draws]``, positions in ``labels``.

    Raises:
        ValueError: no clip carries a class.
    """
    if not shares.sum() > 0:
        raise ValueError("no clip of the training split carries a class of the task: there is nothing to draw by class")
    draw = generator(seed, "class sampling", epoch)
    wanted = torch.multinomial(shares, num_draws or len(labels), replacement=True, generator=draw)
    drawn = torch.empty_like(wanted)
    for class_id in torch.bincount(wanted).nonzero().flatten().tolist():
        places = (wanted == class_id).nonzero().flatten()
        members = (labels == class_id if labels.ndim == 1 else labels[:, class_id]).nonzero().flatten()
        rounds = -(-len(places) // len(members))
        order = torch.cat([torch.randperm(len(members), generator=draw) for _ in range(rounds)])
        drawn[places] = members[order[: len(places)]]
    return drawn


SAMPLING: dict[str, type[ClassBalanced]] = {
    "instance": Instance,
    "class_balanced": ClassBalanced,
    "square_root": SquareRoot,
    "progressive": Progressive,
}
