"""Whole runs of the methods with a meta set: resumed, on two ranks, of both kinds of task, and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from hoi_train.config import load_config
from hoi_train.core.records import LabelKind
from hoi_train.core.strict_yaml import ConfigError
from hoi_train.engine.experiment import assemble
from hoi_train.methods import METHODS
from hoi_train.methods.meta_set import MetaWeighted
from tests.methods.meta_cases import clips, context, network, objective, step
from tests.small import make_config

METHOD: dict[str, dict[str, Any]] = {
    "l2rw": {"name": "l2rw", "per_class": 1},
    "mwn": {"name": "mwn", "per_class": 1, "lr": 0.1, "meta_batch_size": 3},
    "mwn label_noise": {"name": "mwn", "per_class": 2, "split": "train", "form": "label_noise"},
}


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "l2rw", "task": "nouns"}, "method.l2rw: task: no task 'nouns'; this run has verb"),
        ({"name": "mwn", "split": "test"}, "method.split: 'test' is not one of 'val' or 'train'"),
        ({"name": "mwn", "per_class": 0}, "method.per_class"),
        ({"name": "mwn", "form": "noise"}, "method.form: 'noise' is not one of"),
        ({"name": "l2rw", "lr": 0.1}, "method.lr: unknown key"),
    ],
)
def test_what_does_not_fit_is_one_line(method: dict[str, Any], message: str, manifest: Path, tmp_path: Path) -> None:
    config = make_config(tmp_path, manifest, method=method)
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        assemble(load_config(config))


STEPS = 3
CASES = [(name, kind) for name in METHOD for kind in ("single", "multi")]


def train(name: str, kind: LabelKind, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
    """Make some steps in float64 on this rank's half of each batch of 8; return network, losses' and V's state."""
    settings = {key: value for key, value in METHOD[name].items() if key not in ("name", "meta_batch_size")}
    method = cast(MetaWeighted, METHODS[METHOD[name]["name"]](context(kind, 8 // world, rank, world), **settings))
    if hasattr(method, "net"):
        method.net.double()
    net, of = network(), objective("seesaw" if kind == "single" else "eql_v2", kind)
    model: nn.Module = DistributedDataParallel(net) if world > 1 else net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    method.begin_epoch(0, 0, STEPS)
    for number in range(STEPS):
        rows = [(8 * number + i) % 16 for i in range(8)]
        batch = clips("train", rows[rank * 8 // world : (rank + 1) * 8 // world], kind)
        method.training_loss(model, batch, step(net, of, lr=0.5)).backward()
        optimizer.step()
        optimizer.zero_grad()
    state = {**net.state_dict(), **of.state_dict()}
    return {**state, **{f"V.{key}": value for key, value in method.state_dict().get("net", {}).items()}}


def one_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(
        {f"{name} {kind}": train(name, cast(LabelKind, kind), rank, 2) for name, kind in CASES}, f"{folder}/{rank}.pt"
    )
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, Tensor]]]:
    folder = tmp_path_factory.mktemp("ranks")
    spawn(one_rank, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.process
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_two_ranks_equal_one_process_with_the_doubled_batch(
    name: str, kind: LabelKind, ranks: list[dict[str, dict[str, Tensor]]]
) -> None:
    alone, fresh = train(name, kind), network().state_dict()
    for found in ranks:
        state = found[f"{name} {kind}"]
        assert state.keys() == alone.keys()
        for key, value in alone.items():
            tolerance = 1e-10 if value.dtype == torch.float64 else 1e-5
            torch.testing.assert_close(
                state[key], value, rtol=tolerance, atol=tolerance, msg=lambda m, k=key: f"{k}: {m}"
            )
    moved = max((alone[key] - value).abs().max() for key, value in fresh.items() if value.is_floating_point())
    assert moved > 1e-3
    for key in (key for key in alone if key.startswith("V.")):
        assert torch.equal(ranks[0][f"{name} {kind}"][key], ranks[1][f"{name} {kind}"][key])
