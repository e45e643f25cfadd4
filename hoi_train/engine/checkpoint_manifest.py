"""The manifest of a checkpoint, with its own digest, and the check of the files against it."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from hoi_train.core.disk import HashedFile, sha256_of
from hoi_train.core.records import UserError
from hoi_train.core.strict_json import finite, parse_json

FORMAT = 1
MANIFEST, SEAL = "manifest.json", "manifest.sha256"
LARGEST_MANIFEST = 2**24
CURSOR = ("stage", "epoch", "batch", "step")
PAYLOAD = re.compile(r"[A-Za-z0-9_]+")


class CheckpointError(UserError):
    """A checkpoint that must not be used; the message names the file and the fault."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint's manifest.

    Args:
        path: the checkpoint's folder.
        cursor: ``stage``, ``epoch``, ``batch`` and ``step`` at which training goes on.
        extra: what the caller of `save` added; nan has become ``None``.
        versions: of python, torch and hoi_train that wrote it.
        files: size in bytes and sha256 of every payload's file.
    """

    path: Path
    cursor: Mapping[str, int]
    extra: Mapping[str, Any]
    versions: Mapping[str, str]
    files: Mapping[str, tuple[int, str]]

    @property
    def metric(self) -> float | None:
        """The monitored metric, ``None`` if it was not measured or is undefined."""
        return self.extra.get("metric")


def verify(path: Path) -> Checkpoint:
    """Return a checkpoint after comparing size and sha256 of every file; raises ``CheckpointError``."""
    checkpoint = read_manifest(path)
    for name, (size, _) in checkpoint.files.items():  # sizes first: they cost nothing
        check_size(path / name, size)
    for name, (_, sha256) in checkpoint.files.items():
        try:
            found = sha256_of(path / name)
        except OSError as error:
            raise CheckpointError(f"{path / name}: {error.strerror}") from None
        if found != sha256:
            raise CheckpointError(f"{path / name}: its bytes are not those that were written (sha256 differs)")
    return checkpoint


def read_manifest(path: Path) -> Checkpoint:
    """Read a checkpoint's manifest, not its files; raises ``CheckpointError``."""
    manifest = path / MANIFEST
    text = _read(manifest)
    if _read(path / SEAL) != _seal(text):
        raise CheckpointError(f"{manifest}: its bytes are not those that were written ({SEAL} differs)")
    try:
        return _parse(path, parse_json(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{manifest}: not a manifest of format {FORMAT} ({error!r})") from None


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_MANIFEST:
            raise CheckpointError(f"{path}: larger than {LARGEST_MANIFEST // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from None


def _parse(path: Path, body: Any) -> Checkpoint:
    if body["format"] != FORMAT:
        raise ValueError(f"it has format {body['format']}")
    files = {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in body["files"].items()}
    for name in files:
        if not (name.endswith(".pt") and PAYLOAD.fullmatch(name[:-3])):
            raise ValueError(f"a payload cannot be called {name!r}")
    check_metric(body["extra"])
    cursor = {key: int(body["cursor"][key]) for key in CURSOR}
    return Checkpoint(path, cursor, dict(body["extra"]), dict(body["versions"]), files)


def write_manifest(
    folder: Path, cursor: Mapping[str, int], extra: Mapping[str, Any], files: Mapping[str, HashedFile]
) -> None:
    """Write the manifest and its digest into a checkpoint's folder."""
    body = {
        "format": FORMAT,
        "cursor": {key: cursor[key] for key in CURSOR},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "hoi_train": _own_version()},
        "extra": finite(extra),
        "files": {file.path.name: {"size": file.size, "sha256": file.sha256} for file in files.values()},
    }
    text = (json.dumps(body, indent=1, allow_nan=False) + "\n").encode()
    for name, content in ((MANIFEST, text), (SEAL, _seal(text))):
        with HashedFile(folder / name) as file:
            file.write(content)


def _seal(text: bytes) -> bytes:
    return f"{hashlib.sha256(text).hexdigest()}  {MANIFEST}\n".encode()


def _own_version() -> str:
    try:
        return version("hoi_train")
    except PackageNotFoundError:
        return "run from source, not installed"


def check_metric(extra: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless ``extra["metric"]`` is a number, ``None`` or missing."""
    if not isinstance(extra.get("metric"), (int, float, type(None))):
        raise ValueError(f"extra['metric'] must be a number or None, got {extra['metric']!r}")


def check_size(path: Path, size: int) -> None:
    """Raise ``CheckpointError`` unless the file exists and has this size."""
    found = path.stat().st_size if path.is_file() else None
    if found is None:
        raise CheckpointError(f"{path}: missing")
    if found != size:
        raise CheckpointError(f"{path}: has {found} bytes, {size} were written")
