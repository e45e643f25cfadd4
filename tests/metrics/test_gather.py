"""Gathering over ranks, with real processes."""

from __future__ import annotations

from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from hoi_train.core.records import ClassList, Task
from hoi_train.metrics import task_stats
from hoi_train.metrics.gather import gather

NUM_ROWS, NUM_CLASSES = 23, 5
# Rows of each of two ranks. The ranges overlap where a sampler repeats clips to fill the last batch.
DIVISIONS: dict[str, tuple[list[int], list[int]]] = {
    "uneven": (list(range(16, -1, -1)), list(range(17, 23))),
    "interleaved": (list(range(0, 23, 2)), list(range(1, 23, 2))),
    "padded duplicates": ([*range(0, 23, 2), 0, 2, 2], [*range(1, 23, 2), 1, 0]),
    "first rank empty": ([], list(range(23))),
    "second rank empty": (list(range(23)), []),
}


def rows() -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(7)
    logits = torch.randn(NUM_ROWS, NUM_CLASSES, generator=draw)
    return logits, torch.randint(NUM_CLASSES, (NUM_ROWS,), generator=draw), torch.rand(NUM_ROWS, generator=draw)


def keys(rows: Tensor) -> Tensor:
    """Return positions and views of rows, two views each."""
    return torch.stack([rows // 2, rows % 2], dim=1)


def shard(chosen: list[int]) -> tuple[Tensor, ...]:
    if not chosen:  # what a rank without batches has: it never saw a logit
        return (torch.empty(0), *(torch.empty(0) for _ in rows()))
    return (keys(torch.tensor(chosen)), *(column[chosen] for column in rows()))


def measure(logits: Tensor, target: Tensor, losses: Tensor) -> dict[str, float]:
    task = Task("verb", ClassList(("a", "b", "c", "d", "e")), "single")
    groups = {"majority": (0, 1), "minority": (2, 3, 4)}
    stats = task_stats(task, logits, target, groups, loss=float(losses.mean()))
    return dict(stats.scalars)


def one_rank(rank: int, folder: str) -> None:
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    torch.set_num_threads(1 + rank)  # the number of threads must not change a bit either
    results: dict[str, object] = {}
    for name, division in DIVISIONS.items():
        gathered = gather(*shard(division[rank]))
        results[name] = (gathered, measure(*gathered[1:]))
    results["all empty"] = gather(*shard([]))
    try:
        gather(keys(torch.arange(3)), torch.zeros(3 - rank))
    except ValueError as error:
        results["error"] = str(error)
    try:
        gather(keys(torch.arange(3)), torch.tensor([0.0, 1.0, 2.0 + rank]))
    except ValueError as error:
        results["disagreement"] = str(error)
    torch.save(results, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, object]]:
    folder = tmp_path_factory.mktemp("ranks")
    spawn(one_rank, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.process
@pytest.mark.parametrize("division", DIVISIONS)
def test_every_rank_has_all_rows_once_and_in_order(ranks: list[dict[str, object]], division: str) -> None:
    for result in ranks:
        (found, *columns), _ = result[division]  # type: ignore[misc]
        assert torch.equal(found, keys(torch.arange(NUM_ROWS)))
        for column, whole in zip(columns, rows(), strict=True):
            assert column.dtype == whole.dtype
            assert torch.equal(column, whole)


@pytest.mark.process
@pytest.mark.parametrize("division", DIVISIONS)
def test_metrics_are_bit_identical_to_one_process(ranks: list[dict[str, object]], division: str) -> None:
    alone = measure(*gather(keys(torch.arange(NUM_ROWS)), *rows())[1:])
    for result in ranks:
        assert result[division][1] == alone  # type: ignore[index]


@pytest.mark.process
def test_no_rows_on_any_rank_give_no_rows(ranks: list[dict[str, object]]) -> None:
    for result in ranks:
        assert [len(tensor) for tensor in result["all empty"]] == [0, 0, 0, 0]  # type: ignore[arg-type]


@pytest.mark.process
def test_a_fault_of_one_rank_is_raised_on_all(ranks: list[dict[str, object]]) -> None:
    assert [result["error"] for result in ranks] == ["rank 1 gave 3 keys and columns of [2] rows"] * 2


def test_rows_that_disagree_are_refused_on_all_ranks(ranks: list[dict[str, object]]) -> None:
    assert [result["disagreement"] for result in ranks] == [
        "1 rows were evaluated twice with different results, the first at position 1, view 0: "
        "column 1 is 2.0 and 3.0; evaluate each view of each clip once"
    ] * 2


def test_without_a_process_group_ordered_rows_come_back_as_they_are() -> None:
    found, *columns = gather(keys(torch.arange(NUM_ROWS)), *rows())
    assert torch.equal(found, keys(torch.arange(NUM_ROWS)))
    assert all(torch.equal(column, whole) for column, whole in zip(columns, rows(), strict=True))


def test_equal_rows_are_counted_once() -> None:
    nan = float("nan")
    found, values = gather(
        keys(torch.tensor([4, 1, 4, 1, 4])), torch.tensor([[nan, 0], [1, 1], [nan, 0], [1, 1], [nan, 0]])
    )
    assert (found.tolist(), values[0].tolist(), len(values)) == ([[0, 1], [2, 0]], [1, 1], 2)


def test_the_result_is_free_of_the_graph() -> None:
    logits = torch.randn(3, 2, requires_grad=True)
    assert not gather(keys(torch.arange(3)), logits)[1].requires_grad
