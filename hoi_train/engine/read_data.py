"""Read the data of a run as its configuration asks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from hoi_train.config import RunConfig
from hoi_train.core.records import SPLITS, Split
from hoi_train.core.schema import build
from hoi_train.core.strict_yaml import ConfigError
from hoi_train.data.dataset import ClipDataset
from hoi_train.data.loader import ClipLoader
from hoi_train.data.manifest import Manifest, read_manifest
from hoi_train.data.manifest.quarantine import LeftOut, leave_out, read_quarantine, refusal
from hoi_train.data.pair_dataset import PairDataset
from hoi_train.data.run_data import RunData
from hoi_train.data.sampling import PLANS
from hoi_train.data.transforms import TRANSFORMS
from hoi_train.engine.tasks import check_tasks


def read_data(config: RunConfig, *, rank: int = 0, world_size: int = 1) -> RunData:
    """Read the manifest and make one rank's loaders.

    Raises:
        ConfigError: configuration and manifest do not fit.
        ManifestError: the manifest has bad rows.
    """
    manifest, left_out = _sound_clips(config)
    clips = {split: manifest.split(split) for split in SPLITS}
    known = [name for name in config.tasks if name in manifest.tasks]
    counts = {split: {name: part.counts(name) for name in known} for split, part in clips.items()}
    groups = check_tasks(config, manifest, counts)
    tasks, data = {name: manifest.tasks[name] for name in config.tasks}, config.data
    make: Callable[..., ClipDataset] = ClipDataset
    if any(task.of == "pair" for task in tasks.values()):
        assert manifest.object_classes is not None  # check_tasks has refused it
        make = partial(PairDataset, objects=manifest.object_classes)
    made = {
        split: make(part, tasks, reader=data.reader, **input_options(config, split))
        for split, part in clips.items()
        if len(part)
    }
    datasets = {split: dataset for split, dataset in made.items() if len(dataset)}
    loader = partial(ClipLoader, rank=rank, world_size=world_size, workers=data.workers, timeout=data.timeout)
    return RunData(
        tasks=tasks,
        counts=counts,
        labels={split: {name: dataset.labels(name) for name in tasks} for split, dataset in datasets.items()},
        loaders={split: loader(dataset, config.training.batch_size) for split, dataset in datasets.items()},
        groups=groups,
        object_classes=manifest.object_classes,
        left_out=left_out,
    )


def input_options(config: RunConfig, split: Split) -> dict[str, Any]:
    """Return the arguments of ``ClipInput`` that a run has configured for a split."""
    data = config.data
    return {
        "transforms": (build(data.train, TRANSFORMS), build(data.evaluation, TRANSFORMS)),
        "num_frames": data.num_frames,
        "plan": build(data.plan, PLANS),
        "seed": config.seed,
        "views": data.views.of(split),
    }


def _sound_clips(config: RunConfig) -> tuple[Manifest, LeftOut | None]:
    """Read the manifest without quarantined clips; raises ``ConfigError`` if ``bad_clips: stop`` forbids them."""
    data = config.data
    if data.bad_clips == "quarantine" and data.quarantine is None:
        text = "missing; bad_clips: quarantine needs the quarantine.json of hoi-data verify"
        raise ConfigError(f"data.quarantine: {text}")
    manifest = read_manifest(data.manifest, data.root)
    if data.quarantine is None:
        return manifest, None
    bad = read_quarantine(data.quarantine, manifest)
    if data.bad_clips == "quarantine":
        return leave_out(manifest, bad, data.quarantine)
    if bad:
        raise ConfigError(refusal(data.quarantine, bad))
    return manifest, None
