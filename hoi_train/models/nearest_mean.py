"""Class means of features, and the nearest-class-mean classifier."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

FeatureKind = Literal["un", "l2n", "cl2n"]
Distance = Literal["l2", "cosine"]


class NearestMean(nn.Module):
    """Classify by the nearest class mean; before ``fit``, apply the head that it replaces.

    Features are prepared as ``un`` (unchanged), ``l2n`` (``x / |x|``) or ``cl2n`` (``l2n`` after subtraction of the
    mean of all training features). With the prepared ``x`` and the mean ``m_c`` of class c, the logits of ``l2`` are
    ``-|x - m_c|^2`` and those of ``cosine`` ``x . m_c / F``, which is not a cosine, since the means are not normalised
    again. A class without training samples has the lowest logit. Source: Kang et al., ICLR 2020, section 4 and the
    authors' ``models/KNNClassifier.py``.

    Args:
        head: gives the logits until ``fit`` is called; it stays in the state dict.
        num_features: features F of a sample.
        num_classes: classes C of the task.
        features: preparation of the features.
        distance: distance to the class means.

    Shapes:
        features floating ``[N, F]``; result ``[N, C]``.

    >>> head = NearestMean(nn.Linear(2, 2), 2, 2, features="un", distance="l2")
    >>> head.fit(torch.tensor([[0.0, 0.0], [0.0, 2.0], [4.0, 1.0]]), torch.tensor([0, 0, 1]))
    >>> head(torch.tensor([[0.0, 1.0]])).tolist()
    [[-0.0, -16.0]]
    """

    fitted: Tensor
    seen: Tensor
    mean: Tensor
    centroids: Tensor

    def __init__(
        self,
        head: nn.Module,
        num_features: int,
        num_classes: int,
        *,
        features: FeatureKind,
        distance: Distance,
    ) -> None:
        super().__init__()
        self.head, self.features, self.distance = head, features, distance
        self.register_buffer("fitted", torch.tensor(False))  # in the state dict: a checkpoint carries its stage
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("centroids", torch.zeros(num_classes, num_features))

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[N, C]`` of the features ``[N, F]``."""
        if not self.fitted:
            logits: Tensor = self.head(features)
            return logits
        with torch.autocast(features.device.type, enabled=False):
            return self._scores(self._prepared(features.to(self.centroids.dtype)))

    def fit(self, features: Tensor, target: Tensor) -> None:
        """Compute the class means from training features ``[N, F]`` and class ids, int64 ``[N]``."""
        self.mean.copy_(features.double().mean(0))
        means, seen = class_means(self._prepared(features.to(self.mean)), target.to(self.mean.device), len(self.seen))
        self.centroids.copy_(means)
        self.seen.copy_(seen)
        self.fitted.fill_(True)

    def _prepared(self, features: Tensor) -> Tensor:
        centred = features - self.mean if self.features == "cl2n" else features
        return centred if self.features == "un" else normalize(centred, dim=1)

    def _scores(self, prepared: Tensor) -> Tensor:
        if self.distance == "l2":
            scores = -squared_distances(prepared, self.centroids)
        else:
            scores = prepared @ self.centroids.T / prepared.shape[1]
        last = scores.amin(1, keepdim=True) - 1
        return torch.where(self.seen, scores, last)


def class_means(features: Tensor, target: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the mean feature of each class, 0 for a class without samples, and a mask of the classes with samples.

    Args:
        features: floating ``[N, F]``.
        target: int64 ``[N]``.
        num_classes: C.

    Returns:
        ``[C, F]`` in the type of the features, summed in float64 on the CPU, and bool ``[C]``.

    >>> class_means(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]), 2)
    (tensor([[2.],
            [0.]]), tensor([ True, False]))
    """
    precise = features.cpu().double()  # Apple's MPS has no float64
    counts = torch.bincount(target.cpu(), minlength=num_classes)
    sums = precise.new_zeros(num_classes, features.shape[1]).index_add_(0, target.cpu(), precise)
    return (sums / counts.clamp(min=1)[:, None]).to(features), (counts > 0).to(features.device)


def squared_distances(features: Tensor, centroids: Tensor) -> Tensor:
    """Return ``|x_i - m_c|^2``, ``[N, C]``, of ``[N, F]`` and ``[C, F]``.

    Computed from the differences: ``|x|^2 + |m|^2 - 2 x . m`` would lose most digits of small distances.
    """
    return (features[:, None] - centroids).square().sum(2)
