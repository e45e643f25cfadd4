"""Metrics of tasks where a row carries any number of classes, also none."""

from __future__ import annotations

from torch import Tensor

from hoi_train.metrics.per_class import PerClass, average_precision, rates


def evaluate(logits: Tensor, target: Tensor, threshold: Tensor) -> PerClass:
    """Return the per-class results: recall, precision and F1 at the class's threshold, AP without one.

    A class is predicted where ``sigmoid(logit) > threshold``; a score equal to the threshold is not predicted.
    AP ranks the logits themselves: the sigmoid keeps their order but makes equal what lies beyond ±37.

    Args:
        logits: float64 ``[N, C]``.
        target: ``[N, C]`` of zeros and ones.
        threshold: float64 ``[C]``, or for all classes ``[]``, in 0..1, 1 excluded.

    Raises:
        ValueError: a threshold is out of range.
    """
    if not ((threshold >= 0) & (threshold < 1)).all():
        raise ValueError(f"a threshold must be a score in 0..1 (1 excluded), got {threshold.tolist()}")
    # Imported on first use: it costs seconds, and most commands never evaluate.
    from torchmetrics.functional.classification import multilabel_confusion_matrix

    truth = target.bool()
    predicted = logits.sigmoid() > threshold
    # validate_args=False: the library's own check refuses a task of one class; ours has been made before.
    per_class = multilabel_confusion_matrix(predicted.long(), truth.long(), logits.shape[1], validate_args=False)
    support = per_class[:, 1].sum(1)  # [C, truth, prediction]
    vectors = rates(per_class[:, 1, 1], predicted=per_class[:, :, 1].sum(1), support=support)
    vectors["ap"] = average_precision(logits, truth)
    return PerClass(support, vectors, {}, None)
