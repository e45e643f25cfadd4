"""The golden families of the methods of two stages, and the class counts of long-tailed CIFAR-100."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hoi_train.data.long_tail import exponential_counts
from hoi_train.methods.adjusted import normalise
from hoi_train.methods.decoupled import ScaledHead
from hoi_train.methods.oltr import centroid_loss
from hoi_train.models.heads import LinearHead
from hoi_train.models.meta_embedding import CosineNorm, MetaEmbedding
from hoi_train.models.nearest_mean import NearestMean
from tests.losses.golden_entries import Entry, Family, check, numbers


def linear(weight: Tensor, bias: Tensor) -> LinearHead:
    """Return a linear head with these values, in float64."""
    head = LinearHead(weight.shape[1], weight.shape[0]).double()
    head.load_state_dict({"linear.weight": weight, "linear.bias": bias})
    return head


def tau_norm(entry: Entry) -> None:
    weight = numbers(entry["inputs"]["W"])
    head = linear(weight, torch.ones(len(weight)))
    normalise(head.linear, entry["params"]["tau"])
    check(entry, {"W_scaled": head.linear.weight, "logits_no_bias": head(numbers(entry["inputs"]["feat"]))})


def lws(entry: Entry) -> None:
    weight, bias, scale = (numbers(entry["inputs"][key]) for key in ("W", "b", "scales"))
    head = ScaledHead(linear(weight, bias), len(weight)).double()
    head.load_state_dict({"scale": scale}, strict=False)
    logits = head(numbers(entry["inputs"]["feat"]))
    loss = cross_entropy(logits, torch.tensor(entry["inputs"]["target"]))
    (gradient,) = torch.autograd.grad(loss, head.scale)
    check(entry, {"logits": logits, "loss_mean": loss, "grad_scales": gradient})


def ncm(entry: Entry) -> None:
    features, target = numbers(entry["inputs"]["train_feats"]), torch.tensor(entry["inputs"]["train_labels"])
    distance = {"l2": "l2", "cos": "cosine"}[entry["params"]["dist_type"]]
    classes, width = len(entry["expected"]["centroids"]), features.shape[1]
    head = NearestMean(nn.Identity(), width, classes, features=entry["params"]["feat_type"], distance=distance).double()
    head.fit(features, target)
    logits = head(numbers(entry["inputs"]["feat"]))
    check(entry, {"centroids": head.centroids, "feat_mean": head.mean, "logits": logits})


def disc_centroids(entry: Entry) -> None:
    features, centroids = (numbers(entry["inputs"][key]).requires_grad_() for key in ("feat", "centroids"))
    target, parameters = torch.tensor(entry["inputs"]["target"]), entry["params"]
    given = {"margin": parameters.get("margin", 10.0), "repulsion": parameters.get("repel_weight", 0.01)}
    weight = parameters.get("loss_weight", 1.0)
    loss = centroid_loss(features, target, centroids, weight=weight, gradient="released", **given)
    by_features, by_centroids = torch.autograd.grad(loss, (features, centroids))
    check(entry, {"loss": loss, "grad_feat": by_features, "grad_centroids": by_centroids})
    exact = centroid_loss(features, target, centroids, weight=weight, **given)
    torch.testing.assert_close(exact, loss)
    torch.testing.assert_close(torch.autograd.grad(exact, features)[0], by_features)


def cosine_norm(entry: Entry) -> None:
    weight = numbers(entry["inputs"]["W"])
    classifier = CosineNorm(weight.shape[1], len(weight), scale=entry["params"]["scale"]).double()
    classifier.load_state_dict({"weight": weight})
    check(entry, {"logits": classifier(numbers(entry["inputs"]["feat"]))})


def meta_embedding(entry: Entry) -> None:
    given = {key: numbers(value) for key, value in entry["inputs"].items()}
    asked = linear(given["hallucinator_W"], given["hallucinator_b"])
    classes, width = given["centroids"].shape
    head = MetaEmbedding(asked, width, classes, reach=entry["params"]["scale"]).double()
    values = {
        "selector.weight": given["selector_W"],
        "selector.bias": given["selector_b"],
        "classifier.weight": given["cosnorm_W"],
    }
    head.load_state_dict(values, strict=False)
    head.remember(given["centroids"])
    features = given["feat"]
    check(entry, {"logits": head(features), "infused_feature": head.infused(features, asked(features))})


def cifar_counts(entry: Entry) -> None:
    classes = len(entry["expected"]["counts"])
    kept = exponential_counts(classes, entry["inputs"]["max_per_class"], entry["inputs"]["imbalance"])
    assert list(kept) == entry["expected"]["counts"]
    check(entry, {"counts": torch.tensor(kept), "total": sum(kept)})


FAMILIES: dict[str, Family] = {
    "tau_norm": tau_norm,
    "lws": lws,
    "ncm": ncm,
    "oltr_disc_centroids": disc_centroids,
    "oltr_meta_embedding": meta_embedding,
    "oltr_cosnorm_classifier": cosine_norm,
    "dataset_counts": cifar_counts,
}
