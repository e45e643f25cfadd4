"""A synthetic long-tailed set of human-object interactions with exact ground truth.

    hoi-data demo --out data/demo --clips 1000

A hand reaches for an object, acts on it and leaves: eight verbs, nine nouns, eight pair predicates. The four rare
verbs are the four common ones played backwards, so a network that only looks at single frames cannot tell ``put`` from
``take``, and one that has learnt little from few examples predicts the common verb for the rare one.

Tasks of the manifest:

- ``verb``, one per clip, in the order from the most common to the rarest.
- ``noun``, one or two per clip: the kind that the hand acts on, and the tray that it is taken from or put on.
  Distractors are not labelled.
- ``predicate``, any number per pair of the hand and an object, distractors included, in every fourth frame, with boxes
  in pixels; ``data_tools/demo/pairs.py`` defines each. Hand and objects have tracks through all frames.

The group of a clip is its actor, a colour of skin and sleeve; no actor is in two splits. Training counts follow
``n_c = n_max imbalance^(-c / (C - 1))``, c = 0 .. C - 1 (Cui et al., CVPR 2019, section 5); val and test are balanced.
``demo.json`` beside the manifest holds the options, the counts and the exact imbalance; ``detections.parquet`` holds
simulated detections in the clips of val and test (``data_tools/demo/detections.py``).
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from data_tools.demo.camera import Film, film
from data_tools.demo.detections import detect
from data_tools.demo.objects import NOUNS
from data_tools.demo.pairs import PREDICATES, annotate, follow
from data_tools.demo.scene import REVERSED, VERBS, DemoActor, acted_on, play
from data_tools.encoding import write_mp4
from hoi_train.core.randomness import seed_of
from hoi_train.core.records import SPLITS, ClassList, Split, Task, UserError
from hoi_train.data.detections_file import DETECTIONS, write_detections
from hoi_train.data.manifest import write_manifest
from hoi_train.data.manifest.tasks import DATASET_FILE

TASKS = (
    Task("verb", ClassList(VERBS), "single"),
    Task("noun", ClassList(NOUNS), "multi"),
    Task("predicate", ClassList(PREDICATES), "multi", of="pair"),
)
FPS = 24
SIZES = range(64, 129, 2)  # H.264 (yuv420p) subsamples colour by 2, so sides are even
MOST_CLIPS = 1_000_000
HELD_OUT = 10  # minimum clips per verb in val and in test: recall in steps of at most 0.1
HELD_OUT_SHARE = 0.3
ACTORS: Mapping[Split, range] = {"train": range(16), "val": range(16, 22), "test": range(22, 28)}
NOTE = "demo.json"

Counts = Mapping[Split, tuple[int, ...]]


@dataclass(frozen=True)
class _Plan:
    """A clip to generate."""

    clip_id: str
    split: Split
    verb: str
    kind: str
    seed: int
    actor: int


def make_demo(out: Path, *, clips: int = 300, imbalance: float = 50.0, size: int = 96, seed: int = 0) -> Path:
    """Write the videos and the manifest of a demo set; the same options make the same bytes on one machine.

    Args:
        out: folder to write; new, empty, or an earlier demo set, which is replaced.
        clips: number of clips of all splits together.
        imbalance: training clips of the most common verb over those of the rarest, at least 1.
        size: width and height in pixels, even, 64 to 128.
        seed: random seed; another seed gives other clips.

    Returns:
        The manifest's path.

    Raises:
        UserError: an option is out of range, the clips are too few, or the folder holds something else.
    """
    if size not in SIZES:
        raise UserError(f"size {size}: the side must be an even number of pixels from {SIZES[0]} to {SIZES[-1]}")
    counts = split_counts(clips, imbalance)
    _clear(out)
    (out / "clips").mkdir(parents=True)
    (out / NOTE).write_text(json.dumps(_note(counts, size, seed), indent=2) + "\n", encoding="utf-8")
    seeds = (seed_of(seed, "demo", "actor", number) for number in range(ACTORS["test"].stop))
    actors = [DemoActor.draw(np.random.default_rng(each)) for each in seeds]

    def make(plan: _Plan) -> dict[str, Any]:
        return _make(out, plan, actors[plan.actor], size)

    console = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(make, _plans(counts, seed))
        rows = list(track(made, "making clips", total=clips, console=console, disable=not console.is_terminal))
    classes = ClassList(NOUNS)
    found = [detect(row, seed) for row in rows if row["split"] != "train"]
    write_detections(out / DETECTIONS, found, classes)
    return write_manifest(out / "manifest.parquet", rows, TASKS, root=out, object_classes=classes)


def split_counts(clips: int, imbalance: float) -> Counts:
    """Divide the clips among splits and verbs.

    Training gets the largest long tail of this imbalance, rounded to whole clips, that leaves 30 % of all clips, and 10
    clips per verb each, to val and test.

    Returns:
        The clips per verb, in the order of ``VERBS``, for each split.

    Raises:
        UserError: ``imbalance`` is below 1, or the clips are too few for it or more than ``MOST_CLIPS``.

    >>> split_counts(300, 50)["train"], split_counts(300, 50)["val"]
    ((50, 29, 16, 9, 5, 3, 2, 1), (11, 11, 11, 12, 12, 12, 12, 12))
    """
    if not (math.isfinite(imbalance) and imbalance >= 1):
        raise UserError(f"imbalance {imbalance}: most frequent over rarest verb must be a number of at least 1")
    if clips > MOST_CLIPS:
        raise UserError(f"clips {clips}: a demo set has at most {MOST_CLIPS:,}; ask for fewer")
    held_out = 2 * HELD_OUT * len(VERBS)
    least = sum(long_tail(1, imbalance))
    if clips < least + held_out:
        raise UserError(
            f"clips {clips}: an imbalance of {imbalance:g} over {len(VERBS)} verbs needs at least {least + held_out}: "
            f"{least} to train on and {HELD_OUT} of each verb in val and in test; ask for more clips or less imbalance"
        )
    room = min(clips - held_out, int((1 - HELD_OUT_SHARE) * clips))
    rarest = 1
    while sum(long_tail(rarest + 1, imbalance)) <= room:
        rarest += 1
    train = long_tail(rarest, imbalance)
    rest = clips - sum(train)
    return {"train": train, "val": _evenly(rest - rest // 2), "test": _evenly(rest // 2)}


def long_tail(rarest: int, imbalance: float) -> tuple[int, ...]:
    """Return the training clips per verb, from the most common to the ``rarest``.

    >>> long_tail(6, 50)
    (300, 172, 98, 56, 32, 18, 10, 6)
    """
    most = round(rarest * imbalance)
    return tuple(round(most * imbalance ** (-c / (len(VERBS) - 1))) for c in range(len(VERBS)))


def shoot(verb: str, kind: str, seed: int, actor: DemoActor, size: int) -> tuple[Film, tuple[str, ...]]:
    """Render a clip of a verb and return it with its nouns; a reversed verb is its partner played backwards."""
    rng = np.random.default_rng(seed)
    scene = play(verb, kind, rng, actor)
    forward = film(scene, size, rng)
    return forward.reversed() if verb in REVERSED else forward, scene.nouns


def _make(out: Path, plan: _Plan, actor: DemoActor, size: int) -> dict[str, Any]:
    """Write a clip and return its manifest row."""
    shot, nouns = shoot(plan.verb, plan.kind, plan.seed, actor, size)
    path = Path("clips") / f"{plan.clip_id}.mp4"
    write_mp4(out / path, shot.frames, fps=FPS)
    return {
        "clip_id": plan.clip_id,
        "path": path.as_posix(),
        "split": plan.split,
        "group": f"actor{plan.actor:02d}",
        "num_frames": len(shot.frames),
        "verb": plan.verb,
        "noun": list(nouns),
        "pairs": [asdict(pair) for pair in annotate(shot)],
        "tracks": [{**asdict(path), "boxes": path.boxes.tolist()} for path in follow(shot)],
    }


def _plans(counts: Counts, seed: int) -> Iterator[_Plan]:
    for split in SPLITS:
        for verb, count in zip(VERBS, counts[split], strict=True):
            kinds = acted_on(verb)
            for number in range(count):
                clip_id = f"{split}_{verb}_{number:04d}"
                actors = ACTORS[split]
                actor = actors[seed_of(seed, "demo", clip_id, "actor") % len(actors)]
                kind = kinds[number % len(kinds)]  # round-robin, so that few clips cover all kinds
                yield _Plan(clip_id, split, verb, kind, seed_of(seed, "demo", clip_id), actor)


def _evenly(clips: int) -> tuple[int, ...]:
    """Divide clips among the verbs; the remainder goes to the rarest."""
    share, left = divmod(clips, len(VERBS))
    return tuple(share + (number >= len(VERBS) - left) for number in range(len(VERBS)))


def _note(counts: Counts, size: int, seed: int) -> dict[str, Any]:
    return {
        "clips": sum(map(sum, counts.values())),
        "imbalance": max(counts["train"]) / min(counts["train"]),
        "size": size,
        "seed": seed,
        "counts": {split: dict(zip(VERBS, counts[split], strict=True)) for split in SPLITS},
    }


def _clear(out: Path) -> None:
    """Remove an earlier demo set, manifest first, so that an interrupted run leaves none that names missing clips."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / NOTE).is_file():
        raise UserError(f"{out} holds files and no {NOTE}, so it is no demo set; name a new or an empty folder")
    for name in ("manifest.parquet", DATASET_FILE, DETECTIONS):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / "clips", ignore_errors=True)
