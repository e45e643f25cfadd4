"""What the tools refuse before they begin: values out of range, and folders that are not theirs to write to."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from hoi_train.core.paths import is_plain
from hoi_train.core.records import UserError

MAX_WORKERS = 10_000
MAX_TIMEOUT = 2_000_000  # seconds, 23 days: waiting for a pipe ends after 2**31 milliseconds at most


def at_least(least: int) -> Callable[[str], int]:
    """Return an argparse type: a whole number from ``least`` on.

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
    """Raise ``UserError`` if an option's value is not from ``least`` to ``most``."""
    if not least <= value <= most:
        raise UserError(f"{name} must be {least} to {most}, got {value}")


def check_work(workers: int | None, timeout: float) -> None:
    """Raise ``UserError`` for a number of processes, or seconds that one item may take, that cannot be."""
    if workers is not None:
        check_range("--workers", workers, 1, MAX_WORKERS)
    if not timeout > 0:
        raise UserError(f"--timeout must be seconds above 0, got {timeout:g}")
    if timeout > MAX_TIMEOUT:
        raise UserError(f"--timeout must be at most {MAX_TIMEOUT} seconds, got {timeout:g}")


def check_out(out: Path, manifest: Path | None = None) -> None:
    """Raise ``UserError`` if ``--out`` cannot be a folder, or one that a manifest is written to.

    Args:
        out: need not be there.
        manifest: what another one is made of, which must not overwrite it; ``None`` where none is written.
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
