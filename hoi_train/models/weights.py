"""Load weights: published files, through the adapter of the backbone's specification, and own state dicts.

Own state dicts are those of ``Recognizer.state_dict()``: ``backbone.stem.conv.weight``, ``pooling.joint.weight``,
``heads.verb.linear.weight``. Of a file with a dict around the state dict, the entry ``state_dict`` is read, and
DataParallel's prefix ``module.`` is dropped.

Files are read with ``weights_only=True``: a file that would run code is refused.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hoi_train.core.records import UserError
from hoi_train.models.backbones import BACKBONES
from hoi_train.models.recognizer import Recognizer
from hoi_train.models.spec import PublishedWeights


class WeightsError(UserError):
    """Weights that cannot be loaded. The message names the file, what is wrong and what to do."""


@dataclass(frozen=True)
class Mismatch:
    """A tensor whose shape in the file is not the model's."""

    key: str
    in_file: tuple[int, ...]
    in_model: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.key} (file {list(self.in_file)}, model {list(self.in_model)})"


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a weights file were loaded.

    Each tensor of the model is loaded, missing or mismatched, except for the batch counters of batch norms: files of
    2018 lack them and no result depends on them, so they do not count as missing.

    Args:
        path: the file.
        loaded: tensors of the model that now have the file's values.
        missing: tensors of the model that the file does not have; they keep their values.
        mismatched: tensors that have another shape in the file (a head for other classes); they keep their values.
        unexpected: tensors of the file that the model does not have.
        published_with: preprocessing of the published weights in this layout; ``None`` if unknown.
        used_with: preprocessing of the model.
    """

    path: Path
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[Mismatch, ...]
    unexpected: tuple[str, ...]
    published_with: str | None
    used_with: str

    def __str__(self) -> str:
        lines = [f"weights from {self.path}: {len(self.loaded)} tensors loaded"]
        groups: tuple[tuple[str, tuple[object, ...]], ...] = (
            ("not in the file, initial values kept", self.missing),
            ("of another shape, initial values kept", self.mismatched),
            ("in the file but not in the model, left out", self.unexpected),
        )
        lines += [f"  {len(items)} {title}: {_some(items)}" for title, items in groups if items]
        if self.published_with not in (None, self.used_with):
            lines.append(f"  published with preprocessing {self.published_with}, used here with {self.used_with}")
        return "\n".join(lines)


def load_weights(model: Recognizer, path: Path) -> LoadReport:
    """Load a weights file into a model: the whole backbone, and the tensors of pooling and heads whose shapes agree.

    Args:
        model: changed in place; values are converted to its types and devices.
        path: a file in a published layout of the model's backbone, or a state dict of a ``Recognizer``.

    Returns:
        What was loaded and what was not.

    Raises:
        WeightsError: if there is no such file, it holds anything but tensors and plain values, or its backbone is
            not the model's; the model is then unchanged.
    """
    saved, published = _read(path), model.published_weights
    own = {key.removeprefix("module."): tensor for key, tensor in saved.items() if key != "n_averaged"}
    if published is not None:  # the published classifier is for one task; with several heads it is left out
        tasks = list(model.heads)
        own = published.adapt(own, f"heads.{tasks[0]}.linear" if len(tasks) == 1 else None)
    report = _compare(model, own, path, published.preprocessing(saved) if published is not None else None)
    _refuse_other_backbone(report, own, published)
    model.load_state_dict({key: own[key] for key in report.loaded}, strict=False)
    return report


def _read(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file, under the file's own names."""
    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist or is not a file; check the path in the configuration")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of odd formats before it raises; our message is enough
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise  # the file may be sound; torch's message is clear
    except Exception as error:  # bytes changed at random made torch.load raise ten kinds, AttributeError among them
        raise WeightsError(_why_unreadable(path, str(error))) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not state or not all(map(_is_named_tensor, state.items())):
        found = f"a dict with {_some(content)}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise WeightsError(f"{path} holds {found}, not a state dict; save one with torch.save(model.state_dict(), …)")
    return state


def _is_named_tensor(item: tuple[object, object]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _why_unreadable(path: Path, reason: str) -> str:
    code = re.search(r"GLOBAL ([\w.]+)", reason)
    if code:
        return (
            f"{path} is refused: it would run {code[1]} when loaded, and only tensors and plain values are loaded. "
            "Get the file from its publisher again; save your own with torch.save(model.state_dict(), …)"
        )
    return f"{path} is not a PyTorch checkpoint, or is damaged or cut short; get the file again"


def _compare(model: Recognizer, own: Mapping[str, Tensor], path: Path, published_with: str | None) -> LoadReport:
    state = model.state_dict()
    common = [key for key in state if key in own]
    return LoadReport(
        path=path,
        loaded=tuple(key for key in common if own[key].shape == state[key].shape),
        missing=tuple(key for key in state if key not in own and not _is_counter(key)),
        mismatched=tuple(
            Mismatch(key, tuple(own[key].shape), tuple(state[key].shape))
            for key in common
            if own[key].shape != state[key].shape
        ),
        unexpected=tuple(key for key in own if key not in state),
        published_with=published_with,
        used_with=model.normalize.preprocessing.name,
    )


def _is_counter(key: str) -> bool:
    """Return whether a tensor is the batch counter of a batch norm."""
    return key.endswith("num_batches_tracked")


def _refuse_other_backbone(report: LoadReport, own: Mapping[str, Tensor], published: PublishedWeights | None) -> None:
    """Raise unless the backbones agree in every tensor: a half-loaded backbone would train, but badly."""
    others = ("pooling.", "heads.", "fc.")
    missing = [key for key in report.missing if not key.startswith(others)]
    unexpected = [key for key in report.unexpected if not key.startswith(others)]
    mismatched = [row for row in report.mismatched if not row.key.startswith(others)]
    if missing or unexpected or mismatched:
        fits = _backbone_that_fits(own, published)
        advice = f"it fits backbone {fits!r}" if fits else "it fits none of the backbones at their defaults"
        raise WeightsError(
            f"{report.path} does not fit the model's backbone; {advice}. Of the model's tensors {len(missing)} are "
            f"missing{_listed(missing)} and {len(mismatched)} of another shape{_listed(mismatched)}; "
            f"{len(unexpected)} of the file are not in the model{_listed(unexpected)}"
        )


def _backbone_that_fits(own: Mapping[str, Tensor], published: PublishedWeights | None) -> str | None:
    def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
        return {key: tensor.shape for key, tensor in state.items() if not _is_counter(key)}

    prefix = "backbone."
    wanted = shapes({key.removeprefix(prefix): tensor for key, tensor in own.items() if key.startswith(prefix)})
    specs = {name: spec for name, describe in BACKBONES.items() if (spec := describe()).weights is published}
    with torch.device("meta"):
        return next((name for name, spec in specs.items() if shapes(spec.build().state_dict()) == wanted), None)


def _listed(items: Iterable[object]) -> str:
    return f" ({_some(items)})" if items else ""


def _some(items: Iterable[object], limit: int = 4) -> str:
    names = [str(item) for item in items]
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
