"""Validate options before any work: value ranges and the output folder."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from hoi_train.core.paths import is_plain
from hoi_train.core.records import UserError

MAX_WORKERS = 10_000
MAX_TIMEOUT = 2_000_000  # seconds (23 days): poll takes at most 2**31 milliseconds


def at_least(least: int) -> Callable[[str], int]:
    """Return an argparse ``type`` function for integers of at least ``least``.

    >>> at_least(1)("3")
    3
    """

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r}") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    return whole_number


def check_range(name: str, value: float, least: float, most: float) -> None:
    """Raise ``UserError`` if an option's value is outside ``least`` to ``most``."""
    if not least <= value <= most:
        raise UserError(f"{name} must be {least} to {most}, got {value}")


def check_work(workers: int | None, timeout: float) -> None:
    """Raise ``UserError`` if the number of processes or the timeout per item, in seconds, is out of range."""
    if workers is not None:
        check_range("--workers", workers, 1, MAX_WORKERS)
    if not timeout > 0:
        raise UserError(f"--timeout must be seconds above 0, got {timeout:g}")
    if timeout > MAX_TIMEOUT:
        raise UserError(f"--timeout must be at most {MAX_TIMEOUT} seconds, got {timeout:g}")


def check_out(out: Path, manifest: Path | None = None) -> None:
    """Raise ``UserError`` if ``--out`` cannot be written to, or would overwrite the input manifest.

    Args:
        out: output folder; need not exist.
        manifest: the input manifest; ``None`` if the command writes no manifest.

    Raises:
        UserError: says what is wrong with the folder.
    """
    try:
        real = out.resolve()
    except (OSError, RuntimeError) as error:  # a name too long, a loop of links
        raise UserError(f"--out {out}: leads nowhere: {error}; give another folder") from None
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise UserError(f"--out {out}: {there} is a file; give a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: {there} may not be written to; give another folder")
    if manifest is None:
        return
    if not is_plain(str(real)):
        raise UserError(f"--out {out}: its name holds control characters or is not UTF-8; give another folder")
    if real in (Path(os.path.realpath(manifest.parent)), Path(os.path.realpath(manifest)).parent):
        raise UserError(f"--out {out} is the folder of the manifest, which would be overwritten; give another folder")
