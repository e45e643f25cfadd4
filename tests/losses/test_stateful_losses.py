"""What losses keep between batches: in training and evaluation; every loss across restarts and on two ranks."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from torch.nn.functional import one_hot

from hoi_train.core.records import ClassCounts, LabelKind
from hoi_train.losses import LOSSES, Loss
from hoi_train.losses.objective import Objective
from hoi_train.losses.weights import ClassWeighting
from tests.losses.loss_cases import COUNTS, KINDS, SINGLE, batch, gradient, training, validation

ON_RANKS: dict[str, dict[str, Any]] = {
    "cross_entropy single": {"weights": ClassWeighting("inverse"), "reduction": "weighted_mean"},
    "eql single": {"gamma": 0.5},
    "eql multi": {"draw": "element", "threshold": 0.2, "gamma": 0.5},  # several classes are rare
    "eql_softmax single": {"threshold": 0.2, "gamma": 0.5},
}
STATEFUL = [(n, kind) for n, kind in KINDS if n in {"ghm", "eql_v2", "equalized_focal", "seesaw"}]
every_loss = pytest.mark.parametrize(("name", "kind"), KINDS)
every_stateful_loss = pytest.mark.parametrize(("name", "kind"), STATEFUL)


def state(loss: Loss) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in loss.state_dict().items()}


@every_stateful_loss
def test_training_changes_the_state_and_evaluation_does_not(name: str, kind: LabelKind) -> None:
    loss = LOSSES[name](COUNTS[kind])
    fresh = state(loss)
    loss.eval()(*batch(kind))
    torch.testing.assert_close(state(loss), fresh, rtol=0, atol=0)
    loss.train()(*batch(kind))
    learnt = state(loss)
    assert any(not torch.equal(learnt[key], fresh[key]) for key in fresh)
    loss.eval()(*batch(kind, seed=1))
    torch.testing.assert_close(state(loss), learnt, rtol=0, atol=0)


@every_stateful_loss
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_mixed_targets_are_judged_alike_and_teach_by_their_share(name: str, kind: LabelKind, share: float) -> None:
    """Both targets meet the state that the batches before have left, and then move it as each alone would."""
    objective = Objective({"verb": LOSSES[name](COUNTS[kind], weights=ClassWeighting("inverse"))})
    logits, first = batch(kind)
    second = batch(kind, seed=2)[1]
    objective({"verb": batch(kind, seed=1)[0]}, [({"verb": batch(kind, seed=1)[1]}, 1.0)])
    before = copy.deepcopy(objective.state_dict())
    parts = [(copy.deepcopy(objective), target, part) for target, part in ((first, share), (second, 1 - share))]
    logits.requires_grad_()
    loss, _ = objective({"verb": logits}, [({"verb": target}, part) for _, target, part in parts])
    loss.backward()
    alone = [part * own({"verb": logits}, [({"verb": target}, 1.0)])[0] for own, target, part in parts]
    torch.testing.assert_close(loss, alone[0] + alone[1])
    for key, value in before.items():
        moved = [own.state_dict()[key] - value for own, _, _ in parts]
        wanted = sum(part * each for (*_, part), each in zip(parts, moved, strict=True))
        torch.testing.assert_close(
            objective.state_dict()[key], value + (wanted if value.is_floating_point() else sum(moved))
        )


@every_stateful_loss
def test_evaluation_depends_on_what_was_learnt(name: str, kind: LabelKind) -> None:
    fresh, trained = LOSSES[name](COUNTS[kind]), LOSSES[name](COUNTS[kind])
    for logits, target in training(kind):
        trained(logits, target)
    assert not torch.allclose(fresh.eval()(*batch(kind)), trained.eval()(*batch(kind)))


@every_loss
@pytest.mark.parametrize("step", range(4))
def test_a_restart_at_any_step_is_bit_identical(name: str, kind: LabelKind, step: int) -> None:
    def one_step(loss: Loss, number: int) -> tuple[Tensor, Tensor]:
        torch.manual_seed(number)  # as the loop does, for losses that draw
        logits, target = training(kind)[number]
        made = loss(logits, target), gradient(loss, logits, target)
        loss.after_validation(validation([0.9, 0.5, 0.1 * number, 0.0]))
        return made

    uninterrupted, restarted = LOSSES[name](COUNTS[kind]), LOSSES[name](COUNTS[kind])
    for number in range(step):
        one_step(uninterrupted, number)
    restarted.load_state_dict(copy.deepcopy(uninterrupted.state_dict()))
    for number in range(step, 4):
        each = [one_step(loss, number) for loss in (uninterrupted, restarted)]
        torch.testing.assert_close(each[0], each[1], rtol=0, atol=0)
        torch.testing.assert_close(state(uninterrupted), state(restarted), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "kind"), [each for each in STATEFUL if each[0] != "seesaw"])  # learns from labels
def test_a_broken_row_teaches_nothing(name: str, kind: LabelKind) -> None:
    loss, sound = LOSSES[name](COUNTS[kind]), LOSSES[name](COUNTS[kind])
    logits, target = batch(kind)
    logits[2] = torch.nan
    assert loss(logits, target).isnan().tolist() == [False, False, True, False, False]
    keep = torch.arange(5) != 2
    sound(logits[keep], target[keep])
    torch.testing.assert_close(state(loss), state(sound), rtol=0, atol=0)


@every_stateful_loss
def test_the_order_of_classes_does_not_matter_in_training(name: str, kind: LabelKind) -> None:
    order = [2, 0, 3, 1]
    counts = COUNTS[kind]
    moved = ClassCounts(tuple(counts.positives[i] for i in order), counts.num_samples, kind)
    loss, other = LOSSES[name](counts), LOSSES[name](moved)
    for logits, target in training(kind):
        target_moved = torch.tensor(order).argsort()[target] if kind == "single" else target[:, order]
        torch.testing.assert_close(other(logits[:, order], target_moved), loss(logits, target), rtol=1e-6, atol=0)


@every_stateful_loss
def test_extreme_batches_leave_a_finite_state(name: str, kind: LabelKind) -> None:
    loss = LOSSES[name](COUNTS[kind])
    labels = one_hot(torch.tensor([0, 0, 0]), 4).double()
    for logits in (torch.full((3, 4), 1e4), torch.full((3, 4), -1e4), torch.zeros(3, 4)):
        for target in (torch.zeros(3, dtype=torch.int64),) if kind == "single" else (labels, torch.zeros(3, 4)):
            for _ in range(3):
                assert loss(logits, target).isfinite().all()
            assert gradient(loss, logits, target).isfinite().all()
    loss(torch.zeros(0, 4), target[:0])
    assert all(value.isfinite().all() for value in state(loss).values())
    assert loss.eval()(*batch(kind)).isfinite().all()


@pytest.mark.parametrize("name", ["ghm", "eql", "eql_v2", "equalized_focal", "eql_softmax", "seesaw"])
def test_class_weights_come_on_top_and_change_no_state(name: str) -> None:
    weights = ClassWeighting("effective", beta=0.9999, from_epoch=160)
    plain, weighed = LOSSES[name](SINGLE).eval(), LOSSES[name](SINGLE, weights=weights).eval()  # type: ignore[call-arg]
    logits, target = batch("single")
    for epoch, factor in ((0, torch.ones(4)), (160, weights.of(SINGLE))):
        weighed.schedule(epoch)
        torch.testing.assert_close(weighed(logits, target), factor.float().double()[target] * plain(logits, target))
    trained, other = plain.train(), weighed.train()
    for each in (trained, other):
        torch.manual_seed(0)
        each(logits, target)
    learnt = {key: value for key, value in state(other).items() if key != "weights"}
    torch.testing.assert_close(learnt, state(trained), rtol=0, atol=0)


def steps(name: str, kind: LabelKind, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return a rank's losses and gradients of each batch, and the state that is left; the last rank has more rows."""
    loss = LOSSES[name](COUNTS[kind], **ON_RANKS.get(f"{name} {kind}", {}))
    rows = slice(3 * rank, 8 if rank == world - 1 else 3 * rank + 3)
    means, gradients = [], []
    for step, (logits, target) in enumerate(training(kind)):
        torch.manual_seed(10 * step + rank)  # as the loop does, for losses that draw
        mine = logits[rows].requires_grad_()
        means.append(loss.reduce(loss(mine, target[rows]), target[rows]))
        gradients += torch.autograd.grad(means[-1], mine)
    return torch.stack(means).detach(), torch.stack(gradients), state(loss)


def one_rank(rank: int, folder: str) -> None:
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    torch.set_num_threads(1)
    torch.save({f"{name} {kind}": steps(name, kind, rank, 2) for name, kind in KINDS}, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


Ranks = list[dict[str, tuple[Tensor, Tensor, dict[str, Tensor]]]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Ranks:
    folder = tmp_path_factory.mktemp("ranks")
    spawn(one_rank, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.process
@every_loss
def test_two_ranks_are_one_process_with_the_doubled_batch(ranks: Ranks, name: str, kind: LabelKind) -> None:
    (first, mine, first_state), (second, other, second_state) = (rank[f"{name} {kind}"] for rank in ranks)
    means, gradients, learnt = steps(name, kind)
    torch.testing.assert_close(first_state, second_state, rtol=0, atol=0)
    exact = name not in {"eql_v2", "equalized_focal"}  # sums of gradients depend on their order
    torch.testing.assert_close(first_state, learnt, rtol=0 if exact else 1e-6, atol=0 if exact else 1e-12)
    tolerance = 1e-12 if exact else 1e-5
    torch.testing.assert_close((first + second) / 2, means, rtol=tolerance, atol=0)
    joined, size = torch.cat([mine, other], dim=1) / 2, gradients.abs().max().item()
    torch.testing.assert_close(joined, gradients, rtol=tolerance, atol=tolerance * size)
