"""The heads: from the pooled features of a sample, a clip or a pair, to the logits of one task.

A head takes ``num_features`` and ``num_classes``; its keyword-only arguments are its hyper-parameters.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torch.nn.functional import linear, relu


class LinearHead(nn.Module):
    """Compute ``logits = W · dropout(features) + b``.

    Without a prior W and b start as in ``torch.nn.Linear``, the published networks' classifier: uniform in
    ``±1/√F``. With a prior π, for sigmoid losses on rare classes, W starts normal with deviation 0.01 and
    ``b = -log((1 - π)/π)``, so that every class begins near probability π and the many negatives do not dominate the
    first steps (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, section 4.1; equal biases have no
    effect under a softmax). Initial values are drawn from torch's global generator, which the caller seeds.

    Args:
        num_features: features F of a sample.
        num_classes: classes C of the task.
        dropout: probability of dropping a feature in training.
        prior: probability of every class at the start; ``None`` for the plain start.

    Shapes:
        features floating ``[N, F]``; result ``[N, C]``.

    >>> LinearHead(512, 4, prior=0.01).linear.bias.sigmoid().round(decimals=4).tolist()
    [0.009999999776482582, 0.009999999776482582, 0.009999999776482582, 0.009999999776482582]
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        prior: Annotated[float, Gt(0), Lt(1)] | None = None,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = _classifier(num_features, num_classes, prior)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[N, C]`` of the features ``[N, F]``."""
        logits: Tensor = self.linear(self.dropout(features))
        return logits


class CosineHead(nn.Module):
    """Compute ``logits = scale · cos(dropout(features), w_c)``, without a bias.

    The length of a class's vector, which grows with its number of samples, has no effect; the head of LDAM (Cao et
    al., NeurIPS 2019, ``NormedLinear`` of the authors' code, without a scale since their loss has one). Without a scale
    cosines bound every softmax score away from 1. The vectors start uniform on the unit sphere, from torch's global
    generator, which the caller seeds; features of zeros have logits 0 and a finite gradient. Computed in float32 under
    autocast too: near 1 bfloat16 has steps of 2^-8, 0.1 after LDAM's scale of 30.

    Args:
        num_features: features F of a sample.
        num_classes: classes C of the task.
        dropout: probability of dropping a feature in training.
        scale: factor on the cosines; LDAM's code has 30.

    Shapes:
        features floating ``[N, F]``; result ``[N, C]``, float32 or better, in ``±scale``.

    >>> head = CosineHead(512, 4)
    >>> features = 1000 * head.weight[:1].detach()
    >>> round(head(features)[0, 0].item(), 3)
    30.0
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        scale: Annotated[float, Gt(0)] = 30.0,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.scale = scale
        self.weight = nn.Parameter(_unit(torch.randn(num_classes, num_features)))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[N, C]`` of the features ``[N, F]``."""
        dtype = torch.promote_types(self.weight.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            cosines = linear(_unit(self.dropout(features).to(dtype)), _unit(self.weight.to(dtype)))
            return self.scale * cosines


class MlpHead(nn.Module):
    """Compute ``logits = W₂ · dropout(relu(W₁ · features + b₁)) + b₂``.

    Both layers start as in ``torch.nn.Linear``, the second with a prior as in ``LinearHead``. Initial values are drawn
    from torch's global generator, which the caller seeds.

    Args:
        num_features: features F of a sample.
        num_classes: classes C of the task.
        hidden: width of the hidden layer.
        dropout: probability of dropping one of its values in training.
        prior: probability of every class at the start; ``None`` for the plain start.

    Shapes:
        features floating ``[N, F]``; result ``[N, C]``.

    >>> MlpHead(512, 4, hidden=64)(torch.zeros(3, 512)).shape
    torch.Size([3, 4])
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        hidden: Annotated[int, Ge(1)] = 256,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        prior: Annotated[float, Gt(0), Lt(1)] | None = None,
    ) -> None:
        super().__init__()
        self.hidden = nn.Linear(num_features, hidden)
        self.dropout = nn.Dropout(dropout)
        self.classifier = _classifier(hidden, num_classes, prior)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[N, C]`` of the features ``[N, F]``."""
        logits: Tensor = self.classifier(self.dropout(relu(self.hidden(features))))
        return logits


class SplitHead(nn.Module):
    """Apply one ``MlpHead`` to each of two groups of classes, for example spatial relations and actions.

    They share only the features: what separates ``next_to`` from ``behind`` need not separate ``hold`` from ``lift``.

    Args:
        num_features: features F of a sample.
        num_classes: classes C of the task.
        first: class ids of the first group; the second group has the others.
        hidden: width of the hidden layer of each group.
        dropout: probability of dropping one of its values in training.
        prior: probability of every class at the start; ``None`` for the plain start.

    Raises:
        ValueError: if ``first`` has an unknown or a repeated class id, or leaves a group without classes.

    Shapes:
        features floating ``[N, F]``; result ``[N, C]``, columns in the order of the task's classes.

    >>> SplitHead(512, 4, first=(1, 3))(torch.zeros(3, 512)).shape
    torch.Size([3, 4])
    """

    columns: Tensor

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        first: tuple[int, ...],
        hidden: Annotated[int, Ge(1)] = 256,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        prior: Annotated[float, Gt(0), Lt(1)] | None = None,
    ) -> None:
        super().__init__()
        second = _other_classes(first, num_classes)
        self.first = MlpHead(num_features, len(first), hidden=hidden, dropout=dropout, prior=prior)
        self.second = MlpHead(num_features, len(second), hidden=hidden, dropout=dropout, prior=prior)
        # Not persistent: it follows from the configuration.
        self.register_buffer("columns", torch.tensor([*first, *second]).argsort(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[N, C]`` of the features ``[N, F]``."""
        return torch.cat([self.first(features), self.second(features)], dim=1)[:, self.columns]


def _other_classes(first: tuple[int, ...], num_classes: int) -> list[int]:
    """Return the class ids that are not in the first group; raise ``ValueError`` if ``first`` is not a valid group."""
    unknown = [number for number in first if not 0 <= number < num_classes]
    if unknown:
        raise ValueError(f"first: {unknown} are no class ids; those of the task are 0 to {num_classes - 1}")
    if len(set(first)) < len(first):
        raise ValueError(f"first: every class id once, got {list(first)}")
    if not 0 < len(first) < num_classes:
        raise ValueError(f"first: must have 1 to {num_classes - 1} of the {num_classes} classes, got {len(first)}")
    return [number for number in range(num_classes) if number not in first]


def _classifier(num_features: int, num_classes: int, prior: float | None) -> nn.Linear:
    """Return a linear layer initialised as described in ``LinearHead``."""
    layer = nn.Linear(num_features, num_classes)
    if prior is not None:
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.constant_(layer.bias, -math.log((1 - prior) / prior))
    return layer


def _unit(rows: Tensor) -> Tensor:
    """Scale rows to length 1; a row of zeros stays zero, with the gradient of a row of length 1."""
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(length == 0, 1.0, length)


HEADS: dict[str, type[nn.Module]] = {
    "linear": LinearHead,
    "cosine": CosineHead,
    "mlp": MlpHead,
    "split": SplitHead,
}
