"""CIFAR-100-LT, ResNet-32: test accuracy at imbalances of 10 to 200 (tables 3 and 4 of the CDB paper).

Source: Sinha et al., "Class-Wise Difficulty-Balanced Loss for Solving Class-Imbalance", ACCV 2020. Class c of 100 keeps
``floor(n_max * imbalance^(-c / 99))`` images. From the folder of the repository::

    python -m scripts.reproduce.cifar100_lt --data DIR --table 3                            # losses
    python -m scripts.reproduce.cifar100_lt --data DIR --table 4 --preset cdb_paper         # CDB's tau
    python -m scripts.reproduce.cifar100_lt --data DIR --imbalances 200 --rows CE --epochs 2     # a trial

``DIR`` is ``cifar-100-python`` (files ``train`` and ``test``) or the folder that holds it. A CUDA device is used if
there is one. The same command resumes and repeats no finished run; runs are in
``OUT/<preset>_epochs_<epochs>/``, results in ``OUT/table<3|4>_<preset>_epochs_<epochs>.md`` (``.json``, ``.png``);
those of some rows, columns or seeds have other names, so that the whole table is kept.
``--part 1/2`` and ``--part 2/2`` share the work between two commands.

Recipes and numbers differ between papers and their code; ``--preset`` chooses the recipe. All: SGD
with momentum 0.9 at 0.1, crop with 4 pixels of padding, flip.

============  ================================  =======  =====  ==================  ============  ======  ============
preset        training images, validation       epochs   batch  rate times 0.01 at  weight decay  warmup  tested
============  ================================  =======  =====  ==================  ============  ======  ============
cdb_released  first of 475, the last 25         240      32     160, 210            5e-4          0       best by val
cdb_paper     random of 450, 50 random          200      128    160, 180            5e-4          0       best by val
ldam          random of 500, the test set       200      128    160, 180            2e-4          5       best by test
============  ================================  =======  =====  ==================  ============  ======  ============

Known differences: the released CDB code tests with other colour means than it trains with (here the same, ImageNet's)
and starts the last layer's bias at ``-log(99)``, without decay (here for the sigmoid losses only, with weights that
start at a deviation of 0.01 and with decay: under a softmax equal biases change nothing); the text of the CDB paper
does not say whose weights are tested (here the best by mean validation recall, as in its code). ``ldam`` chooses the
epoch by the test set, as that code does; what learns from the validation images, L2RW, MWN and CDB-CE, is refused
there. With ``--epochs`` all milestones are scaled.

Many published rows of table 3 are copied from other papers with other training sets. ``Focal`` and ``CB`` are the
sigmoid forms of the class-balanced paper with gamma 1 (beta 0 and 0.9), ``EQL`` the softmax form with threshold 0.005
and gamma 0.9; L2RW and MWN have 10 validation images a class; ``LDAM-DRW`` has DRW from 4/5 of the epochs; ``CDB-CE``
is the paper's dynamic tau, ``CDB-CE released`` the formula that the released code runs: it cannot be told which of the
two was published.
"""

from __future__ import annotations

import argparse
import io
import pickle
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from data_tools.options import at_least, check_out
from hoi_train.core.randomness import generator
from hoi_train.core.records import ClassList, Split, Task, UserError
from hoi_train.data.long_tail import exponential_counts
from hoi_train.losses import LOSSES
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

NUM_CLASSES = 100
OBJECT = Task("object", ClassList(tuple(f"class_{i:02}" for i in range(NUM_CLASSES))), "single")
IMBALANCES = (200, 100, 50, 20, 10)
META_METHODS = ("l2rw", "mwn")  # they learn from validation images
# Raised for a pickle with wrong bytes, before torch refuses the content.
DAMAGED = (
    OSError,
    EOFError,
    pickle.UnpicklingError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RuntimeError,
)


@dataclass(frozen=True)
class Preset:
    """A published recipe; the table in the module's docstring shows them side by side."""

    largest: int
    num_val: int
    choice: Literal["random", "file order"]
    epochs: int
    batch_size: int
    milestones: tuple[int, ...]
    warmup_epochs: int
    weight_decay: float
    normalisation: str


PRESETS = {
    "cdb_released": Preset(475, 25, "file order", 240, 32, (160, 210), 0, 5e-4, "imagenet"),
    "cdb_paper": Preset(450, 50, "random", 200, 128, (160, 180), 0, 5e-4, "cifar"),
    "ldam": Preset(500, 0, "random", 200, 128, (160, 180), 5, 2e-4, "cifar"),
}


def _cdb(tau: float | str, formula: str = "paper") -> dict[str, Any]:
    return {"name": "cdb_ce", "tau": tau, "tau_formula": formula}


def _cb(beta: float) -> dict[str, Any]:
    return {"name": "cb_focal", "beta": beta, "gamma": 1.0}


_PRIOR = {"name": "linear", "prior": 1 / NUM_CLASSES}
_LDAM = {"name": "ldam", "weights": {"scheme": "effective", "beta": 0.9999, "from_epoch": 160}}
_EQL = {"name": "eql_softmax", "threshold": 0.005, "gamma": 0.9}
_CE = Row("ce", "cross_entropy", (34.95, 38.21, 43.89, 51.34, 55.65))
_DYNAMIC = Row("cdb_ce_dynamic", _cdb("dynamic"), (37.40, 42.57, 46.78, 54.22, 58.74))
_RELEASED = Row("cdb_ce_released", _cdb("dynamic", "released_cifar"), _DYNAMIC.published)

TABLES: dict[int, dict[str, Row]] = {
    3: {
        "CE": _CE,
        "Focal": Row("focal", _cb(0.0), (35.62, 38.41, 44.32, 51.95, 55.78), head=_PRIOR),
        "CB": Row("cb", _cb(0.9), (36.23, 39.60, 45.32, 52.99, 57.99), head=_PRIOR),
        "L2RW": Row("l2rw", "cross_entropy", (33.38, 40.23, 44.44, 51.64, 53.73), method="l2rw"),
        "MWN": Row("mwn", "cross_entropy", (37.91, 42.09, 46.74, 54.37, 58.46), method="mwn"),
        "EQL": Row("eql", _EQL, (37.34, 40.54, 44.70, 54.12, 58.32)),
        "LDAM-DRW": Row("ldam_drw", _LDAM, (None, 42.04, None, None, 58.71), head="cosine"),
        "CDB-CE": _DYNAMIC,
        "CDB-CE released": _RELEASED,
    },
    4: {
        "0": _CE,
        "0.5": Row("cdb_ce_0.5", _cdb(0.5), (37.21, 41.26, 46.13, 54.60, 58.29)),
        "1": Row("cdb_ce_1", _cdb(1.0), (37.99, 41.67, 46.45, 53.48, 59.47)),
        "1.5": Row("cdb_ce_1.5", _cdb(1.5), (37.63, 42.70, 47.09, 52.74, 58.68)),
        "2": Row("cdb_ce_2", _cdb(2.0), (37.03, 42.44, 46.94, 53.00, 58.65)),
        "5": Row("cdb_ce_5", _cdb(5.0), (36.81, 40.62, 45.45, 51.67, 54.48)),
        "dynamic": _DYNAMIC,
        "dynamic released": _RELEASED,
    },
}


@dataclass(frozen=True)
class Objects:
    """Pixels uint8 ``[N, 3, 32, 32]`` and fine labels int64 ``[N]``."""

    pixels: Tensor
    labels: Tensor


class _PlainUnpickler(pickle.Unpickler):
    """Read lists, strings and numpy arrays; a pickle that names anything else could run code and is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module.endswith("core.multiarray") and name == "_reconstruct":
            return np.empty(0).__reduce__()[0]
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return str.encode
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def read_objects(folder: Path, part: str) -> Objects:
    """Read ``train`` or ``test`` of ``cifar-100-python``; raises ``UserError`` if damaged or of another kind."""
    path = (folder if (folder / part).is_file() else folder / "cifar-100-python") / part
    try:
        content = _PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        pixels, labels = torch.from_numpy(content[b"data"]), torch.tensor(content[b"fine_labels"])
        return Objects(pixels.view(len(labels), 3, 32, 32), labels)
    except FileNotFoundError:
        raise UserError(f"{path} is not there; --data must be cifar-100-python or the folder that holds it") from None
    except DAMAGED as error:
        raise UserError(f"{path}: not a file of cifar-100-python: {type(error).__name__}: {error}") from None


def long_tail(labels: Tensor, preset: Preset, imbalance: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the positions of training and validation images, int64.

    In file order the first images of each class are for training and the last for validation, whatever the seed. At
    random, all imbalances of a seed have the same validation images and nested training sets.

    Args:
        labels: int64 ``[N]``, of the training file.
        preset: how many of each class, and which.
        imbalance: 1..n_max.
        seed: of the run.

    Raises:
        UserError: a class has too few images in the file.
    """
    train, val = [], []
    for class_id, count in enumerate(exponential_counts(NUM_CLASSES, preset.largest, imbalance)):
        found = (labels == class_id).nonzero().flatten()
        if len(found) < count + preset.num_val:
            raise UserError(
                f"class {class_id} has {len(found)} images; {count} to train with and {preset.num_val} to validate "
                "with are needed: take the whole CIFAR-100, another preset or a larger imbalance"
            )
        if preset.choice == "random":
            found = found[torch.randperm(len(found), generator=generator(seed, "cifar", class_id))]
        train.append(found[:count])
        val.append(found[len(found) - preset.num_val :])
    return torch.cat(train), torch.cat(val)


def make_splits(folder: Path, preset: Preset, imbalance: float, seed: int) -> dict[Split, Images]:
    """Cut the long tail; without validation images of its own the preset validates on the test images."""
    train, test = _objects(folder)
    rows, held_out = long_tail(train.labels, preset, imbalance, seed)
    tested = _images(test, "test", torch.arange(len(test.labels)), seed)
    val = _images(train, "val", held_out, seed) if len(held_out) else tested
    return {"train": _images(train, "train", rows, seed), "val": val, "test": tested}


def _images(objects: Objects, split: str, rows: Tensor, seed: int) -> Images:
    return Images.of(objects.pixels[rows], objects.labels[rows], [f"{split}_{row}" for row in rows.tolist()], seed)


@cache
def _objects(folder: Path) -> tuple[Objects, Objects]:
    return read_objects(folder, "train"), read_objects(folder, "test")


def make_config(out: Path, name: str, epochs: int, row: Row, imbalance: int, seed: int) -> ImageConfig:
    """Return the configuration of one run of a preset, with all milestones scaled to ``epochs``."""
    preset = PRESETS[name]
    scale = epochs / preset.epochs
    loss: dict[str, Any] = {"name": row.loss} if isinstance(row.loss, str) else dict(row.loss)
    if "weights" in loss:
        loss["weights"] = {**loss["weights"], "from_epoch": int(0.8 * epochs)}
    return image_config(
        {
            "name": f"{row.name}-imbalance{imbalance}",
            "seed": seed,
            "runs": str(out / f"{name}_epochs_{epochs}"),
            "data": {
                "images": {"set": "CIFAR-100-LT", "imbalance": imbalance, "preset": name},
                "crop_and_flip": True,
            },
            "model": {"backbone": "resnet32", "preprocessing": preset.normalisation},
            "tasks": {OBJECT.name: {"groups": {"name": "top_k", "k": 33}, "head": row.head}},
            "loss": loss,
            "method": row.method,
            "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": preset.weight_decay},
            "schedule": {
                "name": "multi_step",
                "milestones": [milestone * scale for milestone in preset.milestones],
                "gamma": 0.01,
                "warmup_epochs": preset.warmup_epochs * scale,
            },
            "training": {"epochs": epochs, "batch_size": preset.batch_size},
            "tested": "best",
        }
    )


def _rows(arguments: argparse.Namespace) -> dict[str, Row]:
    """Return the requested rows that the preset allows."""
    rows = chosen_rows(TABLES[arguments.table], arguments.rows)
    if PRESETS[arguments.preset].num_val:
        return rows
    learners = [heading for heading, row in rows.items() if row.method in META_METHODS or _learns(row.loss)]
    if learners and arguments.rows:
        raise UserError(f"--rows: {', '.join(learners)}: would learn from the test images, preset {arguments.preset}")
    return {heading: row for heading, row in rows.items() if heading not in learners}


def _learns(loss: str | Mapping[str, Any]) -> bool:
    return LOSSES[loss if isinstance(loss, str) else loss["name"]].learns_from_validation()


def main(argv: Sequence[str] | None = None) -> int:
    """Train the missing runs, write the table and return the exit code."""
    arguments = _parser().parse_args(argv)
    return run_campaign(lambda: make_campaign(arguments), arguments.part)


def make_campaign(arguments: argparse.Namespace) -> Campaign:
    """Plan the requested runs; raises ``UserError`` for rows that table or preset do not have."""
    check_out(arguments.out)
    preset = arguments.preset
    chosen = selection(_parser(), arguments, TABLES[arguments.table], "imbalances", "seeds", "seed")
    epochs = PRESETS[preset].epochs if arguments.epochs is None else arguments.epochs
    return Campaign(
        task=OBJECT,
        rows=_rows(arguments),
        columns=list(dict.fromkeys(arguments.imbalances)),
        published_columns=IMBALANCES,
        seeds=range(arguments.seed, arguments.seed + arguments.seeds),
        make_config=partial(make_config, arguments.out, preset, epochs),
        make_splits=partial(make_splits, arguments.data, PRESETS[preset]),
        scalar=f"{OBJECT.name}/top1",
        error=False,
        title=f"CIFAR-100-LT, test accuracy in %, ResNet-32, recipe {preset}, {epochs} epochs",
        axis="imbalance" if arguments.table == 3 else "CDB-CE's tau, by imbalance",
        path=arguments.out / f"table{arguments.table}_{preset}_epochs_{epochs}{chosen}",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder cifar-100-python, or the one that holds it")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar100_lt"), help="folder of runs and results")
    parser.add_argument("--table", type=int, choices=sorted(TABLES), default=3, help="3: losses; 4: tau of CDB-CE")
    parser.add_argument("--preset", choices=PRESETS, default="cdb_released", help="whose recipe")
    parser.add_argument("--epochs", type=at_least(1), help="of a run; the recipe's if not given")
    parser.add_argument(
        "--seeds", type=at_least(1), default=1, help="runs a cell; the paper does not say how many it has"
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="the first")
    parser.add_argument("--imbalances", type=int, nargs="+", choices=IMBALANCES, default=IMBALANCES)
    parser.add_argument("--rows", nargs="+", help="some rows of the table, such as CE CDB-CE; all if not given")
    parser.add_argument("--part", type=part_of, default=(1, 1), help="train every n-th run only: 1/2, 2/2")
    return parser


if __name__ == "__main__":
    sys.exit(main())
