"""Train video models that recognise what people do with objects, when most of the actions are rare.

What a notebook needs is here: ``load_config``, ``train``, ``evaluate``, ``load_predictor`` and the tables of named
parts. Each is imported when it is first used, so that ``import hoi_train`` takes no time; see ``docs/notebook.md``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hoi_train.config import load_config
    from hoi_train.data.readers import READERS
    from hoi_train.engine.train import train
    from hoi_train.inference.predictor import load_predictor
    from hoi_train.inference.results import evaluate_run as evaluate
    from hoi_train.losses import LOSSES
    from hoi_train.methods import METHODS
    from hoi_train.metrics import METRICS
    from hoi_train.models.backbones import BACKBONES
    from hoi_train.tracking import TRACKERS

    __version__: str

__all__ = [
    "BACKBONES",
    "LOSSES",
    "METHODS",
    "METRICS",
    "READERS",
    "TRACKERS",
    "__version__",
    "evaluate",
    "load_config",
    "load_predictor",
    "train",
]

_HOMES = {
    "BACKBONES": "models.backbones",
    "LOSSES": "losses",
    "METHODS": "methods",
    "METRICS": "metrics",
    "READERS": "data.readers",
    "TRACKERS": "tracking",
    "evaluate": "inference.results:evaluate_run",
    "load_config": "config",
    "load_predictor": "inference.predictor",
    "train": "engine.train",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name == "__version__":
        return version("hoi_train")
    if name not in _HOMES:
        raise AttributeError(f"module 'hoi_train' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, _, own = _HOMES[name].partition(":")
    return getattr(import_module(f"hoi_train.{module}"), own or name)


def __dir__() -> list[str]:
    return __all__
