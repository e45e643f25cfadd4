"""Fitted thresholds against the best of all."""

from __future__ import annotations

import pytest
import torch

from hoi_train.core.records import ClassList, Task
from hoi_train.metrics.per_class import f1
from hoi_train.metrics.rows import EvaluatedRows
from hoi_train.metrics.thresholds import DEFAULT, fit_thresholds


@pytest.mark.parametrize("seed", range(50))
def test_no_threshold_is_better(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randint(-4, 5, (12, 3), generator=draw).double()  # many equal scores
    target = (torch.rand(12, 3, generator=draw) < 0.4).long()
    target[0] = 1
    fitted = fit_thresholds(logits, target)
    task = Task("noun", ClassList(("a", "b", "c")), "multi")
    reached = f1(EvaluatedRows(task, logits, target, threshold=fitted))
    for logit in torch.arange(-5, 5, 0.5, dtype=torch.float64):
        other = f1(EvaluatedRows(task, logits, target, threshold=logit.sigmoid()))
        assert (other <= reached).all()


def test_a_class_without_positives_keeps_the_default() -> None:
    logits, target = torch.randn(6, 2), torch.tensor([[1, 0]] * 3 + [[0, 0]] * 3)
    assert fit_thresholds(logits, target)[1] == DEFAULT
