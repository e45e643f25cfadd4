"""Files in the layout of MNIST and CIFAR-100, made up and small."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), compresslevel=1))


def write_mnist(folder: Path, *, train: int = 5600, test: int = 850) -> Path:
    """Write fours that are dark, nines that are bright and a few sevens; ``train`` and ``test`` images a digit."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        digits = random.permutation(np.repeat((4, 9, 7), (count, count, 5)).astype(np.uint8))
        pixels = np.where(digits == 9, 250, 5).astype(np.uint8)[:, None, None] * np.ones((28, 28), np.uint8)
        pixels[:, 0, 0] = random.integers(0, 256, len(digits))
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", pixels)
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", digits)
    return folder


def write_cifar(folder: Path, *, train: int = 12, test: int = 1) -> Path:
    """Write ``train`` and ``test`` images of each of 100 classes as pickles with bytes for keys."""
    inner = folder / "cifar-100-python"
    inner.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        labels = random.permutation(np.repeat(np.arange(100), count))
        data = random.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
        content = {b"data": data, b"fine_labels": labels.tolist(), b"filenames": [b"a.png"] * len(labels)}
        (inner / part).write_bytes(pickle.dumps(content, protocol=2))
    return folder
