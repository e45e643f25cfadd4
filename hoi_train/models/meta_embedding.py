"""The classifier of OLTR: features with an addition from a memory of class centroids."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from hoi_train.models.nearest_mean import squared_distances


class CosineNorm(nn.Module):
    r"""Compute ``scale |x| / (1 + |x|) cos(x, w_c)``: a cosine classifier whose logits are small for short features.

    Source: Liu et al., CVPR 2019, section 3 and the authors' ``models/CosNormClassifier.py``.

    Args:
        num_features: features F of a sample.
        num_classes: classes C of the task.
        scale: bound of the logits; 16 in the authors' code.

    Shapes:
        features floating ``[N, F]``; result ``[N, C]``, 0 for features of zeros.

    >>> classifier = CosineNorm(4, 2)
    >>> round(classifier(3 * normalize(classifier.weight.detach()))[0, 0].item(), 4)
    12.0
    """

    def __init__(self, num_features: int, num_classes: int, *, scale: float = 16.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(num_classes, num_features))
        nn.init.uniform_(self.weight, -(num_features**-0.5), num_features**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[N, C]`` of the features ``[N, F]``."""
        squashed = features / (1 + torch.linalg.vector_norm(features, dim=1, keepdim=True))
        cosines: Tensor = squashed @ normalize(self.weight, dim=1).T
        return self.scale * cosines


class MetaEmbedding(nn.Module):
    r"""Add a memory of class centroids to features and classify them; before ``remember``, apply the wrapped head.

    With features ``x`` and centroids ``m_c``: memory ``v = sum_c softmax(h(x))_c m_c``, selector
    ``e = tanh(W x + b)``, reach ``g = reach / min_c |x - m_c|``, and logits ``CosineNorm(g (x + e * v))``. The wrapped
    head ``h``, which the first stage has trained as a classifier, weights the centroids (the authors copy its
    weights). The classification loss has no gradient for the centroids; their own loss does
    (``hoi_train.methods.oltr.centroid_loss``).
    Source: Liu et al., CVPR 2019, section 3 and the authors' ``models/MetaEmbeddingClassifier.py``, whose reach is
    infinite for a feature on a centroid; here distances below 1e-6 count as 1e-6.

    Args:
        head: maps ``[N, F]`` to ``[N, C]``.
        num_features: features F of a sample.
        num_classes: classes C of the task.
        reach: factor of ``g``; 10 in the authors' code.
        scale: of the classifier's logits.

    Shapes:
        features floating ``[N, F]``; result ``[N, C]``.

    >>> head = MetaEmbedding(nn.Linear(4, 2), 4, 2)
    >>> head.remember(torch.eye(2, 4))
    >>> head(torch.ones(3, 4)).shape
    torch.Size([3, 2])
    """

    remembers: Tensor

    def __init__(
        self, head: nn.Module, num_features: int, num_classes: int, *, reach: float = 10.0, scale: float = 16.0
    ) -> None:
        super().__init__()
        self.head, self.reach = head, reach
        self.selector = nn.Linear(num_features, num_features)
        self.classifier = CosineNorm(num_features, num_classes, scale=scale)
        self.centroids = nn.Parameter(torch.zeros(num_classes, num_features))
        self.register_buffer("remembers", torch.tensor(False))  # in the state dict: a checkpoint carries its stage
        self._features: Tensor | None = None

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits ``[N, C]`` of the features ``[N, F]``."""
        queries: Tensor = self.head(features)
        if not self.remembers:
            return queries
        with torch.autocast(features.device.type, enabled=False):  # distances and cosines need float32
            features, queries = features.to(self.centroids.dtype), queries.to(self.centroids.dtype)
            if self.training and torch.is_grad_enabled():
                self._features = features
            logits: Tensor = self.classifier(self.embed(features, queries))
            return logits

    def embed(self, features: Tensor, queries: Tensor) -> Tensor:
        """Return the meta-embedding ``[N, F]`` of features ``[N, F]`` with the wrapped head's logits ``[N, C]``."""
        nearest = squared_distances(features, self.centroids.detach()).amin(1, keepdim=True).clamp(min=1e-12).sqrt()
        return self.reach / nearest * (features + self.infused(features, queries))

    def infused(self, features: Tensor, queries: Tensor) -> Tensor:
        """Return the memory's addition to each feature, ``e * v``, ``[N, F]``."""
        selector: Tensor = self.selector(features).tanh()
        return selector * (queries.softmax(1) @ self.centroids.detach())

    def remember(self, centroids: Tensor) -> None:
        """Set the centroids, floating ``[C, F]``, and use the memory from now on."""
        with torch.no_grad():
            self.centroids.copy_(centroids)
        self.remembers.fill_(True)

    def take_features(self) -> Tensor | None:
        """Return, once, the features of the last training batch that used the memory; ``None`` without one."""
        features, self._features = self._features, None
        return features
