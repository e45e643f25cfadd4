"""Predict with the network of a run, from its directory alone: scores by class name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hoi_train.core.records import ClassList, Task, UserError
from hoi_train.core.strict_yaml import ConfigError
from hoi_train.data.dataset import ClipSample, collate
from hoi_train.data.inputs import ClipInput
from hoi_train.data.pair_dataset import PairSample, collate_pairs
from hoi_train.data.samplers import Item
from hoi_train.data.sampling import Indices
from hoi_train.data.views import average_views
from hoi_train.engine import checkpoint
from hoi_train.engine.experiment import rebuild
from hoi_train.engine.read_data import input_options
from hoi_train.engine.run import read_tasks, read_thresholds
from hoi_train.engine.train import load_network
from hoi_train.inference.loaded import LoadedRun
from hoi_train.metrics.thresholds import DEFAULT
from hoi_train.models.pooling import POOLING
from hoi_train.models.recognizer import Recognizer


@dataclass(frozen=True)
class Scores:
    """The scores of one clip or pair, for one task.

    Args:
        ranked: score of every class, 0..1, the highest first: softmax (single-label) or sigmoid (multi-label).
        predicted: the best class (single-label), or those whose score is above their threshold, as ranked.
    """

    ranked: Mapping[str, float]
    predicted: tuple[str, ...]

    @classmethod
    def of(cls, logits: Tensor, task: Task, threshold: Tensor | float = DEFAULT) -> Scores:
        """Make the scores of logits ``[C]``; the threshold may be one for each class, float64 ``[C]``."""
        precise = logits.double().cpu()
        values = precise.softmax(0) if task.labels == "single" else precise.sigmoid()
        order = values.argsort(descending=True, stable=True).tolist()
        above = (values > threshold).tolist()
        chosen = order[:1] if task.labels == "single" else [k for k in order if above[k]]
        names = task.classes.names
        return cls({names[k]: values[k].item() for k in order}, tuple(names[k] for k in chosen))

    def to_json(self, top: int) -> dict[str, Any]:
        """Return what is predicted, and the scores of that and of the ``top`` best classes, highest first."""
        best = dict.fromkeys([*islice(self.ranked, top), *self.predicted])
        kept = {name: round(score, 6) for name, score in self.ranked.items() if name in best}
        return {"predicted": list(self.predicted), "scores": kept}


@dataclass(frozen=True)
class Predictor:
    """A trained network with the inputs of evaluation.

    Args:
        run: the run and its checkpoint.
        tasks: by name.
        object_classes: classes of the objects of pairs, if the run has them.
        thresholds: of some multi-label tasks, float64 ``[C]``.
        model: in evaluation mode, on its device.
        input: frames and transforms of the test split.
    """

    run: LoadedRun
    tasks: Mapping[str, Task]
    object_classes: ClassList | None
    thresholds: Mapping[str, Tensor]
    model: Recognizer
    input: ClipInput

    @property
    def objects(self) -> ClassList:
        """The classes of the objects of pairs, of a network that labels pairs."""
        assert self.object_classes is not None  # such a run is not made without them
        return self.object_classes

    @property
    def of_pairs(self) -> bool:
        """Whether it labels human-object pairs, and not whole clips."""
        return POOLING[self.run.config.model.pooling.name].of == "pair"

    def frames(self, available: int, key: int | None = None) -> list[Indices]:
        """Return the frames to read of a clip for each view, int64 ``[T]`` in ``0..available-1``."""
        return [self.input.frames(available, "", Item(0, view=view), key) for view in range(self.num_views)]

    def clip(self, name: str, frames: Tensor, view: int) -> ClipSample:
        """Return one view of a clip as the network sees it.

        Args:
            name: of the clip, for messages.
            frames: uint8 ``[T, H, W, 3]``, those of ``frames``.
            view: its number.
        """
        return ClipSample(self.input.transform(frames, name, Item(0, view=view)).video, {}, 0, name, view=view)

    def key_frame(self, name: str, frames: Tensor, boxes: Tensor, objects: Tensor, key: int, view: int) -> PairSample:
        """Return one view of a key frame with its M pairs as the network sees it.

        Args:
            name: of the key frame, for messages.
            frames: uint8 ``[T, H, W, 3]``, those of ``frames``.
            boxes: float32 ``[M, 2, T, 4]``, of person and object, in pixels of the frames.
            objects: int64 ``[M]``, class of the object.
            key: which of the T frames is the key frame.
            view: its number.
        """
        video, moved, _ = self.input.transform(frames, name, Item(0, view=view), boxes.reshape(-1, 4))
        assert moved is not None
        pairs = torch.arange(len(boxes))
        return PairSample(video, {}, 0, name, moved.view(boxes.shape), key, objects, pairs, view=view)

    def scores(self, samples: Iterable[ClipSample]) -> Iterator[list[dict[str, Scores]]]:
        """Yield for each clip or key frame the scores of the clip or of each of its pairs, by task.

        Batches are as large as those of training, which fitted into memory.

        Args:
            samples: all views of a clip or key frame one after the other.
        """
        logits = self._logits(iter(samples))
        while views := list(islice(logits, self.num_views)):
            columns = {
                name: average_views(torch.stack([view[name] for view in views], dim=1), task.labels)
                for name, task in self.tasks.items()
            }
            yield [
                {
                    task: Scores.of(row, self.tasks[task], self.thresholds.get(task, DEFAULT))
                    for task, row in zip(columns, rows, strict=True)
                }
                for rows in zip(*columns.values(), strict=True)
            ]

    @property
    def num_views(self) -> int:
        """Views of each clip or key frame."""
        return len(self.input.views)

    def _logits(self, samples: Iterator[ClipSample]) -> Iterator[dict[str, Tensor]]:
        """Yield the logits of each sample by task, floating ``[rows, C]``."""
        while batch := list(islice(samples, self.run.config.training.batch_size)):
            yield from self._batch_logits(batch)

    @torch.no_grad()
    def _batch_logits(self, samples: Sequence[ClipSample]) -> list[dict[str, Tensor]]:
        pairs = [sample for sample in samples if isinstance(sample, PairSample)]
        batch = (collate_pairs(pairs) if pairs else collate(samples)).map(self.run.fabric.to_device)
        with self.run.fabric.autocast():
            logits = self.model(**batch.inputs)
        for task, values in logits.items():
            bad = (~values.isfinite().all(1)).nonzero()
            if len(bad):
                name = batch.row_ids[int(bad[0])]
                raise UserError(f"{name}: logits of task {task!r} are nan or infinite: the run's weights have diverged")
        counts = [len(sample.pairs) for sample in pairs] or [1] * len(samples)
        parts = zip(*(values.split(counts) for values in logits.values()), strict=True)
        return [dict(zip(logits, of_sample, strict=True)) for of_sample in parts]


def load_predictor(folder: Path, which: str = "best") -> Predictor:
    """Load the network of a run's ``best`` or ``last`` checkpoint; the run's data need not be there.

    Raises:
        ConfigError: no run directory, or one whose record or checkpoint does not fit its configuration.
        CheckpointError: it has no valid checkpoint.
    """
    run = LoadedRun.open(folder, which)
    tasks, object_classes = read_tasks(folder)
    model = rebuild(run.config, tasks, object_classes).eval()
    try:
        load_network(model, checkpoint.load(run.chosen, run.fabric.device))
    except RuntimeError as error:
        raise ConfigError(f"{run.chosen.path}: not a checkpoint of the run's network: {error}") from None
    run.fabric.to_device(model)
    return Predictor(
        run=run,
        tasks=tasks,
        object_classes=object_classes,
        thresholds=read_thresholds(folder, run.chosen, tasks),
        model=model,
        input=ClipInput(**input_options(run.config, "test")),
    )
