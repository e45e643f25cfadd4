"""The command ``hoi-data``: make manifests, look at them, check the videos.

Every command writes below ``--out`` and leaves its input alone. Exit codes: 0 all is well, 1 something is bad (a clip
that does not decode), 2 the command cannot be carried out (wrong usage, bad annotation files).
"""

from __future__ import annotations

import argparse
import io
import os
import select
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TextIO

from data_tools.commands import imports, manifests, videos

COMMANDS = (
    imports.add_demo,
    imports.add_egtea,
    imports.add_vidhoi,
    imports.add_vidor,
    imports.add_folder,
    imports.add_import,
    manifests.add_stats,
    manifests.add_split,
    manifests.add_vidhoi_stats,
    videos.add_verify,
    videos.add_reencode,
    videos.add_cache,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parsed = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # files may have any name
    try:
        code: int = parsed.command(parsed)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _is_unread(sys.stdout):  # the reader, such as head, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        where = f"{error.filename}: " if error.filename else ""
        print(f"hoi-data: {where}{error.strerror or error}", file=sys.stderr)
        return 2
    except Exception as error:
        from hoi_train.core.records import UserError

        if not isinstance(error, UserError):
            raise
        text = str(error)
        print(f"hoi-data: {text}" if "\n" not in text else f"hoi-data: bad input\n{text}", file=sys.stderr)
        return 2
    return code


def _is_unread(stream: TextIO) -> bool:
    """Return whether the other end of a pipe is closed."""
    watched = select.poll()
    watched.register(stream.fileno(), 0)  # errors are told unasked
    return bool(watched.poll(0))


def _version() -> str:
    try:
        return version("hoi_train")
    except PackageNotFoundError:
        return "hoi_train is not installed"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hoi-data", description="Make, look at and check sets of labelled videos.")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
