"""What belongs to a backbone beside its code: the input it takes, its weights and its layers.

A table entry such as ``BACKBONES["resnet3d"]`` takes the hyper-parameters and returns a ``BackboneSpec``, without
building anything. The configuration takes its data settings from the specification, as timm derives them from a model's
``pretrained_cfg``, and refuses what does not fit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from hoi_train.core.records import nearest

LayerGroups = Mapping[str, tuple[str, ...]]
"""From stem to top: the name of each group of layers, and the modules and parameters of the backbone it consists of."""


@dataclass(frozen=True)
class Extent:
    """The number of pixels or frames that a backbone takes.

    Args:
        default: used where the configuration gives none.
        least: smallest value.
        most: largest value; ``None`` for no limit.
        multiple_of: every value must be a multiple of it.

    >>> 100 in Extent(112, multiple_of=16), str(Extent(112, least=32, multiple_of=16))
    (False, 'at least 32, a multiple of 16')
    """

    default: int
    least: int = 1
    most: int | None = None
    multiple_of: int = 1

    def __post_init__(self) -> None:
        if self.default not in self:
            raise ValueError(f"the default {self.default} is not {self}")

    @classmethod
    def fixed(cls, value: int) -> Extent:
        """Return the extent of a backbone that takes one value."""
        return cls(value, least=value, most=value)

    def __contains__(self, value: int) -> bool:
        return self.least <= value and (self.most is None or value <= self.most) and value % self.multiple_of == 0

    def __str__(self) -> str:
        if self.least == self.most:
            return f"exactly {self.least}"
        limits = [f"at least {self.least}"] + [f"at most {self.most}"] * (self.most is not None)
        return ", ".join(limits + [f"a multiple of {self.multiple_of}"] * (self.multiple_of > 1))


@dataclass(frozen=True)
class PublishedWeights:
    """Published files of weights, and how to read them.

    Args:
        source: where to get them, for messages.
        adapt: rename a file's tensors, given without the prefix ``module.``, to the names in
            ``Recognizer.state_dict()``. Its second argument is the name of the linear layer that takes the published
            classifier, ``None`` if no layer does; then it keeps its name.
        preprocessing: tell from the names in a file the preprocessing of its training; ``None`` if unknown.
    """

    source: str
    adapt: Callable[[Mapping[str, Tensor], str | None], dict[str, Tensor]]
    preprocessing: Callable[[Collection[str]], str | None]


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone at given hyper-parameters.

    Args:
        build: build the module, with random weights from torch's global generator, or without memory within
            ``torch.device("meta")``. It maps floating ``[N, 3, T, S, S]`` to what ``gives`` says. A network of several
            pathways takes its frames from this one input.
        num_features: features F of its output.
        groups: groups of layers from stem to top, for freezing and learning rates; every parameter is in one group.
        gives: ``map`` for ``[N, F, t, h, w]``, ``pooled`` for ``[N, F]``, for example a class token.
        size: side S of the input, in pixels.
        frames: frames T of the input.
        preprocessing: names in ``PREPROCESSING`` of what its weights are trained on; the first is the default.
        weights: published weights; ``None`` if only files of this program's own runs fit.
    """

    build: Callable[[], nn.Module]
    num_features: int
    groups: LayerGroups
    gives: Literal["map", "pooled"] = "map"
    size: Extent = Extent(112)
    frames: Extent = Extent(10)
    preprocessing: tuple[str, ...] = ("kinetics_2020",)
    weights: PublishedWeights | None = None

    def groups_through(self, last: str | None) -> tuple[str, ...]:
        """Return the names of the groups from the stem up to and including ``last``; none for ``None``.

        Raises:
            ValueError: if there is no such group.
        """
        names = tuple(self.groups)
        if last is not None and last not in names:
            raise ValueError(f"no group of layers {last!r}; from stem to top: {', '.join(names)}{nearest(last, names)}")
        return () if last is None else names[: names.index(last) + 1]


def lies_in(name: str, members: Collection[str]) -> bool:
    """Tell whether a module or parameter is one of the members or within one.

    >>> lies_in("blocks.1.norm", ["blocks.1"]), lies_in("blocks.10.norm", ["blocks.1"])
    (True, False)
    """
    return any(name == member or name.startswith(f"{member}.") for member in members)
