"""The golden families of the losses that weigh by gradients: gradient harmonizing and equalization."""

from __future__ import annotations

from fractions import Fraction
from math import lcm
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from hoi_train.core.records import ClassCounts
from hoi_train.losses import Loss
from hoi_train.losses.equalization import EQL, EQLSoftmax
from hoi_train.losses.equalization_v2 import EQLv2
from hoi_train.losses.ghm import GHM, GradientDensity
from tests.losses.golden_entries import Entry, Family, check, numbers

# The official classes ran in float64, state and all; ours keep their state in float32, so they are made double here.


def check_step(entry: Entry, number: int, ours: dict[str, Tensor | float]) -> None:
    """Compare with what the official code returned in one of its steps; what went into it needs no claim."""
    step = entry["expected"]["steps"][number]
    given = {"logits", "target", "pred", "label_weight"}
    wanted = {key: value for key, value in step.items() if key not in given and value is not None}
    check({"id": f"{entry['id']} step {number}", "expected": wanted}, {k: v for k, v in ours.items() if k in wanted})


def ghm_c(entry: Entry) -> None:
    """Every valid element is a row of a one-class task, for GHM counts all classes together."""
    bins, momentum = entry["params"]["bins"], entry["params"]["momentum"]
    loss = GHM(ClassCounts.multi([1], 1), bins=bins, momentum=momentum, formula="released").double()
    for number, step in enumerate(entry["expected"]["steps"]):
        logits, target = numbers(step["logits"]).requires_grad_(), numbers(step["target"])
        valid = numbers(step["label_weight"]) > 0
        rows = loss(logits[valid][:, None], target[valid][:, None])
        mean = loss.reduce(rows, target)
        (grad,) = torch.autograd.grad(mean, logits)
        check_step(entry, number, {"loss": mean, "grad_logits": grad, "acc_sum_after": loss.density.mean_counts})
        if number == 0:  # all elements are valid: a loss of as many classes as columns is the same
            assert valid.all()
            classes = logits.shape[1]
            every = ClassCounts.multi([1] * classes, classes)
            whole = GHM(every, bins=bins, momentum=momentum, formula="released").double()
            torch.testing.assert_close(whole.reduce(whole(logits, target), target), mean)


def ghm_regression(entry: Entry) -> None:
    """Compare the density in GHM-R, a loss that we do not offer: ASL1 weighted by the density of its gradients."""
    bins, momentum = entry["params"]["bins"], entry["params"]["momentum"]
    density = GradientDensity(bins=bins, momentum=momentum, formula="released").double()
    for number, step in enumerate(entry["expected"]["steps"]):
        prediction, target = numbers(step["pred"]).requires_grad_(), numbers(step["target"])
        valid = numbers(step["label_weight"]) > 0
        difference, mu = prediction[valid] - target[valid], entry["params"]["mu"]
        root = (difference**2 + mu**2).sqrt()
        mean = (density(difference.abs() / root) * (root - mu)).mean()
        (grad,) = torch.autograd.grad(mean, prediction)
        check_step(entry, number, {"loss": mean, "grad_pred": grad, "acc_sum_after": density.mean_counts})


def drawn(loss: Loss, draws: Tensor, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the reduced loss in training and its gradient, with these uniform draws instead of random ones."""
    logits = logits.clone().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *size, **_: draws.expand(*size))
        mean = loss.reduce(loss(logits, target), target)
    (grad,) = torch.autograd.grad(mean, logits)
    return mean, grad


def positives(shares: list[float]) -> list[int]:
    """Return the class counts that have these shares of their sum."""
    exact = [Fraction(share).limit_denominator(10**6) for share in shares]
    samples = lcm(*(share.denominator for share in exact))
    return [int(share * samples) for share in exact]


def eql_sigmoid(entry: Entry) -> None:
    counts, threshold = positives(entry["inputs"]["freq"]), entry["params"]["lambda"]
    assert [n / sum(counts) for n in counts] == pytest.approx(entry["inputs"]["freq"], rel=1e-12)
    logits = numbers(entry["inputs"]["logits"])
    if "beta_draw" in entry["params"]:  # the CDB code: single-label, one draw a batch
        gamma = entry["params"]["gamma"]
        loss = EQL(ClassCounts.single(counts), threshold=threshold, gamma=gamma)
        uniform = torch.tensor(gamma / 2 if entry["params"]["beta_draw"] else (1 + gamma) / 2).double()
        mean, grad = drawn(loss, uniform, logits, torch.tensor(entry["inputs"]["target"]))
        return check(entry, {"loss": mean, "grad_logits": grad})
    # The authors' code: rows without a class keep all negatives. Ours is the mean over classes, theirs the sum.
    classes = logits.shape[1]
    labels = one_hot(torch.tensor(entry["inputs"]["target_with_bg_index_C"]), classes + 1)[:, :-1].double()
    loss = EQL(ClassCounts.multi(counts, sum(counts)), threshold=threshold)
    mean, grad = drawn(loss, torch.tensor(torch.nan).double(), logits, labels)
    return check(entry, {"loss": classes * mean, "grad_logits": classes * grad})


def eql_softmax(entry: Entry) -> None:
    counts, most = entry["inputs"]["counts"], entry["params"]["count_threshold"]
    # There a class of as many samples as the threshold is rare; ours compares shares, and strictly.
    threshold = (most + 0.5) / sum(counts)
    loss = EQLSoftmax(ClassCounts.single(counts), threshold=threshold, gamma=entry["params"]["ignore_prob"])
    frequent = entry["params"]["class_weight_1_if_count_gt_threshold"]
    assert (~loss.rare).tolist() == [bool(weight) for weight in frequent]
    target = torch.tensor(entry["inputs"]["target"])
    mean, grad = drawn(loss, numbers(entry["inputs"]["rand"]), numbers(entry["inputs"]["logits"]), target)
    check(entry, {"loss_mean": mean, "grad_logits": grad})


def eqlv2(entry: Entry) -> None:
    """The official last column, objectness, is plain binary cross-entropy; its rows have none of our classes."""
    parameters, classes = entry["params"], entry["params"]["num_foreground_classes"]
    ours = EQLv2(
        ClassCounts.multi([1] * classes, classes),
        gamma=parameters["gamma"],
        mu=parameters["mu"],
        alpha=parameters["alpha"],
    ).double()
    one = torch.ones(1, dtype=torch.float64)
    for number, step in enumerate(entry["expected"]["steps"]):
        logits = numbers(step["logits"]).requires_grad_()
        labels = one_hot(torch.tensor(step["target"]), classes + 1).double()
        positive, negative = ours.factors()
        mean = ours.reduce(ours(logits[:, :classes], labels[:, :classes]), labels)
        objectness = binary_cross_entropy_with_logits(logits[:, classes], labels[:, classes])
        total = classes * mean + objectness
        (grad,) = torch.autograd.grad(total, logits)
        found: dict[str, Any] = {
            "pos_w": torch.cat([positive, one]),
            "neg_w": torch.cat([negative, one]),
            "loss": total,
            "grad_logits": grad,
            "pos_grad_after": ours.balance.positive,
            "neg_grad_after": ours.balance.negative,
            "pos_neg_after": ours.balance.ratio(),
        }
        check_step(entry, number, found)


FAMILIES: dict[str, Family] = {
    "ghm_c": ghm_c,
    "ghm_r": ghm_regression,
    "eql_sigmoid": eql_sigmoid,
    "eql_softmax": eql_softmax,
    "eqlv2": eqlv2,
}
