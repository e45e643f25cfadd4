"""Load weights: the published Kinetics checkpoints and this program's own state dicts.

Layouts read, after an outer dict's ``state_dict`` is taken and DataParallel's prefix ``module.`` is dropped:
    published  ``conv1.weight``, ``layer1.0.bn1.bias``, ``layer1.0.downsample.0.weight``, ``fc.weight``
               (https://github.com/kenshohara/3D-ResNets-PyTorch, 2018 and 2020)
    own        ``backbone.stem.conv.weight``, ``pooling.joint.weight``, ``heads.verb.linear.weight``:
               ``Recognizer.state_dict()``

Files are read with ``weights_only=True``: a file that wants to run code is refused.
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
    """What became of the tensors of a weights file.

    Each tensor of the model is loaded, missing or mismatched, but for the batch counters of batch norms: files of
    2018 lack them, no result depends on them, and they are not called missing.

    Args:
        path: the file.
        loaded: tensors of the model that have the file's values now.
        missing: tensors of the model that the file does not have; they keep their values.
        mismatched: tensors that the file has in another shape (a head for other classes); they keep their values.
        unexpected: tensors of the file for which the model has no place.
        published_with: preprocessing of the published weights in this layout; ``None`` if that cannot be told.
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
            ("in the file without a place in the model, left out", self.unexpected),
        )
        lines += [f"  {len(items)} {title}: {_some(items)}" for title, items in groups if items]
        if self.published_with not in (None, self.used_with):
            lines.append(f"  published with preprocessing {self.published_with}, used here with {self.used_with}")
        return "\n".join(lines)


def load_weights(model: Recognizer, path: Path) -> LoadReport:
    """Load a weights file into a model: the whole backbone, and what of pooling and heads has the file's shape.

    Args:
        model: changed in place; values are converted to its types and devices.
        path: a checkpoint in one of the layouts above.

    Returns:
        What was loaded and what was not.

    Raises:
        WeightsError: if there is no such file, it holds anything but tensors and plain values, or its backbone is
            not the model's; the model is unchanged then.
    """
    saved = _read(path)
    own = _to_own_names(saved, list(model.heads))
    report = _compare(model, own, path, _published_preprocessing(saved))
    _refuse_other_backbone(report, own)
    model.load_state_dict({key: own[key] for key in report.loaded}, strict=False)
    return report


def _read(path: Path) -> dict[str, Tensor]:
    """Return the state dict in a file, under the file's own names."""
    if not path.is_file():
        raise WeightsError(f"weights file {path} does not exist or is not a file; check the path in the configuration")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of odd formats before it raises; our message says it once
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, MemoryError):
        raise  # the file may be sound; these speak for themselves
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
            f"{path} is refused: it wants to run {code[1]} when loaded, and only tensors and plain values are loaded. "
            "Get the file from its publisher again; save your own with torch.save(model.state_dict(), …)"
        )
    return f"{path} is not a PyTorch checkpoint, or is damaged or cut short; get the file again"


_PARTS = {
    "conv1": "branch2.conv_a",
    "bn1": "branch2.norm_a",
    "conv2": "branch2.conv_b",
    "bn2": "branch2.norm_b",
    "conv3": "branch2.conv_c",
    "bn3": "branch2.norm_c",
    "downsample.0": "branch1_conv",
    "downsample.1": "branch1_norm",
}


def _to_own_names(saved: Mapping[str, Tensor], tasks: list[str]) -> dict[str, Tensor]:
    """Rename published tensors; their classifier is for the one task there is, and for none if there are several."""
    stem = {"conv1": "backbone.stem.conv", "bn1": "backbone.stem.norm"}
    if len(tasks) == 1:
        stem["fc"] = f"heads.{tasks[0]}.linear"

    def rename(key: str) -> str:
        key = key.removeprefix("module.")
        block = re.fullmatch(r"layer(\d)\.(\d+)\.(\w+|downsample\.\d)\.(\w+)", key)
        if block and block[3] in _PARTS:
            stage, index, part, kind = block.groups()
            return f"backbone.stages.{int(stage) - 1}.res_blocks.{index}.{_PARTS[part]}.{kind}"
        module, _, kind = key.rpartition(".")
        return f"{stem[module]}.{kind}" if module in stem else key

    return {rename(key): tensor for key, tensor in saved.items() if key != "n_averaged"}  # of a moving average


def _published_preprocessing(saved: Mapping[str, Tensor]) -> str | None:
    """Tell the published generations apart: that of 2018 kept DataParallel's prefix, and had no batch counters."""
    if "module.conv1.weight" in saved and "module.bn1.num_batches_tracked" not in saved:
        return "k3d_2018"
    if "conv1.weight" in saved and "bn1.num_batches_tracked" in saved:
        return "kinetics_2020"
    return None


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
    """Tell whether a tensor counts the batches a batch norm has seen."""
    return key.endswith("num_batches_tracked")


def _refuse_other_backbone(report: LoadReport, own: Mapping[str, Tensor]) -> None:
    """Raise unless the backbones agree in every tensor: half a backbone loaded would train, and badly."""
    others = ("pooling.", "heads.", "fc.")
    missing = [key for key in report.missing if not key.startswith(others)]
    unexpected = [key for key in report.unexpected if not key.startswith(others)]
    mismatched = [row for row in report.mismatched if not row.key.startswith(others)]
    if missing or unexpected or mismatched:
        fits = _backbone_that_fits(own)
        advice = f"it fits backbone {fits!r}" if fits else "it fits none of the backbones at their defaults"
        raise WeightsError(
            f"{report.path} does not fit the model's backbone; {advice}. Of the model's tensors {len(missing)} are "
            f"missing{_listed(missing)} and {len(mismatched)} of another shape{_listed(mismatched)}; "
            f"{len(unexpected)} of the file have no place{_listed(unexpected)}"
        )


def _backbone_that_fits(own: Mapping[str, Tensor]) -> str | None:
    def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
        return {key: tensor.shape for key, tensor in state.items() if not _is_counter(key)}

    prefix = "backbone."
    wanted = shapes({key.removeprefix(prefix): tensor for key, tensor in own.items() if key.startswith(prefix)})
    with torch.device("meta"):
        return next((name for name, build in BACKBONES.items() if shapes(build().state_dict()) == wanted), None)


def _listed(items: Iterable[object]) -> str:
    return f" ({_some(items)})" if items else ""


def _some(items: Iterable[object], limit: int = 4) -> str:
    names = [str(item) for item in items]
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
