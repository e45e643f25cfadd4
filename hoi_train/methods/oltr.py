"""Open long-tailed recognition: a memory of class centroids supports classes with few clips."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Literal, cast

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.functional import one_hot

from hoi_train.core.batches import ClipBatch
from hoi_train.core.ranks import sum_over_ranks
from hoi_train.core.records import Split
from hoi_train.methods.adjusted import single_label_tasks
from hoi_train.methods.decoupled import Rule, TwoStages
from hoi_train.methods.fit import Context, Features, Step
from hoi_train.models.meta_embedding import MetaEmbedding
from hoi_train.models.nearest_mean import class_means, squared_distances
from hoi_train.models.recognizer import Recognizer

CentroidGradient = Literal["exact", "released"]


class OLTR(TwoStages):
    r"""Plain training, then the meta-embedding: loss = the run's objective + ``weight`` times ``centroid_loss``.

    The second stage begins with the mean training feature of each class as its centroid (the mean of all for a class
    without clips) and with the trained head as the query of the memory; backbone, head, selector, classifier and
    centroids all train. For formulas see ``MetaEmbedding``.
    Source: Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019, section 3 and
    ``zhmiao/OpenLongTailRecognition-OLTR``: 30 epochs, then 60 with class-balanced sampling.

    Differences. The objective may be any loss; the authors use cross-entropy. They train the second stage's classifier
    at ten times the learning rate of backbone and centroids; here all have one rate. Their modulated attention,
    designed for 7 x 7 maps of a 2D network, and the rejection of unknown classes are not included. Heads of multi-label
    tasks continue training unchanged: the memory's query is a softmax, for one class.

    Args:
        context: the run.
        epochs: length of the second stage, at the end of the run.
        sampling: sampling rule of the second stage.
        task: task whose classes are balanced; by default that of ``data.sampling``, or else the run's first.
        weight: >= 0, of the centroids' loss.
        margin: >= 0, mean squared distance to other classes' centroids without repulsion.
        centroid_gradient: ``exact`` or ``released``, see ``centroid_loss``.

    Raises:
        ValueError: no task is single-label, or ``epochs`` or ``task`` do not fit the run.
    """

    keeps_logits = False

    def __init__(
        self,
        context: Context,
        *,
        epochs: Annotated[int, Ge(1)] = 60,
        sampling: Rule = "class_balanced",
        task: str | None = None,
        weight: Annotated[float, Ge(0)] = 0.01,
        margin: Annotated[float, Ge(0)] = 10.0,
        centroid_gradient: CentroidGradient = "exact",
    ) -> None:
        super().__init__(context, epochs=epochs, sampling=sampling, task=task)
        self.tasks = single_label_tasks(context)
        self.weight, self.margin, self.centroid_gradient = weight, margin, centroid_gradient

    def adapt(self, model: Recognizer) -> None:
        """Wrap the heads in meta-embeddings."""
        width = model.num_features
        for name, task in self.tasks.items():
            model.heads[name] = MetaEmbedding(model.heads[name], width, task.num_classes)

    def begin_stage(self, stage: int, model: Recognizer, features: Callable[[Split], Features]) -> None:
        """Initialise the memory with the class means of the training features."""
        if stage == 0:
            return
        train = features("train")
        for name, task in self.tasks.items():
            means, seen = class_means(train.features, train.targets[name], task.num_classes)
            self._head(model, name).remember(torch.where(seen[:, None], means, train.features.mean(0)))

    def trained(self, stage: int, model: Recognizer) -> Iterable[nn.Parameter]:
        """Return the parameters of the plain network, in the second stage all."""
        heads = [self._head(model, name) for name in self.tasks]
        later = {id(p) for head in heads for p in head.parameters()} - {
            id(p) for head in heads for p in head.head.parameters()
        }
        return [parameter for parameter in model.parameters() if stage == 1 or id(parameter) not in later]

    def training_loss(self, model: nn.Module, batch: ClipBatch, step: Step) -> Tensor:
        """Return the objective, in the second stage plus the loss of the centroids."""
        loss = super().training_loss(model, batch, step)
        heads = {name: self._head(step.network, name) for name in self.tasks}
        features = {name: found for name, head in heads.items() if (found := head.take_features()) is not None}
        if not features:
            return loss

        def of(targets: Mapping[str, Tensor]) -> Tensor:
            terms = [
                centroid_loss(
                    found,
                    targets[name],
                    heads[name].centroids,
                    weight=self.weight,
                    margin=self.margin,
                    gradient=self.centroid_gradient,
                )
                for name, found in features.items()
            ]
            return torch.stack(terms).sum()

        return loss + batch.blend(of)

    @staticmethod
    def _head(model: Recognizer, task: str) -> MetaEmbedding:
        return cast(MetaEmbedding, model.heads[task])


def centroid_loss(
    features: Tensor,
    target: Tensor,
    centroids: Tensor,
    *,
    weight: float = 0.01,
    margin: float = 10.0,
    repulsion: float = 0.01,
    gradient: CentroidGradient = "exact",
) -> Tensor:
    r"""Attract features to the centroid of their class, and repel them from near centroids of others.

    ``weight (1/(2N) sum_i |x_i - m_{y_i}|^2 + repulsion max(margin - 1/(NC) sum_i sum_{c != y_i} |x_i - m_c|^2, 0))``.
    Source: the authors' ``loss/DiscCentroidsLoss.py``; the paper's equation has another form. Over ranks, the maximum
    uses the mean over all ranks, so that two ranks equal one process with the doubled batch.

    The released code has a manual backward pass, in which the centroids' part of the first term is not its gradient:
    ``sum_{i: y_i = c} (m_c - x_i) / ((1 + n_c) N)`` with ``n_c`` samples of class c in the batch, independent of
    ``weight``: at 0.01 about a hundred times faster for a class with one clip in the batch. ``released`` does the same.

    Args:
        features: ``[N, F]``.
        target: int64 ``[N]``.
        centroids: ``[C, F]``.
        weight: factor of the loss.
        margin: mean squared distance without repulsion.
        repulsion: factor of the second term.
        gradient: ``exact`` or ``released``.

    >>> centroid_loss(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([[3.0, 4.0], [0.0, 0.0]]), weight=1.0)
    tensor(12.6000)
    """
    num_classes = len(centroids)
    released = gradient == "released"
    own = (centroids.detach() if released else centroids)[target]
    attraction = (features - own).square().sum() / (2 * len(features))
    others = squared_distances(features, centroids) * (1 - one_hot(target, num_classes))
    space = margin - others.mean()
    loss = weight * (attraction + repulsion * torch.where(sum_over_ranks(space.detach()) > 0, space, 0.0))
    if released:
        pull = (centroids.detach()[target] - features.detach()) / len(features)
        per_class = torch.zeros_like(centroids).index_add_(0, target, pull)
        counts = sum_over_ranks(torch.bincount(target, minlength=num_classes))
        moved = (per_class / (1 + counts)[:, None] * centroids).sum()
        loss = loss + moved - moved.detach()  # changes only the centroids' gradient
    return loss
