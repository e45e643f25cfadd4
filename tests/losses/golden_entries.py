"""What the golden tests share: an entry of ``losses.json``, and how our numbers are compared with its own.

``expected`` is what the released code returned. Every expected number must be claimed by one of ours; where the
released code returned nan or infinity, ours must be finite, and the other numbers are compared all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hoi_train.core.records import ClassCounts
from hoi_train.losses import Loss
from tests.losses.loss_cases import gradient

Entry = dict[str, Any]
Family = Callable[[Entry], None]

# Numbers of the released codes that we do not offer.
NOT_OFFERED = {
    "loss_ldam_repo": "LDAM's weighted focal puts the class weight into the probability",
    "grad_ldam_repo": "as loss_ldam_repo",
}
ZERO_COUNT = "/zero_count/"  # of one class; where it makes that weight infinite, scaling has made all others 0


def numbers(value: Any) -> Tensor:
    """Return nested lists as float64, with "NaN" and "Infinity" read as such."""

    def plain(item: Any) -> Any:
        return [plain(i) for i in item] if isinstance(item, list) else float(item)

    return torch.tensor(plain(value), dtype=torch.float64)


def check(entry: Entry, ours: dict[str, Tensor | float], rtol: float = 1e-6) -> None:
    """Compare with every expected number, relative to its size; 1e-14 of the largest is float64's own rounding."""
    unclaimed = set(entry["expected"]) - set(ours) - set(NOT_OFFERED)
    assert not unclaimed, f"numbers of {entry['id']} that nothing is compared with: {sorted(unclaimed)}"
    for key, value in ours.items():
        mine, official = torch.as_tensor(value, dtype=torch.float64), numbers(entry["expected"][key])
        assert mine.shape == official.shape, f"{entry['id']}: {key}"
        assert mine.isfinite().all(), f"{entry['id']}: {key}"
        found = official.isfinite()
        if not found.all() and ZERO_COUNT in entry["id"]:
            continue
        mine, official = mine[found], official[found]
        rounding = 1e-14 * official.abs().max().item() if len(official) else 0.0
        torch.testing.assert_close(mine, official, rtol=rtol, atol=rounding, msg=lambda m, k=key: f"{k}: {m}")


def data(entry: Entry) -> tuple[Tensor, Tensor]:
    """Return logits and target of an entry."""
    target = entry["inputs"]["target"]
    return numbers(entry["inputs"]["logits"]), torch.tensor(target, dtype=torch.float64 if _multi(entry) else None)


def counts(entry: Entry) -> ClassCounts:
    """Return the class counts of an entry, or one sample a class where it has none."""
    positives = entry["inputs"].get("counts") or [1] * len(entry["inputs"]["logits"][0])
    samples = entry["inputs"].get("num_pairs", sum(positives))
    multi = _multi(entry) or "num_pairs" in entry["inputs"]
    return ClassCounts.multi(positives, samples) if multi else ClassCounts.single(positives)


def _multi(entry: Entry) -> bool:
    target = entry["inputs"].get("target", [])
    return bool(target) and isinstance(target[0], list)


def run(loss: Loss, entry: Entry) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss of each sample, the reduced loss and its gradient."""
    logits, target = data(entry)
    losses = loss(logits, target)
    return losses, loss.reduce(losses, target), gradient(loss, logits, target)


def element_losses(loss: Callable[..., Loss], entry: Entry, **hyper_parameters: Any) -> Tensor:
    """Return the loss of each sample and class: our loss of a sample is their mean, and with one class that class's."""
    logits, target = data(entry)
    one_class = loss(ClassCounts.multi([1], 1), **hyper_parameters)
    return one_class(logits.reshape(-1, 1), target.reshape(-1, 1)).reshape(logits.shape)
