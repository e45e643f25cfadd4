"""The golden families of the methods that weigh clips by a meta set: Learning to Reweight and Meta-Weight-Net."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from hoi_train.core.records import ClassCounts
from hoi_train.losses import LOSSES
from hoi_train.losses.objective import Objective
from hoi_train.methods.learning_to_reweight import LearningToReweight
from hoi_train.methods.lookahead import Parameters, SampleLosses, inner_products, mean_gradient, pull_back, trainable
from hoi_train.methods.meta_set import MetaWeighted
from hoi_train.methods.meta_weight_net import MetaWeightNet
from tests.losses.golden_entries import Entry, Family, check, numbers
from tests.methods.meta_cases import Linear, Rows, context, step

EXACT = 1e-13  # relative: one product with the Jacobian gives what the released codes' two backward passes do


def l2rw(entry: Entry) -> None:
    net, of, batch, meta = case(entry)
    method = LearningToReweight(context())
    here, now = step(net, of, entry["params"]["inner_lr"]), trainable(net)
    towards = mean_gradient(SampleLosses(here, meta), now)
    products = inner_products(SampleLosses(here, batch), now, towards)
    loss, grad = trained_on(method, net, of, batch, meta, entry)
    ours: dict[str, Tensor | float] = {
        "grad_eps": -here.lr * products,
        "weights": method.weights(batch, meta, here),
        "weighted_loss": loss,
        "grad_W": grad["weight"],
        "grad_b": grad["bias"],
    }
    check(entry, {key: value for key, value in ours.items() if key in entry["expected"]}, EXACT)


def meta_weight_net(entry: Entry) -> None:
    form = "class_imbalance" if entry["params"]["normalise_weights_to_sum_1"] else "label_noise"
    assert entry["params"]["vnet_input_detached"] == (form == "label_noise")
    net, of, batch, meta = case(entry)
    official = entry["inputs"]["vnet"]
    layers = {"linear1": "0", "linear2": "2"}
    ours = {name: ".".join((layers[name.split(".")[0]], name.split(".")[1])) for name in official}
    method = MetaWeightNet(context(), form=cast(Any, form), hidden=len(official["linear1.bias"]))
    method.net.double().load_state_dict({ours[name]: numbers(value) for name, value in official.items()})
    method.optimizer.param_groups[0]["lr"] = 0.0  # the entry's training loss is that of V before its step
    here, now = step(net, of, entry["params"]["inner_lr"]), trainable(net)
    losses, gradient = pull_back(SampleLosses(here, batch), now)
    inner = gradient(method.coefficients(losses).detach())
    ahead = {name: value - here.lr * inner[name] for name, value in now.items()}
    loss, grad = trained_on(method, net, of, batch, meta, entry)
    learnt = dict(method.net.named_parameters())
    flat = {key: value for key, value in entry["expected"].items() if key != "vnet_grads"}
    flat |= {f"vnet_grads.{name}": value for name, value in entry["expected"]["vnet_grads"].items()}
    check(
        {**entry, "expected": flat},
        {
            "v_weights_before_update": method.net(losses[:, None]).detach().sigmoid(),
            "meta_loss": SampleLosses(here, meta)(ahead).mean(),
            **{f"vnet_grads.{name}": cast(Tensor, learnt[ours[name]].grad) for name in official},
            "train_loss_with_unupdated_vnet": loss,
            "grad_W": grad["weight"],
            "grad_b": grad["bias"],
        },
        EXACT,
    )


def case(entry: Entry) -> tuple[Linear, Objective, Any, Any]:
    """Return the linear network, the objective, the batch and the meta batch of an entry."""
    inputs = entry["inputs"]
    weight = numbers(inputs["W"])
    binary = len(weight) == 1
    counts = ClassCounts.multi([1], 1) if binary else ClassCounts.single([1] * len(weight))
    of = Objective({"verb": LOSSES["bce" if binary else "cross_entropy"](counts)})

    def rows(video: str, target: str) -> Rows:
        targets = numbers(inputs[target])[:, None] if binary else torch.tensor(inputs[target])
        return Rows(numbers(inputs[video]), {"verb": targets})

    return Linear(weight, numbers(inputs["b"])), of, rows("X", "target"), rows("X_val", "target_val")


def trained_on(
    method: MetaWeighted, net: Linear, of: Objective, batch: Any, meta: Any, entry: Entry
) -> tuple[Tensor, Parameters]:
    """Return the training loss of a step and the gradients of the network."""
    method.meta = iter([meta])
    loss = method.training_loss(net, batch, step(net, of, entry["params"]["inner_lr"]))
    loss.backward()
    return loss.detach(), {name: cast(Tensor, value.grad) for name, value in net.named_parameters()}


FAMILIES: dict[str, Family] = {
    "l2rw": l2rw,
    "meta_weight_net": meta_weight_net,
}
