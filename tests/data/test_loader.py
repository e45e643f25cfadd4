"""Batches from workers: the same bits however many there are, and clean ends."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from hoi_train.core.batches import ClipBatch
from hoi_train.core.records import ClipError
from hoi_train.data.dataset import ClipDataset, ClipSample
from hoi_train.data.loader import ClipLoader
from hoi_train.data.manifest import Manifest
from hoi_train.data.samplers import Item
from tests.data.test_dataset import make_dataset

ROOT = Path(__file__).resolve().parents[2]


def _loader(manifest: Manifest, *, split: str = "train", batch_size: int = 3, **options: int) -> ClipLoader:
    return ClipLoader(make_dataset(manifest.split(split)), batch_size, **options)  # type: ignore[arg-type]


def _same(left: list[ClipBatch], right: list[ClipBatch]) -> bool:
    return len(left) == len(right) > 0 and all(
        a.clip_ids == b.clip_ids
        and torch.equal(a.video, b.video)
        and torch.equal(a.indices, b.indices)
        and all(torch.equal(a.targets[task], b.targets[task]) for task in a.targets)
        for a, b in zip(left, right, strict=True)
    )


@pytest.fixture(scope="module")
def expected(manifest: Manifest) -> list[list[ClipBatch]]:
    loader = _loader(manifest)
    return [list(loader.training(epoch)) for epoch in (0, 1)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")  # said where there are fewer cores
@pytest.mark.parametrize(("workers", "prefetch"), [(1, 2), (4, 1), (2, 5)])
def test_workers_and_prefetch_change_no_bit(
    workers: int, prefetch: int, manifest: Manifest, expected: list[list[ClipBatch]]
) -> None:
    loader = _loader(manifest, workers=workers, prefetch=prefetch)
    assert _same(list(loader.training(0)), expected[0])
    if workers == 4:
        assert _same(list(loader.training(1)), expected[1])
    assert not multiprocessing.active_children()


def test_epochs_differ(expected: list[list[ClipBatch]]) -> None:
    assert not _same(expected[0], expected[1])
    assert [batch.clip_ids for batch in expected[0]] != [batch.clip_ids for batch in expected[1]]


def test_an_epoch_goes_on_in_the_middle(manifest: Manifest, expected: list[list[ClipBatch]]) -> None:
    loader = _loader(manifest)
    assert loader.num_batches(0) == 3
    assert _same(list(loader.training(0, 2)), expected[0][2:])
    assert list(loader.training(0, 3)) == []


def test_drawn_clips_take_the_place_of_the_epoch(manifest: Manifest) -> None:
    drawn = torch.tensor([7, 7, 2, 0, 7, 1])
    loader = _loader(manifest)
    batches = list(loader.training(0, drawn=drawn))
    assert loader.num_batches(0, drawn) == 2
    assert torch.cat([batch.indices for batch in batches]).equal(drawn)
    assert not torch.equal(batches[0].video[0], batches[0].video[1])


def test_two_ranks_give_the_batches_of_one(manifest: Manifest) -> None:
    ranks = [list(_loader(manifest, batch_size=2, rank=rank, world_size=2).training(0)) for rank in (0, 1)]
    alone = list(_loader(manifest, batch_size=4).training(0))
    assert all(
        torch.equal(torch.cat([a.video, b.video]), whole.video) for a, b, whole in zip(*ranks, alone, strict=True)
    )


def test_an_evaluation_gives_each_clip_once(manifest: Manifest) -> None:
    loader = _loader(manifest, split="val", batch_size=2)
    first, second = list(loader.evaluation()), list(loader.evaluation())
    assert [batch.clip_ids for batch in first] == [("clip 10", "clip 11"), ("clip 12",)]
    assert _same(first, second)
    shards = [list(_loader(manifest, split="val", rank=rank, world_size=4).evaluation()) for rank in range(4)]
    assert sorted(torch.cat([batch.indices for shard in shards for batch in shard]).tolist()) == [0, 1, 2]
    assert len(loader) == 3


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_generator_is_left_alone(workers: int, manifest: Manifest) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(_loader(manifest, split="val", workers=workers).evaluation())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_wait_is_measured(manifest: Manifest) -> None:
    loader = _loader(manifest)
    for _ in loader.training(0):
        time.sleep(0.2)  # the consumer's own time does not count
    waited = loader.pop_wait()
    assert 0 < waited < 0.5
    assert loader.pop_wait() == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_a_clip_error_arrives_as_it_is_and_ends_the_workers(workers: int, manifest: Manifest, tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.mp4").symlink_to(manifest.root / f"{number}.mp4")
    (tmp_path / "6.mp4").unlink()
    (tmp_path / "6.mp4").write_bytes(b"not a video")
    broken = Manifest(manifest.path, tmp_path, manifest.tasks, manifest.table)
    loader = _loader(broken, batch_size=2, workers=workers)
    given = []
    start = time.monotonic()
    with pytest.raises(ClipError) as caught:
        given.extend(loader.training(0))
    assert str(caught.value).startswith(f"clip 'clip 6': {tmp_path / '6.mp4'}: cannot be read as video: ")
    assert time.monotonic() - start < 30
    assert not multiprocessing.active_children()
    order = [batch.clip_ids for batch in _loader(manifest, batch_size=2).training(0)]
    assert [batch.clip_ids for batch in given] == order[: next(i for i, ids in enumerate(order) if "clip 6" in ids)]


def test_a_consumer_that_stops_leaves_no_worker(manifest: Manifest) -> None:
    batches = _loader(manifest, workers=2, batch_size=1).training(0)
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    batches.close()  # type: ignore[attr-defined]
    assert not multiprocessing.active_children()


@pytest.mark.process
def test_a_process_that_dies_takes_its_workers_along(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "dataset.pickle").write_bytes(pickle.dumps(make_dataset(manifest)))
    script = tmp_path / "die.py"
    script.write_text(
        textwrap.dedent("""
        import multiprocessing, os, pickle, signal, sys
        from pathlib import Path
        from hoi_train.data.loader import ClipLoader

        if __name__ == "__main__":
            dataset = pickle.loads(Path(sys.argv[1]).read_bytes())
            batches = ClipLoader(dataset, 1, workers=2).training(0)
            next(batches)
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """)
    )
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{ROOT / 'tests' / 'data'}", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, str(script), str(tmp_path / "dataset.pickle")]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    workers = [int(number) for number in done.stdout.split()]
    assert len(workers) == 2
    deadline = time.monotonic() + 30
    while any(_alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "the workers outlive the process that they work for"
        time.sleep(0.1)


class Faulty(ClipDataset):
    """A data set of which one clip does something bad to the process that reads it."""

    def __init__(self, dataset: ClipDataset, clip: int, fault: str) -> None:
        self.__dict__.update(dataset.__dict__, clip=clip, fault=fault)

    def __getitem__(self, item: Item) -> ClipSample:
        if item.clip == self.clip:
            if self.fault == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(1000)
        return super().__getitem__(item)


@pytest.mark.process
@pytest.mark.parametrize(
    ("blow", "blows", "clips"),
    [
        (signal.SIGKILL, 1, 10),
        (signal.SIGSTOP, 1, 10),
        pytest.param(signal.SIGKILL, 50, 600, marks=[pytest.mark.campaign, pytest.mark.timeout(1200)]),
        pytest.param(signal.SIGSTOP, 10, 200, marks=[pytest.mark.campaign, pytest.mark.timeout(600)]),
    ],
)
def test_the_stream_goes_on_when_workers_are_killed_or_stopped(
    blow: signal.Signals, blows: int, clips: int, manifest: Manifest, caplog: pytest.LogCaptureFixture
) -> None:
    """R10."""
    drawn = torch.arange(clips) % 10
    alone = _loader(manifest, batch_size=1).training(0, drawn=drawn)
    moments = set(random.Random(0).sample(range(clips - 3), blows))
    batches = _loader(manifest, batch_size=1, workers=2, prefetch=1, timeout=4).training(0, drawn=drawn)
    for number, (batch, wanted) in enumerate(zip(batches, alone, strict=True)):
        assert _same([batch], [wanted])
        for worker in multiprocessing.active_children()[:1] if number in moments else ():
            assert worker.pid is not None
            os.kill(worker.pid, blow)
    assert 0.9 * blows <= caplog.text.count("again") <= blows  # two blows can be seen as one
    assert not multiprocessing.active_children()


@pytest.mark.process
@pytest.mark.parametrize(
    ("fault", "why"), [("dies", "the process that read it died"), ("hangs", "not read within 3 s")]
)
def test_a_clip_that_always_takes_its_worker_down_is_named(fault: str, why: str, manifest: Manifest) -> None:
    dataset = Faulty(make_dataset(manifest.split("train")), 6, fault)
    order = [batch.clip_ids for batch in _loader(manifest, batch_size=2).training(0)]
    before = next(i for i, ids in enumerate(order) if "clip 6" in ids)
    given = []
    text = rf"^clip 'clip 6': .*6\.mp4: {why}.*, 3 times in a row; .*data.bad_clips: quarantine"
    with pytest.raises(ClipError, match=text):
        given.extend(ClipLoader(dataset, 2, workers=2, timeout=3).training(0))
    assert [batch.clip_ids for batch in given] == order[: len(given)]  # a dead worker's finished batches are lost
    assert len(given) <= before
    assert not multiprocessing.active_children()


def _alive(process: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return state.stdout.strip()[:1] not in ("", "Z")
