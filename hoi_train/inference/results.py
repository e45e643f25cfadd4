"""Evaluate a trained run on a split, with the annotated boxes or those of a detector."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric
from torch import Tensor

from hoi_train.core.disk import write_whole
from hoi_train.core.records import EpochStats, Split, UserError
from hoi_train.core.strict_json import finite
from hoi_train.core.strict_yaml import ConfigError
from hoi_train.data.detections_file import read_detections
from hoi_train.data.pair_dataset import PairDataset
from hoi_train.engine.evaluation import evaluate, network_rows
from hoi_train.engine.experiment import Experiment, assemble
from hoi_train.engine.run import (
    THRESHOLDS_FILE,
    check_same_data,
    read_thresholds,
    write_thresholds,
)
from hoi_train.engine.train import load_checkpoint
from hoi_train.inference.loaded import LoadedRun
from hoi_train.metrics import detected_scalars
from hoi_train.metrics.thresholds import fit_thresholds

ORACLE, DETECTED = "oracle", "detected"


@dataclass(frozen=True)
class SplitResult:
    """The result of evaluating a run on a split; equal on all ranks.

    Args:
        split: its name.
        rank: of this process; rank 0 has written the result into the run directory.
        stats: statistics of every task; ``None`` with the boxes of a detector.
        boxes: ``oracle`` or ``detected``, the boxes of pairs that the network saw; ``None`` for a run of clips.
        protocols: of pairs, by task, the averages of the published protocols.
        notes: sentences for the user.
    """

    split: Split
    rank: int
    stats: EpochStats | None
    boxes: str | None
    protocols: Mapping[str, Mapping[str, float]]
    notes: tuple[str, ...]


def evaluate_run(folder: Path, split: Split = "test", which: str = "best", *, fit: bool = False) -> SplitResult:
    """Evaluate a checkpoint (``best`` or ``last``) of a run on a split and write ``evaluation_<split>.json``.

    With ``fit`` the thresholds of multi-label tasks are fitted on the validation split first and written to the run's
    ``thresholds.json``; later evaluations of the same checkpoint use them.
    """
    run = LoadedRun.open(folder, which)
    experiment, fabric, chosen = _assemble(run, split), run.fabric, run.chosen
    data = experiment.data
    epoch = load_checkpoint(experiment, fabric, chosen)
    thresholds = _fit(experiment, fabric) if fit else read_thresholds(folder, chosen, data.tasks)
    tasks, batches = experiment.evaluations(split), data.loaders[split].evaluation()
    tasks |= {name: replace(tasks[name], threshold=threshold) for name, threshold in thresholds.items()}
    stats = evaluate(fabric, experiment.model, experiment.objective, batches, tasks, epoch, split)
    boxes = ORACLE if data.of_pairs else None
    if fabric.global_rank == 0:
        if fit:
            write_thresholds(folder, chosen, data.tasks, thresholds)
        _write(run, split, ({} if boxes is None else {"boxes": boxes}) | stats.to_json())
    notes = (f"thresholds: {folder / THRESHOLDS_FILE}, fitted on val",) if thresholds else ()
    protocols = {name: stats.tasks[name].scalars for name, task in tasks.items() if task.pairs is not None}
    return SplitResult(split, fabric.global_rank, stats, boxes, protocols, notes)


def evaluate_detected(folder: Path, split: Split, which: str, boxes: Path) -> SplitResult:
    """Evaluate a checkpoint of a run of pair tasks with the boxes of a detector, by the published protocols.

    The network scores the pairs that were detected in the annotated key frames of the split; the scores are compared
    with the annotation. Writes ``evaluation_<split>_detected.json``.

    Args:
        folder: the run directory.
        split: name of the split.
        which: ``best`` or ``last`` checkpoint.
        boxes: a file of detections, see ``detections_file``.

    Raises:
        UserError: the run labels clips, or nothing was detected in any key frame of the split.
        ManifestError: the file is not sound.
    """
    run = LoadedRun.open(folder, which)
    experiment, fabric = _assemble(run, split), run.fabric
    data, loader = experiment.data, experiment.data.loaders[split]
    annotated = loader.dataset
    if not isinstance(annotated, PairDataset):
        raise UserError(f"--boxes: {folder} labels whole clips; leave it out")
    dataset = annotated.on_detections(read_detections(boxes, annotated.objects))
    key_frames, lacking = len(annotated), len(annotated) - len(dataset)
    if not len(dataset):
        where = f"the {key_frames} key frames that {run.config.data.manifest} has in the split {split!r}"
        raise UserError(f"{boxes}: no pair was detected in {where}; it must have their clip_id and frame")
    epoch, detections = load_checkpoint(experiment, fabric, run.chosen), dataset.detections()
    batches = loader.of(dataset, loader.batch_size).evaluation()
    rows = network_rows(fabric, experiment.model, batches, data.tasks, split)
    scalars = {task: detected_scalars(annotated.truth(task), detections, logits) for task, (logits, _) in rows.items()}
    if fabric.global_rank == 0:
        flat = {f"{task}/{name}": value for task, found in scalars.items() for name, value in found.items()}
        result: dict[str, Any] = {
            "epoch": epoch,
            "split": split,
            "boxes": DETECTED,
            "boxes_file": str(boxes),
            "pairs": len(detections),
        }
        result |= {"key_frames": key_frames, "key_frames_without_detections": lacking}
        result |= {"scalars": finite(flat)}
        _write(run, f"{split}_{DETECTED}", result)
    text = f"{boxes}: {len(detections)} pairs; in {lacking} of {key_frames} key frames none, which count as missed"
    return SplitResult(split, fabric.global_rank, None, DETECTED, scalars, (text,))


def _assemble(run: LoadedRun, split: Split) -> Experiment:
    """Build the parts of a run again; raises ``ConfigError`` if its data have changed or lack the split."""
    experiment = assemble(run.config, rank=run.fabric.global_rank, world_size=run.fabric.world_size)
    if split not in experiment.data.loaders:
        raise ConfigError(f"{run.config.data.manifest} has no clips in the split {split!r}")
    # Other counts in training, or other bad clips left out, do not change what the classes mean.
    facts = experiment.data.facts()
    kept = ("classes", "labels", "of", "object_classes", "groups")
    check_same_data(run.folder, run.config, {key: facts[key] for key in kept})
    return experiment


def _write(run: LoadedRun, name: str, result: Mapping[str, Any]) -> None:
    content = {"checkpoint": run.chosen.path.name, **result}
    write_whole(run.folder / f"evaluation_{name}.json", json.dumps(content, indent=1))


def _fit(experiment: Experiment, fabric: Fabric) -> dict[str, Tensor]:
    """Return the thresholds of each multi-label task that fit the validation split best, float64 ``[C]``."""
    data = experiment.data
    tasks = {name: task for name, task in data.tasks.items() if task.labels == "multi"}
    if not tasks or "val" not in data.loaders:
        lacking = "no clips in the split 'val'" if tasks else "no multi-label task"
        raise ConfigError(f"--fit-thresholds: {experiment.config.data.manifest}: the run has {lacking}")
    rows = network_rows(fabric, experiment.model, data.loaders["val"].evaluation(), tasks, "val")
    return {name: fit_thresholds(*found) for name, found in rows.items()}
