"""A run that evaluates from several views: their average, whatever the ranks, and what is refused."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from hoi_train.config import load_config
from hoi_train.core.strict_yaml import ConfigError
from hoi_train.data.loader import ClipLoader
from hoi_train.data.manifest import read_manifest
from hoi_train.data.views import Views
from hoi_train.engine.evaluation import by_position, network_rows
from hoi_train.engine.read_data import read_data
from tests.data.test_dataset import make_dataset
from tests.engine.test_pair_runs import pair_config
from tests.pairs import make_pair_data
from tests.small import NOUN, VERB, make_config, make_data

TASKS = {"verb": VERB, "noun": NOUN}
ROWS = dict[str, tuple[Tensor, Tensor]]


class Colours(nn.Module):
    """Logits of a clip that are sums of its pixels, so that no other clip of the batch has a part in them."""

    def forward(self, video: Tensor) -> dict[str, Tensor]:
        means = torch.stack([clip.double().mean((1, 2, 3)) for clip in video]) / 50
        return {"verb": means, "noun": means[:, :2] - 1}


def evaluated(manifest: Path, rank: int = 0, world: int = 1, **options: Any) -> ROWS:
    """Return what the network gives for the test split, over all ranks."""
    dataset = make_dataset(read_manifest(manifest).split("test"), **options)
    loader = ClipLoader(dataset, 2, rank=rank, world_size=world)
    fabric: Any = SimpleNamespace(to_device=lambda tensor: tensor, autocast=nullcontext)
    return network_rows(fabric, Colours(), loader.evaluation(), TASKS, "test")


def one_rank(rank: int, folder: str, manifest: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    torch.save(evaluated(manifest, rank, 2, views=Views(frames=3)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


def test_scores_are_averaged_over_the_views_of_a_clip_on_any_ranks(manifest: Path, tmp_path: Path) -> None:
    spawn(one_rank, args=(str(tmp_path), manifest), nprocs=2)  # 15 rows: the second clip's views lie on both
    alone = evaluated(manifest, views=Views(frames=3))
    dataset = make_dataset(read_manifest(manifest).split("test"), views=Views(frames=3))
    for name, task in TASKS.items():
        logits, target = alone[name]
        views = torch.stack([Colours()(batch.video)[name] for batch in ClipLoader(dataset, 3).evaluation()])
        scores = views.softmax(2).mean(1) if task.labels == "single" else views.sigmoid().mean(1)
        torch.testing.assert_close(logits.softmax(1) if task.labels == "single" else logits.sigmoid(), scores)
        assert torch.equal(target.float(), dataset.labels(name).float())
        for rank in range(2):
            found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)[name]
            assert torch.equal(found[0], logits)
            assert torch.equal(found[1], target)


def test_other_splits_are_evaluated_from_one_view(manifest: Path, tmp_path: Path) -> None:
    views = {"frames": 2, "crops": 3, "splits": ["test"]}
    loaders = read_data(load_config(make_config(tmp_path, manifest, data={"views": views}))).loaders
    assert {split: loader.dataset.num_views for split, loader in loaders.items()} == {"train": 1, "val": 1, "test": 6}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"views": {"crops": 3}, "evaluation": {"name": "augment", "size": 32}},
            "data.views.crops: 3 crops lie along the long side of the picture, which needs data.evaluation",
        ),
        ({"views": {"crops": 2}, "evaluation": {"name": "center_crop", "padded": True}}, "center_crop, not padded"),
        ({"views": {"frames": 0}}, "data.views.frames: should be greater than or equal to 1, got 0"),
        ({"views": {"crop": 3}}, "data.views.crop: unknown key; allowed here: frames, crops, splits; did you mean"),
    ],
)
def test_views_that_cannot_be_shown_are_refused(
    data: dict[str, Any], message: str, manifest: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        read_data(load_config(make_config(tmp_path, manifest, data=data)))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"views": {"crops": 3}}, "data.views.crops: 3 crops along the long side cut pairs off; with tasks of pairs"),
        (
            {"views": {"frames": 2}, "plan": "around_key"},
            "data.views.frames: data.plan around_key shows the same frames of a key frame in all views; use 1, or data",
        ),
    ],
)
def test_views_that_pairs_do_not_have_are_refused(data: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read_data(load_config(pair_config(tmp_path, make_pair_data(tmp_path), data=data)))
    assert message in str(refused.value)


def test_a_clip_without_all_of_its_views_is_refused() -> None:
    keys = [torch.tensor([[0, 0], [0, 1], [1, 0], [2, 0], [2, 1], [3, 1]])]
    with pytest.raises(ValueError, match=r"2 views were evaluated, but positions \[1, 3\] of the split lack some"):
        by_position(keys, {"logits": [torch.zeros(6, 3)]})
