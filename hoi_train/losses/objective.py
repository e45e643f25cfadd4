"""The objective of a run: the weighted sum of the tasks' losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hoi_train.core.records import EpochStats
from hoi_train.losses.base import Loss


class Objective(nn.Module):
    """Sum the reduced loss of every task: ``total = sum_k weight_k * reduce_k(loss_k(logits_k, target_k))``.

    Args:
        losses: by task.
        weights: >= 0, factor of each task's loss; 1 by default.
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
        """Return the total and which samples are finite.

        Args:
            logits: ``[N, C]`` by task.
            shares: targets, int64 ``[N]`` or floating ``[N, C]`` by task, each with a share in 0..1: one with share 1,
                or those of mixed clips. Losses with state compute all of them from the same state, and then update it
                by each with its share; integer counts of samples are updated in full.
            weights: floating ``[N]``; the total is then ``sum_i w_i sum_k weight_k loss_ki`` without the losses'
                reductions.

        Returns:
            The scalar total, nan if any logit or loss is not finite, even if the loss is (a sigmoid loss maps an
            infinite logit to 0); bool ``[N]``, which samples are finite.
        """
        before = {name: buffer.clone() for name, buffer in self.named_buffers()} if len(shares) > 1 else {}
        totals, sound, changed = [], [], []
        for targets, share in shares:
            losses = self._losses(logits, targets)
            changed.append(self._restore(before))
            sound += [losses[task].isfinite() & logits[task].isfinite().all(dim=1) for task in losses]
            if weights is not None:
                total = (weights * self._sum(losses)).sum()
            else:
                total = self._sum({task: self.loss(task).reduce(each, targets[task]) for task, each in losses.items()})
            totals.append(share * total)
        for name, buffer in self.named_buffers():
            for (_, share), changes in zip(shares, changed, strict=True):
                if name in changes:
                    buffer += share * changes[name] if buffer.is_floating_point() else changes[name]
        all_sound = torch.stack(sound).all(0)
        return torch.stack(totals).sum() * torch.where(all_sound.all(), 1.0, torch.nan), all_sound

    def samples(self, logits: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> Tensor:
        """Return each sample's loss before any reduction, ``sum_k weight_k loss_k``, ``[N]``.

        Computed in evaluation mode: no loss updates its state or draws random numbers.
        """
        was_training = self.training
        self.eval()
        try:
            return self._sum(self._losses(logits, targets))
        finally:
            self.train(was_training)

    def _losses(self, logits: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {task: self.loss(task)(values, targets[task]) for task, values in logits.items()}

    def _restore(self, before: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Restore the buffers that the losses have changed, and return the changes.

        Unchanged buffers are not written to, because the backward pass may need them.
        """
        buffers = {name: buffer for name, buffer in self.named_buffers() if name in before}
        changes = {name: new - before[name] for name, new in buffers.items() if not torch.equal(new, before[name])}
        for name in changes:
            buffers[name].copy_(before[name])
        return changes

    def _sum(self, losses: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([self.weights[task] * each for task, each in losses.items()]).sum(0)

    def schedule(self, epoch: int) -> None:
        """Pass the epoch (from 0) to every loss."""
        for task in self.losses:
            self.loss(task).schedule(epoch)

    def after_validation(self, stats: EpochStats) -> None:
        """Pass every loss its task's validation results."""
        for task in self.losses:
            self.loss(task).after_validation(stats.tasks[task])
