"""The recognizer: one backbone, one pooling, one head per task."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from hoi_train.core.batches import PairBatch
from hoi_train.core.records import Task, nearest
from hoi_train.models.pooling import POOLING, MeanPool, Pooling
from hoi_train.models.preprocessing import PREPROCESSING, Normalize, Preprocessing
from hoi_train.models.spec import BackboneSpec, LayerGroups, PublishedWeights, lies_in

if TYPE_CHECKING:
    from typing_extensions import Self


class Recognizer(nn.Module):
    """Label clips or their pairs: preprocess, extract features, pool them, apply every head.

    ``model.to(memory_format=torch.channels_last_3d)`` is enough to run the whole network in that layout, which is that
    of the loader's batches.

    Args:
        backbone: maps floating ``[N, 3, T, S, S]`` to a map ``[N, F, t, h, w]`` or pooled features ``[N, F]``; its
            ``num_features`` is F where no pooling is given.
        heads: for each task a module that maps the pooled features to its logits.
        preprocessing: the one that the backbone's weights were, or will be, trained with.
        pooling: from the backbone's output to features of clips ``[N, D]`` or pairs ``[M, D]``; the mean if not given.
        groups: groups of layers of the backbone, see ``BackboneSpec``; its top-level members if not given.
        frozen: names of the groups that ``freeze`` keeps from training.
        published_weights: how published files of the backbone's weights are read.

    Raises:
        ValueError: if a task's name cannot name a module, or a parameter of the backbone is not in one group.
    """

    def __init__(
        self,
        backbone: nn.Module,
        heads: Mapping[str, nn.Module],
        preprocessing: Preprocessing,
        pooling: Pooling | None = None,
        groups: LayerGroups | None = None,
        frozen: Collection[str] = (),
        published_weights: PublishedWeights | None = None,
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
        names = [name for name, _ in backbone.named_parameters()]
        self.groups = groups or {top: (top,) for top in dict.fromkeys(name.partition(".")[0] for name in names)}
        self.frozen, self.published_weights = frozenset(frozen), published_weights
        for name in names:
            owners = [group for group, members in self.groups.items() if lies_in(name, members)]
            if len(owners) != 1:
                raise ValueError(f"parameter {name} of the backbone must be in one group of layers, is in {owners}")

    @property
    def num_features(self) -> int:
        """Features D of the heads' input."""
        return self.pooling.num_features

    def layers(self) -> list[list[nn.Parameter]]:
        """Return the parameters from stem to top: of each group of the backbone, then of pooling and heads."""
        own = list(self.backbone.named_parameters())
        groups = [[each for name, each in own if lies_in(name, members)] for members in self.groups.values()]
        return [*groups, [*self.pooling.parameters(), *self.heads.parameters()]]

    def freeze(self) -> None:
        """Keep the frozen groups from training, whatever has been set before; may be called again."""
        members = [member for group in self.frozen for member in self.groups[group]]
        for name, parameter in self.backbone.named_parameters():
            if lies_in(name, members):
                parameter.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all but the frozen groups, which stay in evaluation mode: batch norms, dropout."""
        super().train(mode)
        members = [member for group in self.frozen for member in self.groups[group]]
        for name, module in self.backbone.named_modules():
            if lies_in(name, members):
                module.train(False)
        return self

    def features(self, video: Tensor, pairs: PairBatch | None = None) -> Tensor:
        """Return the pooled features.

        Args:
            video: uint8 RGB ``[N, 3, T, S, S]``.
            pairs: the M pairs of the clips, for a pooling of pairs.

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
    spec: BackboneSpec,
    tasks: Mapping[str, Task],
    heads: Mapping[str, Callable[[int, int], nn.Module]],
    preprocessing: str,
    pooling: Callable[[int, int], Pooling] = MeanPool,
    num_objects: int = 0,
    freeze_through: str | None = None,
) -> Recognizer:
    """Build a network with random weights: the backbone, the pooling, a head for each task.

    Args:
        spec: of the backbone, for example ``BACKBONES["resnext3d_101"]()``.
        tasks: the tasks by name, all of whole clips or all of pairs.
        heads: for each task the builder of its head from ``(num_features, num_classes)``, for example
            ``functools.partial(HEADS["linear"], dropout=0.5)``.
        preprocessing: a name in ``PREPROCESSING``.
        pooling: the builder of the pooling from ``(num_features, num_objects)``, for example
            ``functools.partial(POOLING["roi"], along="trajectory")``; its own ``num_features`` sizes the heads.
        num_objects: classes of objects of the data; 0 if it has none.
        freeze_through: last of the backbone's groups of layers that does not train, counted from the stem; ``None`` if
            all train.

    Raises:
        ValueError: if tasks and heads differ, the pooling does not fit the tasks or the backbone, or the preprocessing
            or the group of layers is unknown.
    """
    if preprocessing not in PREPROCESSING:
        allowed = ", ".join(PREPROCESSING)
        hint = nearest(preprocessing, list(PREPROCESSING))
        raise ValueError(f"preprocessing {preprocessing!r} is unknown{hint}; allowed: {allowed}")
    if tasks.keys() != heads.keys():
        raise ValueError(f"every task needs one head: tasks {', '.join(tasks)}; heads {', '.join(heads)}")
    backbone, pool = spec.build(), pooling(spec.num_features, num_objects)
    _check_pooling(pool, tasks, spec)
    return Recognizer(
        backbone,
        {name: heads[name](pool.num_features, task.num_classes) for name, task in tasks.items()},
        PREPROCESSING[preprocessing],
        pool,
        groups=spec.groups,
        frozen=spec.groups_through(freeze_through),
        published_weights=spec.weights,
    )


_KINDS = {"clip": "whole clips", "pair": "human-object pairs"}


def _check_pooling(pooling: Pooling, tasks: Mapping[str, Task], spec: BackboneSpec) -> None:
    """Raise unless the pooling gives features of what all tasks label, and the backbone what the pooling needs."""
    others = [task for task in tasks.values() if task.of != pooling.of]
    if others:
        names, kind = ", ".join(task.name for task in others), others[0].of
        if len(others) < len(tasks):
            raise ValueError(
                f"a network labels whole clips or human-object pairs, not both: {names} labels {_KINDS[kind]}"
            )
        fitting = ", ".join(name for name, each in POOLING.items() if each.of == kind)
        raise ValueError(
            f"{names} labels {_KINDS[kind]}, but the pooling gives features of {_KINDS[pooling.of]}; "
            f"choose a pooling of {_KINDS[kind]}: {fitting}"
        )
    if pooling.of == "pair" and spec.gives == "pooled":
        raise ValueError(
            "tasks of human-object pairs need a feature map, and this backbone gives pooled features; choose another"
        )
