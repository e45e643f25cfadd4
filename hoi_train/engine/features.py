"""Extract the features of a split, for methods that set a classifier from them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from lightning_fabric import Fabric
from torch import Tensor

from hoi_train.core.batches import ClipBatch
from hoi_train.engine.evaluation import by_position, share_buffers
from hoi_train.methods.fit import Features
from hoi_train.models.recognizer import Recognizer


@torch.no_grad()
def extract(fabric: Fabric, network: Recognizer, batches: Iterable[ClipBatch]) -> Features:
    """Return the pooled features of a split in its order, the mean over views, equal on all ranks.

    Args:
        fabric: places batches and carries the precision.
        network: asked in evaluation mode; its mode is restored.
        batches: this rank's share of the split, as ``ClipLoader.evaluation`` gives it.
    """
    share_buffers(network)
    was_training = network.training
    network.eval()
    keys: list[Tensor] = []
    names = ("features", *(f"target {task}" for task in network.heads))
    columns: dict[str, list[Tensor]] = {name: [] for name in names}
    for batch in batches:
        with fabric.autocast():
            columns["features"].append(network.features(**batch.map(fabric.to_device).inputs).float().cpu())
        keys.append(batch.keys)
        for task in network.heads:
            columns[f"target {task}"].append(batch.targets[task])
    network.train(was_training)
    _, rows = by_position(keys, columns)
    features = rows["features"]
    targets = {task: rows[f"target {task}"][:, 0] for task in network.heads}
    return Features(features[:, 0] if features.shape[1] == 1 else features.mean(1), targets)
