"""Checkpoints: written atomically, verified before they are used.

::

    checkpoints/
      step_00000120/         has this name only once every byte of it is on disk
        model.pt …           one ``torch.save`` file per payload
        manifest.json        cursor, versions, the caller's extra; size and sha256 of every file
        manifest.sha256      the manifest's own digest, as ``sha256sum`` writes it
      step_00000120.old/     for the moment in which a checkpoint of the same step takes its place
      .unfinished-…          what a killed process left; never read, removed by the next save

The latest is the newest whose files verify; no file names it. A damaged one is skipped with a warning. One process at
a time may save here (`RunLock`).
"""

from __future__ import annotations

import logging
import pickle
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Literal, cast

import torch

from hoi_train.core.disk import HashedFile, free_mib, sync, unpacks_within
from hoi_train.engine.checkpoint_manifest import (
    CURSOR,
    PAYLOAD,
    Checkpoint,
    CheckpointError,
    check_metric,
    check_size,
    read_manifest,
    verify,
    write_manifest,
)

__all__ = ["Checkpoint", "CheckpointError", "best", "latest", "load", "prune", "save", "valid", "verify"]

_log = logging.getLogger(__name__)

UNFINISHED = ".unfinished-"
_FOLDER = re.compile(r"step_(\d{8,})(\.old)?")


def save(folder: Path, payloads: Mapping[str, Any], cursor: Mapping[str, int], extra: Mapping[str, Any]) -> Path:
    """Write a checkpoint atomically, also if killed; it replaces one of the same step.

    Args:
        folder: where the run keeps its checkpoints; made if missing.
        payloads: by name (letters, digits, ``_``), what ``torch.load`` reads back with ``weights_only=True``.
        cursor: ``stage``, ``epoch``, ``batch``, ``step``; integers >= 0.
        extra: JSON-able; its ``metric`` is the monitored number that `best` compares (nan or ``None``: there is none).

    Returns:
        The checkpoint's folder, ``folder/step_<step>``.

    Raises:
        OSError: the disk refused, naming path and MiB; earlier checkpoints are intact and nothing is left over.
        ValueError: a name, a cursor or a payload that could not be read back.
    """
    _check(payloads, cursor, extra)
    final = folder / f"step_{cursor['step']:08d}"
    unfinished = folder / f"{UNFINISHED}{final.name}"
    files: dict[str, HashedFile] = {}
    try:
        with ExitStack() as at_the_end:
            at_the_end.callback(shutil.rmtree, unfinished, ignore_errors=True)
            _clear_unfinished(folder)
            unfinished.mkdir(parents=True)
            for name, payload in payloads.items():
                with HashedFile(unfinished / f"{name}.pt") as files[name]:
                    torch.save(payload, cast(IO[bytes], files[name]))
                _check_readable(files[name].path)
            write_manifest(unfinished, cursor, extra, files)
            sync(unfinished)
            _put_in_place(unfinished, final)
    except OSError as error:
        raise _disk_error(error, final, sum(file.size for file in files.values())) from error
    return final


def valid(folder: Path) -> Iterator[Checkpoint]:
    """Yield the checkpoints whose files verify, newest first; warns of each damaged one by name."""
    for path in _newest_first(folder):
        try:
            yield verify(path)
        except CheckpointError as error:
            _log.warning("damaged checkpoint skipped: %s", error)


def latest(folder: Path) -> Checkpoint | None:
    """Return the newest checkpoint whose files verify, or ``None``."""
    return next(valid(folder), None)


def best(folder: Path, mode: Literal["max", "min"] = "max") -> Checkpoint | None:
    """Return the checkpoint of the best metric (the earliest of equals) whose files verify, or ``None``.

    Only checkpoints of the last stage count: the last stage makes a method's result.
    """
    measured = []
    for path in _newest_first(folder):
        try:
            found = read_manifest(path)
        except CheckpointError as error:
            _log.warning("damaged checkpoint skipped: %s", error)
            continue
        if found.metric is not None:
            metric = -found.metric if mode == "max" else found.metric
            measured.append((-found.cursor["stage"], metric, found.cursor["step"], path))
    for *_, path in sorted(measured, key=lambda entry: entry[:3]):
        try:
            return verify(path)
        except CheckpointError as error:
            _log.warning("damaged checkpoint skipped: %s", error)
    return None


def prune(folder: Path, keep: int = 2, mode: Literal["max", "min"] = "max") -> list[Path]:
    """Remove all but the ``keep`` newest valid checkpoints and the best one, and unfinished ones.

    Nothing is removed before ``keep`` (>= 2) checkpoints have verified.

    Returns:
        The checkpoints that were removed.
    """
    if keep < 2:
        raise ValueError(f"keep must be at least 2, so that a damaged checkpoint has one before it; got {keep}")
    _clear_unfinished(folder)
    kept: dict[int, Path] = {}
    for found in valid(folder):
        kept.setdefault(found.cursor["step"], found.path)
        if len(kept) == keep:
            break
    else:
        return []
    spared = {*kept.values()}
    if (leader := best(folder, mode)) is not None:
        spared.add(leader.path)
    removed = [path for path in _newest_first(folder) if path not in spared]
    for path in removed:
        _remove(path)
    return removed


def load(checkpoint: Checkpoint, map_location: Any = "cpu") -> dict[str, Any]:
    """Read the payloads of a verified checkpoint, by name, with ``weights_only=True``.

    Raises:
        CheckpointError: a file has another size than the manifest says, would fill more memory than that, or holds
            something other than tensors and plain values.
    """
    for name, (size, _) in checkpoint.files.items():
        check_size(checkpoint.path / name, size)
        _check_archive(checkpoint.path / name, size)
    payloads = {}
    for name in checkpoint.files:
        path = checkpoint.path / name
        try:
            payloads[path.stem] = torch.load(path, map_location=map_location, weights_only=True)
        except (pickle.UnpicklingError, RuntimeError) as error:
            raise CheckpointError(f"{path}: cannot be loaded: {error}") from error
    return payloads


def _put_in_place(unfinished: Path, final: Path) -> None:
    """Rename a finished checkpoint; an earlier one of the same step stays readable as ``.old`` until then."""
    old = final.with_name(f"{final.name}.old")
    if final.exists():
        _remove(old)
        final.rename(old)
    unfinished.rename(final)
    sync(final.parent)
    _remove(old)


def _remove(path: Path) -> None:
    """Remove a checkpoint, renamed first so that no reader sees half of it."""
    if path.exists():
        path = path.rename(path.with_name(f"{UNFINISHED}{path.name}-removed"))
        shutil.rmtree(path)


def _clear_unfinished(folder: Path) -> None:
    for path in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(path)


def _newest_first(folder: Path) -> list[Path]:
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        name = _FOLDER.fullmatch(path.name)
        if name and path.is_dir() and not path.is_symlink():
            found.append((int(name[1]), name[2] is None, path))
    return [path for *_, path in sorted(found, reverse=True)]


def _check(payloads: Mapping[str, Any], cursor: Mapping[str, int], extra: Mapping[str, Any]) -> None:
    for name in payloads:
        if not PAYLOAD.fullmatch(name):
            raise ValueError(f"a payload's name is its file's: letters, digits and _ only, got {name!r}")
    for key in CURSOR:
        if not isinstance(cursor.get(key), int) or cursor[key] < 0:
            raise ValueError(f"cursor[{key!r}] must be an integer >= 0, got {cursor.get(key)!r}")
    check_metric(extra)


def _check_readable(path: Path) -> None:
    try:
        torch.load(path, map_location="meta", weights_only=True)  # meta: the structure without the tensors' bytes
    except pickle.UnpicklingError as error:
        raise ValueError(f"payload {path.stem!r} is more than tensors and plain values: {error}") from error


def _check_archive(path: Path, size: int) -> None:
    try:
        if not unpacks_within(path, size):
            raise CheckpointError(f"{path}: would unpack to more than its {size} bytes; torch.save did not write it")
    except zipfile.BadZipFile:
        raise CheckpointError(f"{path}: not a file that torch.save wrote") from None


def _disk_error(error: OSError, final: Path, written: int) -> OSError:
    reason = (
        f"{error.strerror} after {written / 2**20:.1f} MiB of this checkpoint ({free_mib(final.parent):.1f} MiB free); "
        "earlier checkpoints are intact: make room and give the same command again"
    )
    return OSError(error.errno, reason, str(final))
