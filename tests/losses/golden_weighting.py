"""The golden families of the losses that weigh classes: cross-entropy, focal, class-balanced, class difficulty."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hoi_train.core.records import ClassCounts
from hoi_train.losses import Loss
from hoi_train.losses.bce import BCE
from hoi_train.losses.class_balanced import CBCrossEntropy, CBFocal
from hoi_train.losses.class_difficulty import CDBCrossEntropy
from hoi_train.losses.cross_entropy import CrossEntropy
from hoi_train.losses.focal import Focal
from hoi_train.losses.weights import ClassWeighting
from tests.losses.golden_entries import Entry, Family, check, counts, element_losses, numbers, run
from tests.losses.loss_cases import gradient, validation


def ce_softmax(entry: Entry) -> None:
    losses, mean, grad = run(CrossEntropy(counts(entry)), entry)
    check(entry, {"loss_per_sample": losses, "loss_mean": mean, "grad_logits": grad})


def bce(entry: Entry) -> None:
    losses, mean, grad = run(BCE(counts(entry)), entry)
    elements = element_losses(BCE, entry)
    torch.testing.assert_close(losses, elements.mean(1))
    check(entry, {"loss_per_element": elements, "loss_mean": mean, "grad_logits": grad})


def vidhoi_weights(entry: Entry) -> None:
    method, beta = entry["params"]["method"], entry["params"].get("beta")
    scheme = {"inverse": "inverse", "neg_pos": "neg_pos", "effective": "effective"}.get(method)
    if entry["params"].get("power") == 0.5:
        scheme = "sqrt_inverse"
    if scheme is None:  # method "no": our losses have no weights then
        assert CrossEntropy(ClassCounts.single([1, 2])).class_weights() is None
        return check(entry, {"weights": torch.ones(len(entry["inputs"]["counts"]))})
    weighting = ClassWeighting(scheme, beta=beta, count_floor=5 if scheme == "effective" else 1)
    return check(entry, {"weights": weighting.of(counts(entry))})


def cb_weights(entry: Entry) -> None:
    weights = ClassWeighting("effective", beta=entry["params"]["beta"]).of(counts(entry))
    exact = {"weights_exact_math": weights} if "weights_exact_math" in entry["expected"] else {}
    check(entry, {"weights": weights, **exact})


def split_head_weights(entry: Entry) -> None:
    joint = ClassWeighting("effective", beta=entry["params"]["beta"], count_floor=5).of(counts(entry))
    parts = {part: entry["inputs"][f"{part}_idx"] for part in ("spatial", "action")}
    heads = {
        part: BCE(
            ClassCounts.multi([1] * len(ids), 1),
            weights=ClassWeighting("given", values=tuple(joint[ids].tolist()), normalise="none"),
        )
        for part, ids in parts.items()
    }
    check(entry, {f"weights_{part}": head.class_weights() for part, head in heads.items()})


def unnormalised_weights(entry: Entry) -> None:
    positives = entry["inputs"]["counts"]
    of = ClassCounts.multi(positives, positives[0] + entry["inputs"]["neg_counts"][0])
    ours = {
        "inv": ClassWeighting("inverse", normalise="none").of(of),
        "sqrt_inv": ClassWeighting("sqrt_inverse", normalise="none").of(of),
    }
    check(entry, ours)
    for key, value in ours.items():  # a class without samples is infinite there; the others are as here
        official = numbers(entry["expected"][key])
        torch.testing.assert_close(value[official.isfinite()], official[official.isfinite()], rtol=1e-6, atol=0)


def weighted_ce(entry: Entry) -> None:
    scheme = {"ifw_ce": "inverse", "sqrt_ifw_ce": "sqrt_inverse"}[entry["loss"]]
    weighting = ClassWeighting(scheme)
    losses, mean, grad = run(CrossEntropy(counts(entry), weights=weighting), entry)
    by_weight = CrossEntropy(counts(entry), weights=weighting, reduction="weighted_mean")
    _, weighted_mean, weighted_grad = run(by_weight, entry)
    check(
        entry,
        {
            "weights": by_weight.class_weights(),
            "loss_per_sample_weighted": losses,
            "loss_sum_over_N": mean,
            "grad_logits_sum_over_N": grad,
            "loss_weighted_mean": weighted_mean,
            "grad_logits_weighted_mean": weighted_grad,
        },
    )


def focal_softmax(entry: Entry) -> None:
    gamma = entry["params"]["gamma"]
    losses, mean, grad = run(Focal(counts(entry), gamma=gamma), entry)
    *_, detached = run(Focal(counts(entry), gamma=gamma, detach_modulator=True), entry)
    check(
        entry,
        {
            "loss_per_sample": losses,
            "loss_mean": mean,
            "loss_mean_ldam_repo": mean,
            "grad_logits_full": grad,
            "grad_logits_detached_modulator": detached,
        },
    )


def focal_softmax_weighted(entry: Entry) -> None:
    given = ClassWeighting("given", values=tuple(entry["params"]["weights"]), normalise="none")
    loss = Focal(counts(entry), gamma=entry["params"]["gamma"], weights=given, detach_modulator=True)
    _, mean, grad = run(loss, entry)
    check(entry, {"loss_cdb_repo": mean, "grad_cdb_repo_detached": grad})


def focal_sigmoid(entry: Entry) -> None:
    gamma = entry["params"]["gamma"]
    _, mean, grad = run(Focal(counts(entry), gamma=gamma), entry)
    elements = element_losses(Focal, entry, gamma=gamma)
    check(
        entry,
        {
            "loss_per_element": elements,
            "loss_per_element_exact_math": elements,
            "loss_mean": mean,
            "loss_sum": mean * elements.numel(),
            "grad_logits_mean": grad,
            "grad_logits_sum": grad * elements.numel(),
            "grad_logits_sum_exact_math": grad * elements.numel(),
        },
    )


def focal_sigmoid_alpha(entry: Entry) -> None:
    loss = Focal(counts(entry), gamma=entry["params"]["gamma"], alpha=entry["params"]["alpha_per_class"])
    _, mean, grad = run(loss, entry)
    check(entry, {"loss_mean": mean, "grad_logits_mean": grad})


def cb_focal_multilabel(entry: Entry) -> None:
    loss = CBFocal(counts(entry), **entry["params"])
    losses, mean, grad = run(loss, entry)
    if "loss_per_element" in entry["expected"]:  # theirs, averaged over classes, is our loss of a sample
        theirs = numbers(entry["expected"]["loss_per_element"])
        torch.testing.assert_close(losses, theirs.mean(1), rtol=1e-6, atol=0)
        ours = element_losses(Focal, entry, gamma=entry["params"]["gamma"]) * loss.class_weights()
        return check(entry, _with_weights(loss, mean, grad) | {"loss_per_element": ours})
    return check(entry, _with_weights(loss, mean, grad))


def _with_weights(loss: Loss, mean: Tensor, grad: Tensor) -> dict[str, Tensor | float]:
    weights = loss.class_weights()
    assert weights is not None
    return {"weights": weights, "loss_mean": mean, "grad_logits_mean": grad}


def cb_single_label(entry: Entry) -> None:
    beta = entry["params"]["beta"]
    softmax = CBCrossEntropy(counts(entry), beta=beta)
    ours: dict[str, Any] = {"weights": softmax.class_weights()}
    _, ours["cb_softmax_loss"], ours["cb_softmax_grad"] = run(softmax, entry)
    _, ours["cb_sigmoid_loss"], ours["cb_sigmoid_grad"] = run(CBFocal(counts(entry), gamma=0.0, beta=beta), entry)
    for gamma in entry["params"]["gammas"]:
        loss = CBFocal(counts(entry), gamma=gamma, beta=beta)
        _, ours[f"cb_focal_loss_gamma_{gamma}"], ours[f"cb_focal_grad_gamma_{gamma}"] = run(loss, entry)
    check(entry, ours)


def cb_cdb_repo(entry: Entry) -> None:
    beta, gamma = entry["params"]["beta"], entry["params"]["gamma"]
    softmax = CBCrossEntropy(counts(entry), beta=beta)
    focal = Focal(counts(entry), gamma=gamma, weights=ClassWeighting("effective", beta=beta), detach_modulator=True)
    ours: dict[str, Any] = {"weights": softmax.class_weights()}
    _, ours["cb_softmax_loss_mean"], ours["cb_softmax_grad"] = run(softmax, entry)
    _, ours["cb_focal_softmax_loss_mean"], ours["cb_focal_softmax_grad_detached"] = run(focal, entry)
    check(entry, ours)


def validated(entry: Entry, formula: Any, reduction: Any = "mean") -> CDBCrossEntropy:
    """Return CDB-CE after a validation with the entry's accuracies."""
    recall, tau = entry["inputs"]["val_acc"], entry["params"].get("tau", "dynamic")
    loss = CDBCrossEntropy(
        ClassCounts.single([1] * len(recall)),
        tau="dynamic" if tau == "dynamic" else float(tau),
        tau_formula=formula,
        reduction=reduction,
    )
    loss.after_validation(validation(recall))
    return loss


def cdb_weights(entry: Entry) -> None:
    code = entry["id"].split("/")[1]
    if code != "paper_formula":
        formula = {"cifar_egtea": "released_cifar", "imagenet_lt": "released_imagenet"}[code]
        return check(entry, {"weights": validated(entry, formula).class_weights()})
    loss = validated(entry, {1e-4: "paper", 1e-2: "released_imagenet"}[entry["params"]["eps"]])
    raw = loss.difficulty.double() ** loss.tau.double()
    return check(entry, {"tau": loss.tau, "weights_raw": raw, "weights_normalised": loss.class_weights()})


def cdb_ce(entry: Entry) -> None:
    cifar, paper = validated(entry, "released_cifar"), validated(entry, "paper")
    losses, mean, grad = run(cifar, entry)
    _, imagenet_mean, imagenet_grad = run(validated(entry, "released_imagenet", "weighted_mean"), entry)
    _, paper_mean, paper_grad = run(paper, entry)
    check(
        entry,
        {
            "weights": cifar.class_weights(),
            "loss_per_sample": losses,
            "loss_mean_over_N": mean,
            "grad_logits": grad,
            "imagenet_variant_loss_weighted_mean": imagenet_mean,
            "imagenet_variant_grad": imagenet_grad,
            "paper_tau_eps1e-4_weights": paper.class_weights(),
            "paper_tau_loss_mean_over_N": paper_mean,
            "paper_tau_grad": paper_grad,
        },
    )


def trap_focal_modulator(entry: Entry) -> None:
    """One logit in half, bfloat16 or single precision against exact arithmetic, never the released code."""
    dtype = getattr(torch, entry["inputs"]["dtype"])
    logits = torch.tensor([[entry["inputs"]["logit"]]], dtype=dtype)
    target = torch.tensor([[entry["inputs"]["target"]]], dtype=dtype)
    for case, expected in entry["expected"].items():
        loss = Focal(ClassCounts.multi([1], 1), gamma=float(case.removeprefix("gamma_")))
        value, grad = loss(logits, target), gradient(loss, logits, target)
        assert value.dtype == torch.float32
        # The loss is computed in float32, whose exponentials lose some hundred roundings at |gamma z| ~ 200;
        # the gradient comes back in the logits' own precision. Below the smallest number of a type there is only 0.
        for found, exact, kind in ((value, "exact_loss", torch.float32), (grad, "exact_grad", dtype)):
            rtol = max(128 * torch.finfo(torch.float32).eps, torch.finfo(kind).eps)
            wanted = torch.full_like(found, expected[exact], dtype=torch.float64)
            torch.testing.assert_close(found.double(), wanted, rtol=rtol, atol=torch.finfo(kind).smallest_normal)


def trap_focal_softmax(entry: Entry) -> None:
    """A true class with probability 1: the loss and its gradient are finite and next to 0."""
    assert entry["expected"]["required"] == "finite, ~0"
    losses, _, grad = run(Focal(counts(entry), gamma=entry["params"]["gamma"]), entry)
    torch.testing.assert_close(losses, torch.zeros_like(losses), rtol=0, atol=1e-12)
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-12)


FAMILIES: dict[str, Family] = {
    "ce_softmax": ce_softmax,
    "bce": bce,
    "class_weights_ifw": vidhoi_weights,
    "class_weights_sqrt_ifw": vidhoi_weights,
    "class_weights_cb_beta_0.9": vidhoi_weights,
    "class_weights_cb_beta_0.9999": vidhoi_weights,
    "class_weights_neg_pos": vidhoi_weights,
    "class_weights_none": vidhoi_weights,
    "class_weights_cb_split_heads": split_head_weights,
    "class_weights_cb": cb_weights,
    "ifw_unnormalised": unnormalised_weights,
    "ifw_ce": weighted_ce,
    "sqrt_ifw_ce": weighted_ce,
    "focal_softmax": focal_softmax,
    "focal_softmax_weighted": focal_softmax_weighted,
    "focal_sigmoid": focal_sigmoid,
    "focal_sigmoid_alpha": focal_sigmoid_alpha,
    "cb_focal_multilabel": cb_focal_multilabel,
    "cb_softmax|cb_sigmoid|cb_focal": cb_single_label,
    "cb_softmax|cb_focal_softmax": cb_cdb_repo,
    "cdb_weights": cdb_weights,
    "cdb_ce": cdb_ce,
    "trap_focal_modulator": trap_focal_modulator,
    "trap_focal_softmax": trap_focal_softmax,
}
