"""The objective of a run: the weighted sum of its tasks' losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hoi_train.core.records import EpochStats
from hoi_train.losses.base import Loss


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
        shares: Sequence[tuple[Mapping[str, Tensor], float]],
        weights: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the total and whether each sample is sound.

        Args:
            logits: ``[N, C]`` for each task.
            shares: targets, int64 ``[N]`` or floating ``[N, C]`` for each task, and their share in 0..1: one with 1,
                or those of clips that were mixed. Losses that learn from batches see all of them from where they
                stand, and then learn from each by its share; counts of samples (integers) know no shares.
            weights: floating ``[N]``; with them the total is ``sum_i w_i sum_k weight_k loss_ki`` and nothing is
                reduced.

        Returns:
            The scalar total, which is nan if any logit or loss is not finite, whatever the loss makes of it (a
            sigmoid loss maps an infinite logit to 0, which would hide it); bool ``[N]``, true where all is finite.
        """
        before = {name: buffer.clone() for name, buffer in self.named_buffers()} if len(shares) > 1 else {}
        totals, sound, learnt = [], [], []
        for targets, share in shares:
            losses = self._losses(logits, targets)
            learnt.append(self._take_back(before))
            sound += [losses[task].isfinite() & logits[task].isfinite().all(dim=1) for task in losses]
            if weights is not None:
                total = (weights * self._sum(losses)).sum()
            else:
                total = self._sum({task: self.loss(task).reduce(each, targets[task]) for task, each in losses.items()})
            totals.append(share * total)
        for name, buffer in self.named_buffers():
            for (_, share), changes in zip(shares, learnt, strict=True):
                if name in changes:
                    buffer += share * changes[name] if buffer.is_floating_point() else changes[name]
        all_sound = torch.stack(sound).all(0)
        return torch.stack(totals).sum() * torch.where(all_sound.all(), 1.0, torch.nan), all_sound

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

    def _take_back(self, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Put the buffers of before back where the losses have learnt, and return by how much each had changed.

        What has not changed is left alone: the backward pass may need it, and would see that it was written to.
        """
        buffers = {name: buffer for name, buffer in self.named_buffers() if name in before}
        changes = {name: new - before[name] for name, new in buffers.items() if not torch.equal(new, before[name])}
        for name in changes:
            buffers[name].copy_(before[name])
        return changes

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
