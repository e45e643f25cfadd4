"""Measure the clips per second of the whole input path, against other implementations and the bare decode.

    python scripts/bench_input.py
    python scripts/bench_input.py --quick      # a test that it runs; the numbers are meaningless

The path: open a clip, take one frame of each of 10 segments, rotate, random resized crop to 224 x 224 and flip, batch
as uint8. The clips, 640 x 480, 3 s at 24 frames per second, H.264 with a key frame every 250 frames, are made here:
textures under a moving camera that bends them, with noise. From them come folders of JPEG frames (PIL, quality 90),
clips made by ``hoi-data reencode`` and caches made by ``hoi-data cache``.

Each peer has its own process, and all make the same frames, rotations, crops and flips. They run in turn,
in rounds whose order is shuffled; the first round is dropped. Shown are medians and, in brackets, lowest and highest;
ratios are of the same round. Without workers ratios are of CPU time, which other load on the machine affects less.
Before, each peer must return the requested frames of a clip whose frames are numbered; a control requests their
neighbours, which the check must detect. ``PSNR`` compares a peer's augmented frames with those of the raw path.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from data_tools.options import at_least
from hoi_train.core.randomness import generator
from hoi_train.core.records import UserError
from hoi_train.data.opencv import cv2
from hoi_train.data.readers import check_reader
from hoi_train.data.sampling import segment_frames
from hoi_train.data.transforms import Geometry
from hoi_train.data.workers import worker_context
from scripts.bench_input_peers import (
    AUGMENT,
    BATCH,
    FPS,
    LENGTH,
    PEERS,
    WORKERS,
    T,
    make_sets,
    pyav_frames,
    serve,
    torchvision_chain,
)

MODULES = ("torch", "torchvision", "av", "decord", "torchcodec", "pytorchvideo", "opencv-python-headless", "pillow")
QUICK = ("raw", "bare", "pil 256")


class Spread(NamedTuple):
    """Median, lowest and highest value over the rounds."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 0 if self.median >= 100 else 1 if self.median >= 10 else 2
        return f"{self.median:.{digits}f} [{self.low:.{digits}f}–{self.high:.{digits}f}]"


def spread(values: Sequence[float]) -> Spread:
    """Return the spread of some numbers."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Return the spread of the ratios of each round."""
    return spread([one / other for one, other in zip(ours, theirs, strict=True)])


class Processes:
    """Run each peer in its own process; ``ask`` lets one of them work while the others wait."""

    def __init__(self, names: Sequence[str], root: Path) -> None:
        context = worker_context()
        self._lines = {}
        for name in names:
            self._lines[name], theirs = context.Pipe()
            context.Process(target=serve, args=(name, root, theirs)).start()
            theirs.close()
            self._lines[name].recv()

    def ask(self, name: str, method: str, *arguments: Any) -> Any:
        """Return what a method of the peer's ``Runner`` returns."""
        self._lines[name].send((method, arguments))
        return self._lines[name].recv()

    def end(self) -> None:
        """Stop the processes."""
        for line in self._lines.values():
            line.send(None)

    def rounds(self, method: str, batches: dict[str, int], count: int) -> dict[str, list[Any]]:
        """Return the results of each peer in ``count`` rounds, after one that is dropped."""
        found: dict[str, list[Any]] = {name: [] for name in batches}
        for epoch in range(count + 1):
            for name in random.Random(epoch).sample(list(batches), len(batches)):
                found[name].append(self.ask(name, method, epoch, batches[name]))
        return {name: values[1:] for name, values in found.items()}


def installed(name: str) -> bool:
    """Return whether the reader of a peer is installed."""
    try:
        check_reader(PEERS[name].reader)
    except UserError:
        return False
    return True


def check_frames(processes: Processes, names: Sequence[str]) -> None:
    """Stop unless every peer returns the requested frames, and the check detects neighbouring ones."""
    wanted = segment_frames(LENGTH, T)
    for name in names:
        right, wrong = (processes.ask(name, "numbers", indices) for indices in (wanted, wanted + 1))
        if right != wanted.tolist() or wrong == wanted.tolist():
            raise SystemExit(f"{name}: asked for frames {wanted.tolist()}, it gave {right}; the control gave {wrong}")
    print(
        f"All {len(names)} peers return frames {wanted.tolist()} of the numbered clip; "
        "asked for the next ones, none does.\n"
    )


def psnr(ours: Tensor, theirs: Tensor) -> float:
    """Return the PSNR of two videos with values 0..255, in dB."""
    return float(10 * torch.log10(255**2 / (ours.double() - theirs.double()).square().mean().clamp_min(1e-6)))


def bench_path(root: Path, names: Sequence[str], count: int, batches: int | None) -> dict[str, Spread]:
    """Measure the whole path, print its table and return the ratios that have targets."""
    processes = Processes(names, root)
    try:
        check_frames(processes, names)
        shown = {name: processes.ask(name, "sample", 2 * BATCH) for name in names}
        first = {name: processes.ask(name, "alone", 0, 1)[0] for name in names}
        alone = processes.rounds("alone", {name: batches or _batches(1.0, first[name]) for name in names}, count)
        many = {name: batches or _batches(2.0, first[name] / WORKERS, least=WORKERS) for name in names}
        workers = processes.rounds("workers", many, min(count, 5))
    finally:
        processes.end()
    wall, cpu = ({name: [value[place] for value in alone[name]] for name in names} for place in (0, 1))
    print(
        "| peer | ms per clip | CPU ms per clip | times the raw path (CPU) "
        f"| clips/s, {WORKERS} workers | times the raw path | PSNR |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in names:
        near = "" if shown[name] is None else "same" if name == "raw" else f"{psnr(shown['raw'], shown[name]):.1f}"
        cells = (
            PEERS[name].label,
            spread(wall[name]),
            spread(cpu[name]),
            ratios(cpu["raw"], cpu[name]),
            spread(workers[name]),
        )
        print("| " + " | ".join(map(str, (*cells, ratios(workers[name], workers["raw"]), near))) + " |", flush=True)
    found = {f"{name}, CPU": ratios(cpu["raw"], cpu[name]) for name in names}
    return found | {f"{name}, workers": ratios(workers[name], workers["raw"]) for name in names}


def _batches(seconds: float, milliseconds: float, least: int = 1) -> int:
    return max(least, round(1000 * seconds / milliseconds / BATCH))


def bench_augmentation(root: Path, count: int, draws: int) -> dict[str, Spread]:
    """Measure the augmentation alone against the equivalent chain, print the table and return the ratios."""
    torch.set_num_threads(1)
    found = {}
    large = pyav_frames(root / "source" / "clip000.mp4", segment_frames(LENGTH, T))
    small = np.stack([cv2.resize(frame, (342, 256), interpolation=cv2.INTER_AREA) for frame in large])
    print(
        "\n| augmentation of 10 frames, from | chain | CPU ms per clip | times faster than float "
        "| PSNR to float, lowest | control: turned the other way |"
    )
    print("|---|---|---|---|---|---|")
    for label, frames in (("640 x 480", torch.from_numpy(large)), ("short side 256", torch.from_numpy(small))):
        height, width = frames.shape[1:3]
        views = [AUGMENT.geometry(width, height, generator(seed)) for seed in range(draws)]
        planes = frames.permute(0, 3, 1, 2)
        chains: dict[str, Callable[[int], Tensor]] = {
            "hoi_train": partial(_ours, frames),
            "torchvision, float": partial(_plain, planes, views, torch.float32),
            "torchvision, uint8": partial(_plain, planes, views, torch.uint8),
        }
        times = _in_turn(chains, count, draws)
        for name, chain in chains.items():
            near = [psnr(chains["torchvision, float"](seed), chain(seed)) for seed in range(draws)]
            turned = [view._replace(degrees=-view.degrees) for view in views]
            far = [psnr(torchvision_chain(planes.float(), turned[seed]), chain(seed)) for seed in range(draws)]
            found[f"{label}, {name}"] = ratios(times["torchvision, float"], times[name])
            cells = (label, name, spread(times[name]), found[f"{label}, {name}"])
            same = "the reference" if name == "torchvision, float" else f"{min(near):.1f} dB"
            print("| " + " | ".join(map(str, (*cells, same, f"{statistics.median(far):.1f} dB"))) + " |")
    return found


def _ours(frames: Tensor, seed: int) -> Tensor:
    return AUGMENT(frames, generator(seed))[0]


def _plain(planes: Tensor, views: Sequence[Geometry], dtype: torch.dtype, seed: int) -> Tensor:
    return torchvision_chain(planes.to(dtype), views[seed])


def _in_turn(chains: dict[str, Callable[[int], Tensor]], count: int, draws: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in chains}
    for turn in range(count + 1):
        for name in random.Random(turn).sample(list(chains), len(chains)):
            began = time.process_time()
            for seed in range(draws):
                chains[name](seed)
            times[name].append(1000 * (time.process_time() - began) / draws)
    return {name: values[1:] for name, values in times.items()}


def print_targets(found: dict[str, Spread], sizes: dict[str, int]) -> None:
    """Print which targets are met; a range that spans the target is inconclusive."""
    due = {
        "bare": ("raw path / bare decode", 0.9),
        "pytorchvideo": ("raw path / pytorchvideo", 5.0),
        "reencoded": ("reencoded / raw path", 8.0),
        "cache 256": ("cache of short side 256 / raw path", 25.0),
        "cache 224": ("cache of short side 224 / raw path", 25.0),
    }
    rows = []
    for name, (label, least) in due.items():
        for kind in ("CPU", "workers") if f"{name}, CPU" in found else ():
            value = found[f"{name}, {kind}"]
            if label.startswith("raw"):
                value = Spread(1 / value.median, 1 / value.high, 1 / value.low)
            rows.append((f"{label}, {kind}", value, least))
    for side in ("640 x 480", "short side 256"):
        rows.append((f"augmentation / float chain, {side}", found[f"{side}, hoi_train"], 4.0))
    print("\n| target | due | measured | met |\n|---|---|---|---|")
    for label, value, least in rows:
        met = "yes" if value.median >= least else "no"
        settled = "" if value.low >= least or value.high < least else ", by the median"
        print(f"| {label} | ≥ {least} | {value} | {met}{settled} |")
    for name in sizes.keys() & {"cache 256", "cache 224"}:
        share = sizes[name] / sizes["source"]
        print(f"| bytes of {name} / source | ≤ 3 | {share:.2f} | {'yes' if share <= 3 else 'no'} |")


def _machine() -> str:
    models = [
        line.partition(":")[2].strip() for line in _lines_of(Path("/proc/cpuinfo")) if line.startswith("model name")
    ]
    return f"{os.cpu_count()} × {models[0] if models else platform.machine()}, load {os.getloadavg()[0]:.1f}"


def _lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []


def _versions() -> str:
    found = [f"python {platform.python_version()}"]
    for name in MODULES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} not installed")
    return ", ".join(found)


def main() -> None:
    """Make the sets, check, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=at_least(1), default=16, help="in each set (%(default)s)")
    parser.add_argument(
        "--rounds", type=at_least(1), default=7, help="that count; five at most with workers (%(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="two clips, three peers, one round of one batch")
    given = parser.parse_args()
    clips, count, draws = (2, 1, 2) if given.quick else (given.clips, given.rounds, 8)
    names = QUICK if given.quick else [name for name in PEERS if installed(name)]
    print(f"`python scripts/bench_input.py {' '.join(sys.argv[1:])}`\n{_versions()}\n{_machine()}\n")
    with tempfile.TemporaryDirectory() as folder:
        sizes = make_sets(Path(folder), clips, {PEERS[name].source for name in names})
        megabits = sizes["source"] * 8e-6 * FPS / LENGTH / (clips + 1)
        listed = ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items())
        print(f"{clips + 1} clips of {LENGTH} frames, {megabits:.2f} Mbit/s: {listed}.")
        found = bench_path(Path(folder), names, count, 1 if given.quick else None)
        found |= bench_augmentation(Path(folder), count, draws)
        print_targets(found, sizes)


if __name__ == "__main__":
    main()
