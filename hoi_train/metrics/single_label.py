"""Metrics of tasks where every row carries exactly one class."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from hoi_train.metrics.per_class import PerClass, average_precision, rates


def evaluate(logits: Tensor, target: Tensor) -> PerClass:
    """Return the per-class results, the confusion matrix, and top-1 and top-5 accuracy.

    A row is predicted to be the class of its largest logit, the lowest id among equals. AP is one class against the
    rest, on softmax scores. With fewer than five classes top-5 is top-C, that is 1.

    Args:
        logits: float64 ``[N, C]``.
        target: int64 ``[N]`` in 0..C-1.
    """
    # Imported on first use: it costs seconds, and most commands never evaluate.
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    num_classes = logits.shape[1]
    predicted = logits.argmax(dim=1)  # the first of equal maxima, as torch documents
    # validate_args=False: the library's own check refuses a task of one class; ours has been made before.
    confusion = multiclass_confusion_matrix(predicted, target, num_classes, validate_args=False)
    vectors = rates(confusion.diagonal(), predicted=confusion.sum(0), support=confusion.sum(1))
    vectors["ap"] = average_precision(logits.softmax(1), one_hot(target, num_classes).bool())
    accuracy = {"top1": top_k(logits, target, 1), "top5": top_k(logits, target, min(5, num_classes))}
    return PerClass(confusion.sum(1), vectors, accuracy, confusion)


def top_k(logits: Tensor, target: Tensor, k: int) -> float:
    """Return the share of rows whose true class is among the ``k`` largest logits; nan without rows.

    Among equal logits the lower class id comes first, so top-1 agrees with ``argmax`` and no tie is left to chance.

    >>> top_k(torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([1]), 1), top_k(torch.zeros(1, 3), torch.tensor([1]), 2)
    (0.0, 1.0)
    """
    if not len(target):
        return math.nan
    true_logit = logits.gather(1, target[:, None])
    lower_id = torch.arange(logits.shape[1]) < target[:, None]
    before = (logits > true_logit) | ((logits == true_logit) & lower_id)
    return int((before.sum(1) < k).sum()) / len(target)
