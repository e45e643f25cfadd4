"""The heads: from the pooled features of a sample to the logits of one task.

A head takes ``num_features`` and ``num_classes``; its keyword-only arguments are its hyper-parameters.
"""

from __future__ import annotations

import math
from typing import Annotated

from annotated_types import Ge, Gt, Lt
from torch import Tensor, nn


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


HEADS: dict[str, type[nn.Module]] = {
    "linear": LinearHead,
}
