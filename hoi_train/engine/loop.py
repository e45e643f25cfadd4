"""The training loop.

::

    for epoch in epochs:
        method.begin_stage, a new optimizer           once a stage
        method.schedule, freezing, objective.schedule idempotent
        for batch in batches(epoch):                  functions of (seed, epoch, clip)
            mix -> method.training_loss -> backward
            every `accumulate` batches:
                gradient norm finite on all ranks?    else stop and name the clips
                clip -> optimizer -> moving average
                save now and then; stop if a signal asks
        stats = evaluate(val)
        objective.after_validation, method.after_validation
        record, save
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hoi_train.config import Training
from hoi_train.core.batches import ClipBatch
from hoi_train.core.randomness import seed_of
from hoi_train.core.ranks import distributed, mean_over_ranks
from hoi_train.core.records import EpochStats, Split
from hoi_train.engine.epoch_table import epoch_table
from hoi_train.engine.evaluation import NonFiniteError, evaluate
from hoi_train.engine.experiment import Experiment
from hoi_train.engine.features import extract
from hoi_train.engine.progress import EpochBar, Throughput
from hoi_train.engine.run import Run
from hoi_train.methods.fit import Features, Step
from hoi_train.optim import set_learning_rate

Targets = Mapping[str, Tensor]


@dataclass(frozen=True)
class Cursor:
    """The position of a run: next is batch ``batch`` of epoch ``epoch``, after ``step`` updates."""

    stage: int = -1
    epoch: int = 0
    batch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Best:
    """The best value of the monitored metric so far and its epoch, -1 if there is none yet."""

    value: float = math.nan
    epoch: int = -1

    def updated(self, value: float, epoch: int, mode: str) -> Best:
        """Return the better of this and a new value; nan is never better."""
        better = value > self.value if mode == "max" else value < self.value
        return Best(value, epoch) if better or (math.isnan(self.value) and not math.isnan(value)) else self


class Stopped(Exception):  # noqa: N818 - not an error
    """The run was asked to stop and has saved its state."""


class Loop:
    """Train an experiment to its end, from the state in its run directory.

    Args:
        experiment: model, objective, method, data and configuration.
        fabric: devices, precision and ranks.
        run: the run directory's checkpoints, events and signals.
        console: shows progress; visible on rank 0 only.
    """

    def __init__(self, experiment: Experiment, fabric: Fabric, run: Run, console: Console) -> None:
        self.experiment, self.fabric, self.run, self.console = experiment, fabric, run, console
        self.config: Training = experiment.config.training
        self.network = experiment.model  # as it is saved; `self.model` is how the ranks train it
        fabric.to_device(self.network)
        self.objective = experiment.objective.to(fabric.device)
        self.stages = experiment.method.stages()
        self.base_lr: float = experiment.config.optimizer.hyper_parameters()["lr"]
        self.average = self._new_average()
        self.cursor, self.best = Cursor(), Best()
        self._window: list[tuple[tuple[str, ...], Tensor]] = []
        self._throughput, self._headed = Throughput(), False
        self._saved_at = time.monotonic()

    @property
    def evaluated_model(self) -> nn.Module:
        """The network that is evaluated: the moving average if there is one, else the trained one."""
        return self.average.module if self.average is not None else self.network

    def fit(self) -> None:
        """Train all remaining epochs.

        Raises:
            NonFiniteError: a logit, loss or gradient is not finite; the weights are those before the step.
            Stopped: a signal asked for it; the state is saved.
        """
        while self.cursor.epoch < self.config.epochs and not self._out_of_patience():
            epoch = self.cursor.epoch
            self._begin_epoch(epoch)
            self._train_epoch(epoch)
            stats = self.evaluate("val", epoch)
            if stats is not None:
                self.objective.after_validation(stats)
                self.experiment.method.after_validation(stats)
                self._record_validation(stats)
            self.cursor = replace(self.cursor, epoch=epoch + 1, batch=0)
            self._save(stats)

    def evaluate(self, split: Split, epoch: int) -> EpochStats | None:
        """Evaluate ``evaluated_model`` on a split; ``None`` if the split has no clips."""
        loader = self.experiment.data.loaders.get(split)
        if loader is None:
            return None
        tasks, batches = self.experiment.evaluations(split), loader.evaluation()
        return evaluate(self.fabric, self.evaluated_model, self.objective, batches, tasks, epoch, split)

    def _stage(self, epoch: int) -> int:
        return bisect_right(self.stages, epoch) - 1

    def _span(self) -> tuple[int, int]:
        """Return the epochs at which the current stage begins and ends."""
        begin, end, *_ = (*self.stages[self.cursor.stage :], self.config.epochs)
        return begin, end

    def _set_up(self) -> None:
        """Wrap the network for its ranks and make a new optimizer over the parameters that train now."""
        self.model: Any = None  # drops the hooks that an earlier wrapper has on the parameters
        compiled: Any = torch.compile(self.network) if self.config.compile else self.network
        self.model, self.optimizer = self.fabric.setup(compiled, self.experiment.make_optimizer(self.network))

    def _new_average(self) -> AveragedModel | None:
        if self.config.ema_decay is None:
            return None
        rule: Any = get_ema_multi_avg_fn(self.config.ema_decay)  # type: ignore[no-untyped-call]
        return AveragedModel(self.network, multi_avg_fn=rule, use_buffers=True)

    def _begin_epoch(self, epoch: int) -> None:
        method, stage = self.experiment.method, self._stage(epoch)
        begins = stage != self.cursor.stage
        if begins:
            torch.manual_seed(seed_of(self.experiment.config.seed, "stage", stage))
            self.network.load_state_dict(self.evaluated_model.state_dict())
            method.begin_stage(stage, self.network, self._features)
            self.cursor, self.best, self.average = replace(self.cursor, stage=stage), Best(), self._new_average()
        self.network.train()
        method.schedule(epoch, self.network)
        self.network.freeze()
        self.objective.schedule(epoch)
        if begins:
            self._set_up()
            about = {"step": self.cursor.step, "epoch": epoch, "stage": stage}
            self.run.record({"event": "stage", **about, **method.describe()})

    def _features(self, split: Split) -> Features:
        return extract(self.fabric, self.network, self.experiment.data.loaders[split].evaluation())

    def _train_epoch(self, epoch: int) -> None:
        loader, method = self.experiment.data.loaders["train"], self.experiment.method
        drawn = method.sampler(epoch)
        total = loader.num_batches(epoch, drawn)
        batches = loader.training(epoch, self.cursor.batch, drawn)
        method.begin_epoch(epoch, self.cursor.batch, total)
        title = f"epoch {epoch + 1}/{self.config.epochs}"
        self._throughput.reset()
        loader.pop_wait()  # begin_stage may have read all clips
        with EpochBar(self.console, title, total, self.cursor.batch) as bar:
            while self.cursor.batch < total:
                size = min(self.config.accumulate, total - self.cursor.batch)
                loss = self._update(islice(batches, size), size, epoch + self.cursor.batch / total)
                self.cursor = replace(self.cursor, batch=self.cursor.batch + size, step=self.cursor.step + 1)
                self._after_update(epoch, loss, loader.pop_wait(), bar, size)

    def _update(self, batches: Iterator[ClipBatch], size: int, moment: float) -> dict[str, float]:
        """Make one optimizer step from ``size`` batches and return loss, learning rate and gradient norm."""
        clip_norm, (begin, end) = self.config.clip_norm, self._span()
        factor = self.experiment.schedule.factor(moment - begin, end - begin)
        lr = set_learning_rate(self.optimizer, self.base_lr, factor)
        torch.manual_seed(seed_of(self.experiment.config.seed, "step", self.cursor.step, self.fabric.global_rank))
        losses, step = [], self._step(lr)
        self._window.clear()
        joint = np.random.default_rng(seed_of(self.experiment.config.seed, "mixing", self.cursor.step))
        for number, batch in enumerate(batches, start=1):
            placed = self.experiment.mixing(self._place(batch), joint)
            with self.fabric.no_backward_sync(self.model, enabled=number < size):
                loss = self.experiment.method.training_loss(self.model, placed, step)
                self.fabric.backward(loss / size)
            losses.append(loss.detach())
            self._throughput.add(len(batch) * self.fabric.world_size, 0.0)
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        # A value that is not finite on one rank has reached every rank's gradients: all of them stop here.
        if not math.isfinite(float(norm)):
            self._refuse_update(float(norm))
        if clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.network.parameters(), clip_norm, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.network)
            for averaged, buffer in zip(self.average.module.buffers(), self.network.buffers(), strict=True):
                if not buffer.is_floating_point():  # torch would average and truncate integer buffers
                    averaged.copy_(buffer)
        return {"loss": float(mean_over_ranks(torch.stack(losses).mean())), "lr": lr, "gradient_norm": float(norm)}

    def _place(self, batch: ClipBatch) -> ClipBatch:
        return batch.map(self.fabric.to_device)

    def _step(self, lr: float) -> Step:
        """Build the ``Step`` passed to ``training_loss``."""
        autocast = self.fabric.autocast
        return Step(self._objective, self._losses, self.network, lr, self._place, autocast, self._note)

    def _objective(self, batch: ClipBatch, logits: Targets, weights: Tensor | None = None) -> Tensor:
        loss, sound = self.objective(logits, batch.shares, weights)
        self._note(batch, sound)
        return loss  # type: ignore[no-any-return]

    def _losses(self, batch: ClipBatch, logits: Targets) -> Tensor:
        return batch.blend(lambda targets: self.objective.samples(logits, targets))

    def _note(self, batch: ClipBatch, sound: Tensor) -> None:
        """Record non-finite samples, so that the error can name their clips."""
        self._window.append((batch.row_ids, sound))

    def _refuse_update(self, norm: float) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        mine = [ids[i] for ids, sound in self._window for i in (~sound).nonzero().flatten().tolist()]
        clips = list(dict.fromkeys(mine))  # some methods compute the loss twice
        if distributed():
            everyones: list[list[str]] = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(everyones, mine)
            clips = list(dict.fromkeys(clip for ids in everyones for clip in ids))
        cause = f"the loss of these clips is: {', '.join(clips[:10])}" if clips else f"the gradient's norm is {norm}"
        raise NonFiniteError(
            f"step {self.cursor.step}: not a finite number, so the weights were left as they were; {cause}. "
            "Look at these clips (hoi-data verify), or lower optimizer.lr, or set training.clip_norm"
        )

    def _after_update(self, epoch: int, values: dict[str, float], waited: float, bar: EpochBar, size: int) -> None:
        self._throughput.add(0, waited)
        values |= self._throughput.scalars()
        self.run.record({"event": "train", "step": self.cursor.step, "epoch": epoch, "scalars": values})
        bar.advance(size, values)
        checkpoints = self.experiment.config.checkpoints
        stop = self._anyone(self.run.stop_requested)
        due = checkpoints.every_steps is not None and self.cursor.step % checkpoints.every_steps == 0
        if stop or due or time.monotonic() - self._saved_at > 60 * checkpoints.every_minutes:
            self._save(None)
        if stop:
            raise Stopped

    def _anyone(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank."""
        if not distributed():
            return flag
        said = torch.tensor(float(flag), device=self.fabric.device)
        return bool(self.fabric.all_reduce(said, reduce_op="sum"))

    def _record_validation(self, stats: EpochStats) -> None:
        self.console.print(epoch_table(stats, heading=not self._headed))
        self._headed = True
        self.run.record({"event": "evaluation", "step": self.cursor.step, **stats.to_json()})
        for task in stats.tasks:
            weights = self.objective.loss(task).class_weights()
            if weights is not None:
                row = {"event": "weights", "step": self.cursor.step, "epoch": stats.epoch, "task": task}
                self.run.record({**row, "values": weights.tolist()})

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.best.epoch >= 0 and self.cursor.epoch - 1 - self.best.epoch >= patience

    def _save(self, stats: EpochStats | None) -> None:
        checkpoints = self.experiment.config.checkpoints
        metric = math.nan
        if stats is not None:
            metric = stats.scalars()[self.experiment.monitor]
            self.best = self.best.updated(metric, stats.epoch, checkpoints.mode)
        if self.fabric.global_rank == 0:
            self.run.save(self.state(), asdict(self.cursor), metric)
        self._saved_at = time.monotonic()

    def state(self) -> dict[str, Any]:
        """Return all state that the next step depends on."""
        return {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
            "method": self.experiment.method.state_dict(),
            "average": self.average.state_dict() if self.average is not None else {},
            "best": asdict(self.best),
        }

    def restore(self, state: Mapping[str, Any], cursor: Mapping[str, int]) -> None:
        """Restore a saved state."""
        self.best, self.cursor = Best(**state["best"]), Cursor(**cursor)
        self.network.load_state_dict(state["model"])
        self.objective.load_state_dict(state["objective"])
        self.experiment.method.load_state_dict(state["method"])
        within_stage = self._stage(self.cursor.epoch) == self.cursor.stage
        if within_stage:  # otherwise the next epoch begins a stage, with a new optimizer
            self.experiment.method.schedule(self.cursor.epoch, self.network)
            self.network.freeze()
            self._set_up()
            self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
