"""Run ``hoi-data``: make, inspect and check manifests and their videos.

Every command writes below ``--out`` and does not change its input. Exit codes: 0 success, 1 a check failed (a clip that
does not decode), 2 the command could not run (wrong usage, bad annotation files).
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

from data_tools.commands import COMMANDS, IMPORT, Run, add_import


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # files may have any name
    try:
        parser, run = parser_of(given)
        code = run(parser.parse_args(given))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _is_closed(sys.stdout):  # the reader, such as head, has exited
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


def _is_closed(stream: TextIO) -> bool:
    """Return whether the read end of a pipe is closed."""
    watched = select.poll()
    watched.register(stream.fileno(), 0)  # POLLERR and POLLHUP are always reported
    return bool(watched.poll(0))


def _version() -> str:
    try:
        return version("hoi_train")
    except PackageNotFoundError:
        return "hoi_train is not installed"


def parser_of(given: Sequence[str]) -> tuple[argparse.ArgumentParser, Run]:
    """Return the parser and the function that runs the given command; only this command has its arguments added."""
    parser = argparse.ArgumentParser(prog="hoi-data", description="Make, look at and check sets of labelled videos.")
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    chosen, *more = [*(word for word in given if not word.startswith("-")), "", ""][:2]
    run: Run | None = None
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.help)
        run = command.add_to(sub) if name == chosen else run
    imports = commands.add_parser(IMPORT, help="make the manifest of clips that are annotated for other code")
    run = add_import(imports, more[0]) if chosen == IMPORT else run
    return parser, run or (lambda _given: parser.error("no such command"))


if __name__ == "__main__":
    sys.exit(main())
