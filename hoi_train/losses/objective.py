"""The objective of a run: the weighted sum of its tasks' losses."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hoi_train.losses.base import Loss
from hoi_train.records import EpochStats


class Objective(nn.Module):
    """Sum the reduced loss of every task: ``total = sum_k weight_k * reduce_k(loss_k(logits_k, target_k))``.

    Args:
        losses: one loss a task.
        weights: the factor of each task's loss, ``>= 0``; 1 where a task is not named.
    """

    def __init__(self, losses: Mapping[str, Loss], weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.losses = nn.ModuleDict(dict(losses))
        self.weights = {task: (weights or {}).get(task, 1.0) for task in losses}

    def loss(self, task: str) -> Loss:
        """Return the loss of a task."""
        loss = self.losses[task]
        assert isinstance(loss, Loss)
        return loss

    def forward(
        self,
        logits: Mapping[str, Tensor],
        targets: Mapping[str, Tensor],
        weights: Tensor | None = None,
        share: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Return the total and whether each sample is sound.

        Args:
            logits: ``[N, C]`` for each task.
            targets: int64 ``[N]`` or floating ``[N, C]`` for each task.
            weights: floating ``[N]``; with them the total is ``sum_i w_i sum_k weight_k loss_ki`` and nothing is
                reduced.
            share: 0..1, the same on all ranks; how far losses that learn from batches move towards what this one
                teaches: the share of the targets in clips that were mixed.

        Returns:
            The scalar total, which is nan if any logit or loss is not finite, whatever the loss makes of it (a
            sigmoid loss maps an infinite logit to 0, which would hide it); bool ``[N]``, true where all is finite.
        """
        before = {name: buffer.clone() for name, buffer in self._learnt()} if share < 1 else {}
        losses = self._losses(logits, targets)
        for name, buffer in self._learnt():
            # What has not changed is left alone: the backward pass may need it, and would see that it was written to.
            if name in before and not torch.equal(buffer, before[name]):
                buffer.copy_(before[name].lerp(buffer, share))
        sound = torch.stack([losses[task].isfinite() & logits[task].isfinite().all(dim=1) for task in losses]).all(0)
        if weights is not None:
            total = (weights * self._sum(losses)).sum()
        else:
            total = self._sum({task: self.loss(task).reduce(each, targets[task]) for task, each in losses.items()})
        return total * torch.where(sound.all(), 1.0, torch.nan), sound

    def samples(self, logits: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return each sample's loss before any reduction, ``sum_k weight_k loss_k``, ``[N]``.

        As evaluation sees it: no loss learns from it, and nothing is drawn.
        """
        was_training = self.training
        self.eval()
        try:
            return self._sum(self._losses(logits, targets))
        finally:
            self.train(was_training)

    def _losses(self, logits: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {task: self.loss(task)(values, targets[task]) for task, values in logits.items()}

    def _learnt(self) -> list[tuple[str, Tensor]]:
        """Return the state that batches move, by name; counts of samples (integers) know no shares."""
        return [(name, buffer) for name, buffer in self.named_buffers() if buffer.is_floating_point()]

    def _sum(self, losses: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([self.weights[task] * each for task, each in losses.items()]).sum(0)

    def schedule(self, epoch: int) -> None:
        """Tell every loss the epoch (from 0)."""
        for task in self.losses:
            self.loss(task).schedule(epoch)

    def after_validation(self, stats: EpochStats) -> None:
        """Give every loss its task's validation results."""
        for task in self.losses:
            self.loss(task).after_validation(stats.tasks[task])
