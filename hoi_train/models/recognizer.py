"""The recognizer: one backbone, one head a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from torch import Tensor, nn

from hoi_train.models.preprocessing import PREPROCESSING, Normalize, Preprocessing
from hoi_train.records import Task, nearest


class Recognizer(nn.Module):
    """Recognise what happens in a clip: preprocess, extract features, pool them, ask every head.

    ``model.to(memory_format=torch.channels_last_3d)`` is enough to run the whole network in that layout: the first
    convolution converts the video.

    Args:
        backbone: maps floating ``[N, 3, T, S, S]`` to ``[N, F, t, h, w]``.
        heads: for each task a module that maps ``[N, F]`` to ``[N, C]``.
        preprocessing: what the backbone's weights were, or will be, trained on.

    Raises:
        ValueError: if a task's name cannot name a module.
    """

    def __init__(self, backbone: nn.Module, heads: Mapping[str, nn.Module], preprocessing: Preprocessing) -> None:
        super().__init__()
        self.normalize = Normalize(preprocessing)
        self.backbone = backbone
        self.heads = nn.ModuleDict()
        for task, head in heads.items():
            try:
                self.heads[task] = head
            except KeyError as error:  # "type", "keys", a dot: taken by nn.Module, or not allowed there
                raise ValueError(f"task name {task!r} cannot name a head; rename the task: {error.args[0]}") from None

    def features(self, video: Tensor) -> Tensor:
        """Return the features ``[N, F]``, averaged over time and space, of uint8 RGB video ``[N, 3, T, S, S]``."""
        feature_map: Tensor = self.backbone(self.normalize(video))
        # The same as AdaptiveAvgPool3d(1), whose gradient is not deterministic on CUDA.
        return feature_map.mean(dim=(2, 3, 4))

    def forward(self, video: Tensor) -> dict[str, Tensor]:
        """Return for each task the logits ``[N, C]`` of uint8 RGB video ``[N, 3, T, S, S]``."""
        features = self.features(video)
        return {task: head(features) for task, head in self.heads.items()}


def build_recognizer(
    backbone: nn.Module,
    tasks: Mapping[str, Task],
    heads: Mapping[str, Callable[[int, int], nn.Module]],
    preprocessing: str,
) -> Recognizer:
    """Join a backbone with a new head for each task.

    Args:
        backbone: from ``BACKBONES``; its ``num_features`` sizes the heads.
        tasks: the tasks by name, each of whole clips.
        heads: for each task what builds its head from ``(num_features, num_classes)``, for example
            ``functools.partial(HEADS["linear"], dropout=0.5)``.
        preprocessing: a name in ``PREPROCESSING``.

    Raises:
        ValueError: if tasks and heads differ, a task is of pairs, or the preprocessing is unknown.
    """
    if preprocessing not in PREPROCESSING:
        allowed = ", ".join(PREPROCESSING)
        hint = nearest(preprocessing, list(PREPROCESSING))
        raise ValueError(f"preprocessing {preprocessing!r} is unknown{hint}; allowed: {allowed}")
    if tasks.keys() != heads.keys():
        raise ValueError(f"every task needs one head: tasks {', '.join(tasks)}; heads {', '.join(heads)}")
    of_pairs = [name for name, task in tasks.items() if task.of == "pair"]
    if of_pairs:
        raise ValueError(f"a recognizer labels whole clips, but {', '.join(of_pairs)} labels human-object pairs")
    num_features = cast(int, backbone.num_features)
    built = {name: heads[name](num_features, task.num_classes) for name, task in tasks.items()}
    return Recognizer(backbone, built, PREPROCESSING[preprocessing])
