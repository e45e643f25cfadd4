"""MNIST 4 against 9: one digit is nearly all of the training set (tables 1 and 2 of the CDB paper).

Source: Sinha et al., "Class-Wise Difficulty-Balanced Loss for Solving Class-Imbalance", ACCV 2020. 5000 training
images, the 9 a share of 0.9 to 0.995 of them; 500 + 500 others for validation, 800 + 800 of the test set; LeNet-5,
SGD with momentum 0.9, weight decay 5e-4, batches of 100, learning rate 0.001 and a tenth of it in the last quarter;
each run with other images. The last weights are tested. From the folder of the repository::

    python -m scripts.reproduce.mnist_imbalance --data DIR --table 1            # losses
    python -m scripts.reproduce.mnist_imbalance --data DIR --table 2            # CDB's tau

``DIR`` holds the four canonical files, ``train-images-idx3-ubyte.gz`` and so on. The same command resumes
and repeats no finished run; runs are in ``OUT/steps_<steps>/``, results in ``OUT/table<1|2>_steps_<steps>.md``
(also ``.json`` and ``.png``), written at the end; those of some rows, columns or splits have other names, so that
the whole table is kept. To share the work, start the command several times, with
``--part 1/2`` and ``--part 2/2``; each writes the table of the runs that are finished by then.

The paper trains 4000 epochs of 50 steps, 200,000; the default here is the 8000 of the L2RW code, and the table says how
many ran. With 2000, cross-entropy at 0.98 has not yet begun to learn: it predicts nine for every image. No code of
these experiments was released; what the paper leaves open is chosen as follows:

- ``Focal``: the softmax form with gamma 1 and the modulator detached, as in the authors' code for CIFAR and EGTEA.
- ``CB-CE``: beta 0.9999. With the 0.9 of that code all weights are within 8 % of one another.
- ``EQL``: the sigmoid form with threshold 0.03 and gamma 0.95, drawn once a batch, as in that code: at 0.9 and 0.95
  the rare class lies above the threshold, and the loss is BCE.
- ``CDB-CE``: weights from the validation after each epoch of 50 steps; dynamic tau by the paper's formula.
- ``L2RW``: cross-entropy, samples weighed by the gradient on 10 validation images of each digit.
"""

from __future__ import annotations

import argparse
import gzip
import struct
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_tools.options import at_least, check_out
from hoi_train.core.randomness import generator
from hoi_train.core.records import ClassList, Split, Task, UserError
from scripts.reproduce.campaign import (
    Campaign,
    ImageConfig,
    Row,
    chosen_rows,
    image_config,
    part_of,
    run_campaign,
    selection,
)
from scripts.reproduce.images import Images

DIGIT = Task("digit", ClassList(("4", "9")), "single")
RATIOS = (0.9, 0.95, 0.98, 0.99, 0.995)
BATCH_SIZE, NUM_TRAIN, NUM_VAL, NUM_TEST = 100, 5000, 500, 800
STEPS_AN_EPOCH = NUM_TRAIN // BATCH_SIZE


def _cdb(tau: float | str) -> Mapping[str, Any]:
    return {"name": "cdb_ce", "tau": tau}


_DYNAMIC = Row("cdb_ce_dynamic", _cdb("dynamic"), (0.74, 1.27, 1.65, 2.39, 3.71))
_IFW: Mapping[str, Any] = {"name": "cross_entropy", "weights": {"scheme": "inverse"}}
_FOCAL: Mapping[str, Any] = {"name": "focal", "gamma": 1.0, "detach_modulator": True}

TABLES: dict[int, dict[str, Row]] = {
    1: {
        "CE": Row("ce", "cross_entropy", (1.50, 2.36, 5.09, 8.59, 14.35)),
        "IFW-CE": Row("ifw_ce", _IFW, (1.16, 1.74, 3.13, 6.01, 8.94)),
        "Focal": Row("focal", _FOCAL, (1.74, 2.78, 6.67, 11.11, 17.17)),
        "CB-CE": Row("cb_ce", {"name": "cb_cross_entropy", "beta": 0.9999}, (1.07, 1.79, 3.58, 5.88, 8.61)),
        "EQL": Row("eql", {"name": "eql", "threshold": 0.03, "gamma": 0.95}, (1.49, 2.26, 2.43, 2.60, 3.71)),
        "L2RW": Row("l2rw", "cross_entropy", (1.24, 1.76, 2.06, 2.63, 3.94), method="l2rw"),
        "CDB-CE": _DYNAMIC,
    },
    2: {
        "0.5": Row("cdb_ce_0.5", _cdb(0.5), (1.06, 1.43, 1.93, 2.59, 4.03)),
        "1": Row("cdb_ce_1", _cdb(1.0), (0.90, 1.38, 1.86, 2.49, 3.94)),
        "1.5": Row("cdb_ce_1.5", _cdb(1.5), (0.85, 1.35, 1.71, 2.31, 3.54)),
        "2": Row("cdb_ce_2", _cdb(2.0), (0.75, 1.21, 1.75, 2.23, 3.65)),
        "5": Row("cdb_ce_5", _cdb(5.0), (0.88, 1.19, 2.00, 2.51, 3.78)),
        "7": Row("cdb_ce_7", _cdb(7.0), (0.96, 1.20, 2.04, 2.64, 4.13)),
        "dynamic": _DYNAMIC,
    },
}


@dataclass(frozen=True)
class Digits:
    """Pixels uint8 ``[N, 1, 28, 28]`` and labels int64 ``[N]``, 0 for the fours and 1 for the nines."""

    pixels: Tensor
    labels: Tensor


def read_digits(folder: Path, part: str) -> Digits:
    """Read the fours and nines of ``train`` or ``t10k`` from the canonical files; raises ``UserError`` if damaged."""
    images = _read_idx(folder / f"{part}-images-idx3-ubyte.gz", 3)
    digits = _read_idx(folder / f"{part}-labels-idx1-ubyte.gz", 1)
    if len(images) != len(digits):
        raise UserError(f"{folder}: {len(images)} images and {len(digits)} labels of {part}")
    wanted = (digits == 4) | (digits == 9)
    return Digits(images[wanted][:, None], (digits[wanted] == 9).long())


def _read_idx(path: Path, rank: int) -> Tensor:
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    header = 4 + 4 * rank
    shape = struct.unpack_from(f">{rank}I", content, 4) if len(content) >= header else ()
    if content[:4] != bytes((0, 0, 8, rank)) or len(content) != header + int(np.prod(shape)):
        raise UserError(f"{path}: not an idx file of {rank} dimensions of bytes")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).copy()).view(shape)


def class_counts(ratio: float) -> tuple[int, int]:
    """Return the training images of fours and nines.

    >>> [class_counts(ratio)[0] for ratio in RATIOS]
    [500, 250, 100, 50, 25]
    """
    majority = round(NUM_TRAIN * ratio)
    return NUM_TRAIN - majority, majority


def make_splits(folder: Path, ratio: float, seed: int) -> dict[Split, Images]:
    """Draw the images of a run; all ratios of a seed share validation and test images and have nested training sets."""
    train, test = _digits(folder)
    rows: dict[Split, list[Tensor]] = {"train": [], "val": [], "test": []}
    for label, count in enumerate(class_counts(ratio)):
        found = _shuffled(train, label, seed, "train", NUM_VAL + count)
        rows["val"].append(found[:NUM_VAL])
        rows["train"].append(found[NUM_VAL : NUM_VAL + count])
        rows["test"].append(_shuffled(test, label, seed, "test", NUM_TEST)[:NUM_TEST])
    return {split: _images(test if split == "test" else train, split, torch.cat(rows[split]), seed) for split in rows}


def _shuffled(digits: Digits, label: int, seed: int, part: str, needed: int) -> Tensor:
    found = (digits.labels == label).nonzero().flatten()
    if len(found) < needed:
        raise UserError(f"{part}: {len(found)} images of the digit {DIGIT.classes.names[label]}, {needed} are needed")
    return found[torch.randperm(len(found), generator=generator(seed, "mnist", part, label))]


def _images(digits: Digits, split: str, rows: Tensor, seed: int) -> Images:
    names = [f"{split}_{row}" for row in rows.tolist()]
    return Images.of(digits.pixels[rows], digits.labels[rows], names, seed)


@cache
def _digits(folder: Path) -> tuple[Digits, Digits]:
    return read_digits(folder, "train"), read_digits(folder, "t10k")


def make_config(out: Path, steps: int, row: Row, ratio: float, seed: int) -> ImageConfig:
    """Return the configuration of one run."""
    epochs = steps // STEPS_AN_EPOCH
    return image_config(
        {
            "name": f"{row.name}-ratio{ratio:g}",
            "seed": seed,
            "runs": str(out / f"steps_{steps}"),
            "data": {"images": {"set": "MNIST 4 against 9", "ratio": ratio}},
            "model": {"backbone": "lenet5", "preprocessing": "mnist"},
            "tasks": {DIGIT.name: {"groups": {"name": "top_k", "k": 1}}},
            "loss": row.loss,
            "method": row.method,
            "optimizer": {"name": "sgd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-4},
            "schedule": {"name": "multi_step", "milestones": [0.75 * epochs], "gamma": 0.1},
            "training": {"epochs": epochs, "batch_size": BATCH_SIZE, "threads": 1},
            "checkpoints": {"every_minutes": 2.0},
            "tested": "last",
        }
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Train the missing runs, write the table and return the exit code."""
    arguments = _parser().parse_args(argv)
    return run_campaign(lambda: make_campaign(arguments), arguments.part)


def make_campaign(arguments: argparse.Namespace) -> Campaign:
    """Plan the requested runs; raises ``UserError`` for a row that the table does not have."""
    check_out(arguments.out)
    chosen = selection(_parser(), arguments, TABLES[arguments.table], "ratios", "splits", "seed")
    return Campaign(
        task=DIGIT,
        rows=chosen_rows(TABLES[arguments.table], arguments.rows),
        columns=list(dict.fromkeys(arguments.ratios)),
        published_columns=RATIOS,
        seeds=range(arguments.seed, arguments.seed + arguments.splits),
        make_config=partial(make_config, arguments.out, arguments.steps),
        make_splits=partial(make_splits, arguments.data),
        scalar=f"{DIGIT.name}/top1",
        error=True,
        title=f"MNIST 4 against 9, test error in %, LeNet-5, {arguments.steps} steps (published: 200000)",
        axis="share of nines" if arguments.table == 1 else "CDB-CE's tau, by share of nines",
        path=arguments.out / f"table{arguments.table}_steps_{arguments.steps}{chosen}",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the four MNIST files")
    parser.add_argument("--out", type=Path, default=Path("runs/mnist_imbalance"), help="folder of runs and results")
    parser.add_argument("--table", type=int, choices=sorted(TABLES), default=1, help="1: losses; 2: tau of CDB-CE")
    parser.add_argument("--steps", type=_steps, default=8000, help=f"of a run; whole epochs of {STEPS_AN_EPOCH}")
    parser.add_argument(
        "--splits", type=at_least(1), default=5, help="runs a cell, each with other images; 10 in the paper"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the first split")
    parser.add_argument("--ratios", type=float, nargs="+", choices=RATIOS, default=RATIOS, help="shares of the nines")
    parser.add_argument("--rows", nargs="+", help="some rows of the table, such as CE CDB-CE; all if not given")
    parser.add_argument("--part", type=part_of, default=(1, 1), help="train every n-th run only: 1/2, 2/2")
    return parser


def _steps(text: str) -> int:
    steps = at_least(STEPS_AN_EPOCH)(text)
    if steps % STEPS_AN_EPOCH:
        raise argparse.ArgumentTypeError(f"must be a multiple of {STEPS_AN_EPOCH}, an epoch, got {steps}")
    return steps


if __name__ == "__main__":
    sys.exit(main())
