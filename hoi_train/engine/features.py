"""The features of every clip of a split, for methods that set a classifier from them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from lightning_fabric import Fabric
from torch import Tensor

from hoi_train.core.batches import ClipBatch
from hoi_train.engine.evaluation import share_buffers
from hoi_train.methods.fit import Features
from hoi_train.metrics.gather import gather
from hoi_train.models.recognizer import Recognizer


@torch.no_grad()
def extract(fabric: Fabric, network: Recognizer, batches: Iterable[ClipBatch]) -> Features:
    """Return the pooled features of a split in its order, equal on all ranks.

    Args:
        fabric: places batches and carries the precision.
        network: asked in evaluation mode; its mode is restored.
        batches: this rank's share of the split, as ``ClipLoader.evaluation`` gives it.
    """
    share_buffers(network)
    was_training = network.training
    network.eval()
    indices: list[Tensor] = []
    features: list[Tensor] = []
    targets: dict[str, list[Tensor]] = {task: [] for task in network.heads}
    for batch in batches:
        with fabric.autocast():
            features.append(network.features(**batch.map(fabric.to_device).inputs).float().cpu())
        indices.append(batch.rows)
        for task, parts in targets.items():
            parts.append(batch.targets[task])
    network.train(was_training)
    columns = [torch.cat(parts) if parts else torch.empty(0) for parts in (indices, features, *targets.values())]
    found = gather(*columns)
    return Features(found[1], dict(zip(targets, found[2:], strict=True)))
