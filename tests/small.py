"""A run small enough for tests: 3 verbs told apart by brightness and motion, 32 pixels, 24 clips of 8 frames."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data_tools.encoding import write_mp4
from hoi_train.core.randomness import seed_of
from hoi_train.core.records import ClassList, Task
from hoi_train.data.manifest import write_manifest

VERB = Task("verb", ClassList(("take", "put", "pour")), "single")
NOUN = Task("noun", ClassList(("cup", "plate")), "multi")
TRAIN_VERBS = (0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 0)
HELD_OUT_VERBS = (0, 1, 2, 0, 1)
SMALLEST = {"backbone": {"name": "resnet3d", "stage_depths": [1, 1, 1, 1], "block": "basic", "width": 1 / 16}}
"""A model for runs that save every step: saving takes longer than training, and depends on the number of tensors."""


def make_data(folder: Path) -> Path:
    """Write videos and manifest below a folder; return the manifest's path."""
    rows = []
    for split, verbs in (("train", TRAIN_VERBS), ("val", HELD_OUT_VERBS), ("test", HELD_OUT_VERBS)):
        for number, verb in enumerate(verbs):
            name = f"{split}_{number}"
            random = np.random.default_rng(seed_of("small", name))
            frames = random.integers(0, 60, (8, 32, 32, 3), dtype=np.uint8)
            for t, frame in enumerate(frames):
                x = {0: 2 * t, 1: 16 - 2 * t, 2: 8}[verb]
                frame[8:20, x : x + 10] = (200, 60 * verb, 90)
            write_mp4(folder / f"{name}.mp4", frames, fps=8)
            nouns = [NOUN.classes.names[i] for i in range(2) if (number + i) % 3 == 0]
            row = {"clip_id": name, "path": f"{name}.mp4", "split": split, "num_frames": 8}
            rows.append({**row, "verb": VERB.classes.names[verb], "noun": nouns})
    write_manifest(folder / "manifest.parquet", rows, [VERB, NOUN], root=folder)
    return folder / "manifest.parquet"


def make_config(folder: Path, manifest: Path, **changes: Any) -> Path:
    """Write a configuration of a run in ``folder``; return its path.

    Sections in ``changes`` are merged, but for one of another ``name``, which replaces the section.
    """
    config: dict[str, Any] = {
        "name": "small",
        "seed": 3,
        "runs": str(folder),
        "data": {
            "manifest": str(manifest),
            "num_frames": 4,
            "workers": 0,
            "train": {"name": "augment", "size": 32},
            "evaluation": {"name": "center_crop", "size": 32},
        },
        "model": {"backbone": {"name": "tiny_resnext3d", "cardinality": 2}},
        "tasks": {"verb": {"groups": {"name": "top_k", "k": 1}, "head": {"name": "linear", "dropout": 0.2}}},
        "loss": "cdb_ce",
        "optimizer": {"name": "sgd", "lr": 0.02},
        "training": {"epochs": 3, "batch_size": 4},
        "wandb": {"mode": "disabled"},
    }
    path = folder / "small.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(_merged(config, changes)))
    return path


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        key
        for key in base.keys() & changes.keys()
        if isinstance(base[key], dict)
        and isinstance(changes[key], dict)
        and base[key].get("name") == changes[key].get("name", base[key].get("name"))
    }
    return {**base, **changes, **{key: _merged(base[key], changes[key]) for key in both}}
