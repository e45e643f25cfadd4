"""Commands that read the videos themselves."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from data_tools.commands.common import Commands, add_command, add_out


def add_verify(commands: Commands) -> None:
    """Add the command ``verify``."""
    more = "\n\nEach clip is decoded in a process that can be killed. Exit code 1 if any clip is bad."
    parser = add_command(commands, "verify", "decode every clip of a manifest and report the bad ones", more)
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help=".parquet, .csv or .jsonl file")
    add_out(parser, "folder for verify.txt and verify.json")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (%(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="limit for one clip (%(default)s)"
    )
    parser.add_argument("--reader", default="auto", metavar="NAME", help="auto, decord, pyav or frames (%(default)s)")
    parser.set_defaults(command=_verify)


def _verify(given: argparse.Namespace) -> int:
    from data_tools.verify import verify_manifest

    report = verify_manifest(
        given.manifest, given.out, workers=given.workers, timeout=given.timeout, reader=given.reader
    )
    return 1 if report.bad else 0
