"""The heads: from the pooled features of a sample to the logits of one task.

A head takes ``num_features`` and ``num_classes``; its keyword-only arguments are its hyper-parameters.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn
from torch.nn.functional import linear


class LinearHead(nn.Module):
    """Compute ``logits = W · dropout(features) + b``.

    Without a prior W and b start as in ``torch.nn.Linear``, the published networks' classifier: uniform in
    ``±1/√F``. With a prior π, for sigmoid losses on rare classes, W starts normal with deviation 0.01 and
    ``b = -log((1 - π)/π)``, so that every class begins near probability π and the many negatives do not drown the
    first steps (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, section 4.1; equal biases change
    nothing under a softmax). Draws come from torch's global generator, which the caller seeds.

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
        self.linear = nn.Linear(num_features, num_classes)
        if prior is not None:
            nn.init.normal_(self.linear.weight, std=0.01)
            nn.init.constant_(self.linear.bias, -math.log((1 - prior) / prior))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[N, C]`` of the features ``[N, F]``."""
        logits: Tensor = self.linear(self.dropout(features))
        return logits


class CosineHead(nn.Module):
    """Compute ``logits = scale · cos(dropout(features), w_c)``, without a bias.

    The length of a class's vector, which grows with its number of samples, has no say; the head of LDAM (Cao et al.,
    NeurIPS 2019, ``NormedLinear`` of the authors' code, which has no scale either since their loss has one). For
    losses without a scale of their own it must be given here: cosines alone bound every softmax score away from 1.
    The vectors start uniform on the unit sphere, from torch's global generator, which the caller seeds; features of
    zeros have logits 0 and a finite gradient. Computed in float32 under autocast too: near 1 bfloat16 has steps of
    2^-8, 0.1 after LDAM's scale of 30.

    Args:
        num_features: features F of a sample.
        num_classes: classes C of the task.
        dropout: probability of dropping a feature in training.
        scale: factor on the cosines; 1 for LDAM.

    Shapes:
        features floating ``[N, F]``; result ``[N, C]``, float32 or better, in ``±scale``.

    >>> head = CosineHead(512, 4)
    >>> features = 1000 * head.weight[:1].detach()
    >>> round(head(features)[0, 0].item(), 5)
    1.0
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        dropout: Annotated[float, Ge(0), Lt(1)] = 0.0,
        scale: Annotated[float, Gt(0)] = 1.0,
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


def _unit(rows: Tensor) -> Tensor:
    """Scale rows to length 1; a row of zeros stays, and its gradient is that of a row of length 1."""
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / torch.where(length == 0, 1.0, length)


HEADS: dict[str, type[nn.Module]] = {
    "linear": LinearHead,
    "cosine": CosineHead,
}
