"""The recognizer: one backbone, one pooling, one head a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from torch import Tensor, nn

from hoi_train.core.batches import PairBatch
from hoi_train.core.records import Task, nearest
from hoi_train.models.pooling import POOLING, MeanPool, Pooling
from hoi_train.models.preprocessing import PREPROCESSING, Normalize, Preprocessing


class Recognizer(nn.Module):
    """Recognise what happens in a clip or in its pairs: preprocess, extract features, pool them, ask every head.

    ``model.to(memory_format=torch.channels_last_3d)`` is enough to run the whole network in that layout, which is that
    of the loader's batches.

    Args:
        backbone: maps floating ``[N, 3, T, S, S]`` to ``[N, F, t, h, w]``; its ``num_features`` is F.
        heads: for each task a module that maps the pooled features to its logits.
        preprocessing: what the backbone's weights were, or will be, trained on.
        pooling: makes of the map features of clips ``[N, D]`` or pairs ``[M, D]``; the mean over a clip if not given.

    Raises:
        ValueError: if a task's name cannot name a module.
    """

    def __init__(
        self,
        backbone: nn.Module,
        heads: Mapping[str, nn.Module],
        preprocessing: Preprocessing,
        pooling: Pooling | None = None,
    ) -> None:
        super().__init__()
        self.normalize = Normalize(preprocessing)
        self.backbone = backbone
        self.pooling = MeanPool(cast(int, backbone.num_features)) if pooling is None else pooling
        self.heads = nn.ModuleDict()
        for task, head in heads.items():
            try:
                self.heads[task] = head
            except KeyError as error:  # "type", "keys", a dot: taken by nn.Module, or not allowed there
                raise ValueError(f"task name {task!r} cannot name a head; rename the task: {error.args[0]}") from None

    @property
    def num_features(self) -> int:
        """Features D that the heads are given."""
        return self.pooling.num_features

    def features(self, video: Tensor, pairs: PairBatch | None = None) -> Tensor:
        """Return the pooled features.

        Args:
            video: uint8 RGB ``[N, 3, T, S, S]``.
            pairs: the M pairs of the clips, where the pooling is of pairs.

        Returns:
            Floating, of the clips ``[N, D]`` or of the pairs ``[M, D]``.

        Raises:
            ValueError: if pairs are missing, or given to a pooling of whole clips.
        """
        if (pairs is None) != (self.pooling.of == "clip"):
            given = "no pairs" if pairs is None else "pairs"
            raise ValueError(f"the recognizer labels {_KINDS[self.pooling.of]}, but was given {given}")
        features: Tensor = self.pooling(self.backbone(self.normalize(video)), pairs, video.shape[-1], video.shape[2])
        return features

    def forward(self, video: Tensor, pairs: PairBatch | None = None) -> dict[str, Tensor]:
        """Return for each task the logits, ``[N, C]`` of clips or ``[M, C]`` of pairs; see ``features``."""
        features = self.features(video, pairs)
        return {task: head(features) for task, head in self.heads.items()}


def build_recognizer(
    backbone: nn.Module,
    tasks: Mapping[str, Task],
    heads: Mapping[str, Callable[[int, int], nn.Module]],
    preprocessing: str,
    pooling: Callable[[int, int], Pooling] = MeanPool,
    num_objects: int = 0,
) -> Recognizer:
    """Join a backbone with a new pooling and a new head for each task.

    Args:
        backbone: from ``BACKBONES``; its ``num_features`` sizes the pooling.
        tasks: the tasks by name, all of whole clips or all of pairs.
        heads: for each task what builds its head from ``(num_features, num_classes)``, for example
            ``functools.partial(HEADS["linear"], dropout=0.5)``.
        preprocessing: a name in ``PREPROCESSING``.
        pooling: what builds the pooling from ``(num_features, num_objects)``, for example
            ``functools.partial(POOLING["roi"], along="trajectory")``; its own ``num_features`` sizes the heads.
        num_objects: classes of objects of the data; 0 if it has none.

    Raises:
        ValueError: if tasks and heads differ, the pooling is not of what the tasks label, or the preprocessing is
            unknown.
    """
    if preprocessing not in PREPROCESSING:
        allowed = ", ".join(PREPROCESSING)
        hint = nearest(preprocessing, list(PREPROCESSING))
        raise ValueError(f"preprocessing {preprocessing!r} is unknown{hint}; allowed: {allowed}")
    if tasks.keys() != heads.keys():
        raise ValueError(f"every task needs one head: tasks {', '.join(tasks)}; heads {', '.join(heads)}")
    pool = pooling(cast(int, backbone.num_features), num_objects)
    _check_pooling(pool, tasks)
    built = {name: heads[name](pool.num_features, task.num_classes) for name, task in tasks.items()}
    return Recognizer(backbone, built, PREPROCESSING[preprocessing], pool)


_KINDS = {"clip": "whole clips", "pair": "human-object pairs"}


def _check_pooling(pooling: Pooling, tasks: Mapping[str, Task]) -> None:
    """Raise unless all tasks label what the pooling makes features of."""
    others = [task for task in tasks.values() if task.of != pooling.of]
    if not others:
        return
    names, kind = ", ".join(task.name for task in others), others[0].of
    if len(others) < len(tasks):
        raise ValueError(f"a network labels whole clips or human-object pairs, not both: {names} labels {_KINDS[kind]}")
    fitting = ", ".join(name for name, each in POOLING.items() if each.of == kind)
    raise ValueError(
        f"{names} labels {_KINDS[kind]}, but the pooling gives features of {_KINDS[pooling.of]}; "
        f"choose a pooling of {_KINDS[kind]}: {fitting}"
    )
