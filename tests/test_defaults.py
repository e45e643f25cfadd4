"""The hyper-parameters that a configuration does not name: another default would change what old files mean."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from hoi_train.data.mixing import MIXING
from hoi_train.data.sampling import PLANS
from hoi_train.losses import LOSSES
from hoi_train.methods import METHODS
from hoi_train.metrics.groups import GROUP_RULES

TABLES: dict[str, Any] = {
    "losses": LOSSES,
    "methods": METHODS,
    "mixing": MIXING,
    "plans": PLANS,
    "groups": GROUP_RULES,
}
CDB = {"tau": "dynamic", "tau_formula": "paper", "momentum": 0.0, "smoothing": 0.0, "from_epoch": 0}
TWO_STAGES = {"epochs": 10, "sampling": "class_balanced", "frozen_statistics": False}
DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "losses": {
        "cross_entropy": {"reduction": "mean"},
        "focal": {"gamma": 2.0, "detach_modulator": False},
        "cb_cross_entropy": {"beta": 0.9999, "from_epoch": 0},
        "cb_focal": {"gamma": 0.5, "beta": 0.9999, "from_epoch": 0},
        "cdb_ce": {**CDB, "normalise": "sum_to_classes", "reduction": "mean"},
        "cdb_bce": {**CDB, "normalise": "sum_to_classes", "difficulty": "recall", "gamma": 0.0},
        "ldam": {"max_margin": 0.5, "scale": 30.0, "reduction": "weighted_mean"},
        "logit_adjustment": {"tau": 1.0},
        "vs": {"gamma": 0.3, "tau": 1.0},
        "asl": {
            **{"gamma_neg": 4.0, "gamma_pos": 0.0, "clip": 0.05, "eps": 0.0},
            **{"detach_modulator": False, "reduction": "sum"},
        },
        "distribution_balanced": {
            **{"alpha": 0.1, "beta": 10.0, "mu": 0.2},
            **{"neg_scale": 2.0, "kappa": 0.05, "gamma": 2.0, "scale": 2.0},
        },
        "two_way": {"temperature_pos": 4.0, "temperature_neg": 1.0},
        "ghm": {"bins": 30, "momentum": 0.75, "formula": "paper"},
        "eql": {"threshold": 0.03, "gamma": 0.95},
        "eql_softmax": {"threshold": 0.005, "gamma": 0.9},
        "eql_v2": {"gamma": 12.0, "mu": 0.8, "alpha": 4.0},
        "equalized_focal": {"gamma": 2.0, "scale": 8.0, "alpha": 0.25},
        "seesaw": {"p": 0.8, "q": 2.0, "eps": 0.01},
    },
    "methods": {
        "crt": TWO_STAGES,
        "lws": TWO_STAGES,
        "tau_norm": {"tau": "validation"},
        "ncm": {"features": "cl2n", "distance": "l2"},
        "post_hoc_logit_adjustment": {"tau": 1.0},
        "oltr": {
            **{"epochs": 60, "sampling": "class_balanced"},
            **{"weight": 0.01, "margin": 10.0, "centroid_gradient": "exact"},
        },
        "l2rw": {"per_class": 10, "split": "val"},
        "mwn": {"per_class": 10, "split": "val", "form": "class_imbalance", "hidden": 100},
    },
    "mixing": {"mixup": {"alpha": 0.2}, "cutmix": {"alpha": 1.0}},
    "plans": {"around_key": {"stride": 1}},
    "groups": {"top_k": {"k": 5}},
}


def defaults_of(entry: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(entry).parameters.values()
    keys = [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    return {key.name: key.default for key in keys if isinstance(key.default, bool | int | float | str)}


@pytest.mark.parametrize("table", TABLES)
def test_defaults_are_those_that_were_published(table: str) -> None:
    found = {name: defaults_of(entry) for name, entry in TABLES[table].items()}
    assert {name: values for name, values in found.items() if values} == DEFAULTS[table]
