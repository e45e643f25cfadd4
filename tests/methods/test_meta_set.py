"""The meta set: balanced, seeded, and a meta batch that depends on nothing but seed, epoch and number of the batch."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from hoi_train.core.records import LabelKind
from hoi_train.methods.meta_set import MetaSet, balanced_rows
from tests.methods.meta_cases import context, labels


def meta_set(kind: LabelKind = "single", per_class: int = 2, split: Any = "val", **changes: Any) -> MetaSet:
    batch_size = changes.pop("meta_batch_size", None)
    task = changes.pop("task", None)
    return MetaSet(context(kind, **changes), per_class=per_class, split=split, task=task, batch_size=batch_size)


def drawn(found: MetaSet, epoch: int, batch: int, num_batches: int = 6) -> list[list[int]]:
    return [each.indices.tolist() for each in islice(found.batches(epoch, batch, num_batches), num_batches - batch)]


@pytest.mark.parametrize(("split", "per_class", "counts"), [("val", 2, [2, 2, 2]), ("train", 4, [4, 4, 3])])
def test_a_single_label_set_is_balanced(split: Any, per_class: int, counts: list[int]) -> None:
    found = meta_set(per_class=per_class, split=split)
    assert labels(split, "single")[found.rows].bincount(minlength=3).tolist() == counts
    assert found.rows.tolist() == sorted(set(found.rows.tolist()))


def test_a_multi_label_set_has_enough_of_each_class_and_more_only_with_rarer_ones() -> None:
    #       common  middle  rare
    rows = [[1, 0, 1], [1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 0]]
    hot = torch.tensor(rows).bool()
    for seed in range(20):
        chosen = balanced_rows(hot, 2, seed)
        counts = hot[chosen].sum(0).tolist()
        assert counts[2] == counts[1] == 2
        assert counts[0] == 2
        assert 6 not in chosen.tolist(), "a clip without a label"


def test_the_seed_chooses() -> None:
    hot = torch.eye(2).bool().repeat_interleave(30, 0)
    one, same, other = (balanced_rows(hot, 5, seed).tolist() for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("kind", ["single", "multi"])
def test_meta_batches_draw_classes_equally_often_where_a_class_has_too_few_clips(kind: LabelKind) -> None:
    found = meta_set(kind, per_class=9, split="train", batch_size=300)
    hot: Tensor = found.labels
    batch = next(found.batches(0, 0, 1))
    share = (labels("train", kind)[batch.indices] == 2 if kind == "single" else batch.targets["verb"][:, 2]).float()
    assert hot[:, 2].float().mean() < 0.25 or kind == "multi"
    assert share.mean() == pytest.approx(1 / 3, abs=0.08) or (kind == "multi" and share.mean() > 1 / 3 - 0.08)


def test_a_meta_batch_is_a_function_of_epoch_and_number() -> None:
    whole = drawn(meta_set(), 1, 0)
    assert len(whole) == 6
    assert drawn(meta_set(), 1, 4) == whole[4:]
    assert drawn(meta_set(), 2, 0) != whole
    assert len({tuple(batch) for batch in whole}) > 1


def test_two_ranks_draw_what_one_process_draws() -> None:
    whole = drawn(meta_set(batch_size=4), 0, 0)
    parts = [drawn(meta_set(batch_size=2, rank=rank, world=2), 0, 0) for rank in range(2)]
    assert [one + other for one, other in zip(*parts, strict=True)] == whole


def test_a_meta_batch_may_have_its_own_size() -> None:
    assert {len(batch) for batch in drawn(meta_set(meta_batch_size=3), 0, 0)} == {3}
    assert {len(batch) for batch in drawn(meta_set(batch_size=5), 0, 0)} == {5}


def test_a_task_that_the_run_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="task: no task 'verbs'; this run has verb; did you mean 'verb'"):
        meta_set(task="verbs")


def test_a_split_without_clips_is_refused() -> None:
    with pytest.raises(ValueError, match="the manifest has no clips in the split 'val'; use split: train"):
        meta_set(labels={"train": {"verb": labels("train", "single")}})


def test_a_trained_class_that_the_split_does_not_show_is_refused() -> None:
    held = {"train": {"verb": labels("train", "single")}, "val": {"verb": torch.tensor([0, 2, 2])}}
    with pytest.raises(ValueError, match="no clip in the split 'val' has put"):
        meta_set(labels=held)
    held["train"] = {"verb": torch.tensor([0, 2])}
    assert len(meta_set(labels=held).rows) == 3  # nothing is trained that it could miss
