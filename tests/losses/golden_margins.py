"""The golden families of the losses that shift or scale logits by class counts, and of the multi-label losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hoi_train.core.records import ClassCounts
from hoi_train.losses import Loss
from hoi_train.losses.asymmetric import ASL
from hoi_train.losses.cross_entropy import CrossEntropy
from hoi_train.losses.distribution_balanced import DistributionBalanced
from hoi_train.losses.focal import Focal
from hoi_train.losses.ldam import LDAM, class_margins
from hoi_train.losses.logit_adjustment import BalancedSoftmax, LogitAdjustment, from_float32_pair, logit_shift
from hoi_train.losses.vs import VS
from hoi_train.losses.weights import ClassWeighting
from tests.losses.golden_entries import Entry, Family, check, counts, data, numbers, run


def ldam_margins(entry: Entry) -> None:
    margins = class_margins(counts(entry), entry["params"]["max_m"])
    check_unless_failed(entry, "margins", {"margins": margins})


def ldam(entry: Entry) -> None:
    params = entry["params"]
    weights = params["weights"] and ClassWeighting("given", values=tuple(params["weights"]), normalise="none")
    loss = LDAM(counts(entry), max_margin=params["max_m"], scale=params["s"], weights=weights)
    cosines, target = data(entry)  # the authors' loss multiplies by s, ours is given what the head has multiplied
    cosines.requires_grad_()
    mean = loss.reduce(loss(params["s"] * cosines, target), target)
    (grad,) = torch.autograd.grad(mean, cosines)
    margins = from_float32_pair(loss.margins, torch.float64)
    check(entry, {"margins": margins, "loss": mean, "grad_logits": grad})


def drw_weights(entry: Entry) -> None:
    """Deferred weights, whatever loss they are on, and whatever the epochs before."""
    first, beta = entry["params"]["betas"]
    assert first == 0
    weighting = ClassWeighting("effective", beta=beta, from_epoch=entry["params"]["switch_epoch"])
    losses: list[Loss] = [kind(counts(entry), weights=weighting) for kind in (LDAM, CrossEntropy)]
    for loss in losses:
        for epoch in (entry["params"]["switch_epoch"], 0, entry["params"]["epoch"]):
            loss.schedule(epoch)
        weights = loss.class_weights()
        assert weights is not None
        check_unless_failed(entry, "weights", {"weights": weights})


def balanced_softmax(entry: Entry) -> None:
    _, mean, grad = run(BalancedSoftmax(counts(entry)), entry)
    check_unless_failed(entry, "loss_mean", {"loss_mean": mean, "grad_logits": grad})


def logit_adjustment(entry: Entry) -> None:
    of, tau = counts(entry), entry["params"]["tau"]
    _, mean, grad = run(LogitAdjustment(of, tau=tau), entry)
    posthoc = data(entry)[0] - logit_shift(of, tau)
    check(entry, {"loss_mean": mean, "grad_logits": grad, "posthoc_adjusted_logits": posthoc})


def vs_loss(entry: Entry) -> None:
    loss = VS(counts(entry), **entry["params"])
    _, mean, grad = run(loss, entry)
    divisor, shift = (from_float32_pair(pair, torch.float64) for pair in (loss.divisor, loss.shift))
    check(entry, {"iota": shift, "Delta": divisor, "loss_mean": mean, "grad_logits": grad})


def asl(entry: Entry) -> None:
    variants = {"AsymmetricLoss_detached": True, "AsymmetricLossOptimized_full_grad": False}
    assert set(entry["expected"]) == set(variants)
    for variant, detached in variants.items():
        _, total, grad = run(ASL(counts(entry), detach_modulator=detached, **entry["params"]), entry)
        part = {**entry, "expected": entry["expected"][variant]}
        check(part, {"loss_sum": total, "grad_logits": grad})


def distribution_balanced(entry: Entry) -> None:
    params, positives = entry["params"], entry["inputs"]["counts"]
    of = ClassCounts.multi(positives, int(positives[0] + entry["inputs"]["neg_counts"][0]))
    assert [of.num_samples - n for n in positives] == entry["inputs"]["neg_counts"]
    if params["reweight_func"] == "CB":
        class_balanced_rows(entry, of)
        return
    focal, shift, weight = params["focal"], params["logit_reg"], params["map_param"]
    loss = DistributionBalanced(
        of,
        alpha=weight["alpha"],
        beta=weight["beta"],
        mu=weight["gamma"],
        neg_scale=shift["neg_scale"],
        kappa=shift["init_bias"],
        gamma=focal["gamma"] if focal["focal"] else 0.0,
        scale=focal["balance_param"] if focal["focal"] else 1.0,
    )
    _, mean, grad = run(loss, entry)
    check(entry, {"rebalance_weight": loss.rebalance(data(entry)[1]), "loss_mean": mean, "grad_logits": grad})


def class_balanced_rows(entry: Entry, of: ClassCounts) -> None:
    """Its weighting by effective numbers is ours of a row, but for rows without labels: 0 / 0 there, 1 here."""
    params = entry["params"]
    assert (params["logit_reg"], params["CB_loss"]["CB_mode"]) == ({}, "average_w")
    beta, factor = params["CB_loss"]["CB_beta"], params["focal"]["balance_param"]
    weighting = ClassWeighting("effective", beta=beta, place="row", normalise="none")
    loss, (_, target) = Focal(of, gamma=params["focal"]["gamma"], weights=weighting), data(entry)
    weights = loss.weigh(torch.ones_like(target), target)[:, :1]
    _, mean, grad = run(loss, entry)
    ours = {"rebalance_weight": weights, "loss_mean": factor * mean, "grad_logits": factor * grad}
    check(entry, ours)
    labelled = target.sum(1) > 0
    assert (weights[~labelled] == 1).all()
    for key in ("rebalance_weight", "grad_logits"):
        torch.testing.assert_close(
            ours[key][labelled], numbers(entry["expected"][key])[labelled], rtol=1e-6, atol=1e-14
        )


def check_unless_failed(entry: Entry, key: str, ours: dict[str, Tensor]) -> None:
    """Compare, unless a class without samples made the official number not finite: then ours are just finite."""
    if numbers(entry["expected"][key]).isfinite().all():
        check(entry, dict[str, Any](ours))
        return
    assert 0 in entry["inputs"]["counts"]
    assert set(ours) == set(entry["expected"])
    for name, value in ours.items():
        assert value.isfinite().all(), f"{entry['id']}: {name}"


FAMILIES: dict[str, Family] = {
    "ldam_margins": ldam_margins,
    "ldam": ldam,
    "drw_weights": drw_weights,
    "balanced_softmax": balanced_softmax,
    "logit_adjustment": logit_adjustment,
    "vs_loss": vs_loss,
    "asl": asl,
    "distribution_balanced": distribution_balanced,
}
