"""R12 for pairs: two ranks with unequally many pairs, or none, train as one process with the doubled batch does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

from hoi_train.core.batches import ClipBatch
from hoi_train.core.records import ClassCounts
from hoi_train.data.loader import ClipLoader
from hoi_train.data.manifest import read_manifest
from hoi_train.data.pair_dataset import PairDataset
from hoi_train.data.sampling import AroundKey
from hoi_train.data.transforms import Augment, CenterCrop
from hoi_train.losses import LOSSES
from hoi_train.losses.objective import Objective
from hoi_train.models.pooling import PairPool
from hoi_train.models.preprocessing import PREPROCESSING
from hoi_train.models.recognizer import Recognizer
from tests.pairs import OBJECTS, PREDICATE

NAMES = ("bce", "asl", "cb_focal", "distribution_balanced", "cdb_bce", "eql_v2", "two_way")
GLOBAL_BATCH, EPOCHS = 4, 3
COUNTS = ClassCounts.multi([12, 9, 7, 1], 20)
Result = dict[str, Tensor]


def network() -> Recognizer:
    """Return a recognizer of pairs in float64, without batch statistics and dropout."""
    torch.manual_seed(1)
    backbone = nn.Sequential(nn.Conv3d(3, 4, 3, stride=(1, 4, 4), padding=1), nn.Tanh())
    backbone.num_features = 4  # type: ignore[assignment]
    pooling = PairPool(4, len(OBJECTS), along="trajectory", features=8)
    head = nn.Linear(8, PREDICATE.num_classes)
    return Recognizer(backbone, {"predicate": head}, PREPROCESSING["kinetics_2020"], pooling).double().train()


def read(manifest: Path, rank: int = 0, world: int = 1) -> list[ClipBatch]:
    """Return a rank's batches of some epochs."""
    clips = read_manifest(manifest).split("train")
    transforms = Augment(size=32, scale=(0.3, 0.9), rotation=0.0), CenterCrop(size=32)  # pairs leave the view
    data = PairDataset(clips, {"predicate": PREDICATE}, transforms, OBJECTS, num_frames=2, plan=AroundKey(), seed=3)
    loader = ClipLoader(data, GLOBAL_BATCH // world, rank=rank, world_size=world)
    return [batch for epoch in range(EPOCHS) for batch in loader.training(epoch)]


def train(batches: list[ClipBatch], name: str, world: int = 1) -> Result:
    """Return the weights and the loss's state after the batches, and the number of pairs of each."""
    net, of = network(), Objective({"predicate": LOSSES[name](COUNTS)}).train()
    model: nn.Module = DistributedDataParallel(net) if world > 1 else net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    for batch in batches:
        total, _ = of(model(**batch.inputs), batch.shares)
        total.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {**net.state_dict(), **of.state_dict(), "pairs": torch.tensor([len(batch.rows) for batch in batches])}


def one_rank(rank: int, folder: str, manifest: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    batches = read(manifest, rank, 2)
    torch.save({name: train(batches, name, 2) for name in NAMES}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def manifest(pair_manifest: Path) -> Path:
    return pair_manifest


@pytest.fixture(scope="module")
def whole(manifest: Path) -> list[ClipBatch]:
    return read(manifest)


@pytest.fixture(scope="module")
def ranks(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Result]]:
    folder = tmp_path_factory.mktemp("ranks")
    spawn(one_rank, args=(str(folder), manifest), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.process
@pytest.mark.parametrize("name", NAMES)
def test_two_ranks_equal_one_process_with_the_doubled_batch(
    name: str, whole: list[ClipBatch], ranks: list[dict[str, Result]]
) -> None:
    alone, (first, second) = train(whole, name), (rank[name] for rank in ranks)
    assert torch.equal(first["pairs"] + second["pairs"], alone["pairs"])
    uneven = first["pairs"] != second["pairs"]
    assert (uneven & (first["pairs"] * second["pairs"] > 0)).any()
    assert (uneven & (first["pairs"] * second["pairs"] == 0)).any()
    for key in alone.keys() - {"pairs"}:
        tolerance = 1e-6 if name == "eql_v2" else 1e-10  # which keeps its sums in float32
        for rank in (first, second):
            torch.testing.assert_close(
                rank[key], alone[key], rtol=tolerance, atol=tolerance, msg=lambda m, k=key: f"{k}: {m}"
            )
    fresh = network().state_dict()
    assert max((alone[key] - value).abs().max() for key, value in fresh.items() if value.is_floating_point()) > 1e-2


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_of_no_pairs_has_no_loss_and_no_gradient(name: str) -> None:
    of = Objective({"predicate": LOSSES[name](COUNTS)}).train()
    logits = torch.zeros(0, 4, requires_grad=True)
    total, _ = of({"predicate": logits}, [({"predicate": torch.zeros(0, 4)}, 1.0)])
    total.backward()
    assert total == 0
