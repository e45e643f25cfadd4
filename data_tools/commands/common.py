"""What all commands share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from data_tools.sources import Imported

# argparse gives it no public name
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(commands: Commands, name: str, text: str, more: str = "") -> argparse.ArgumentParser:
    """Add a command; ``text`` is its help in a line, ``more`` goes below it in its own help."""
    description = f"{text[0].upper()}{text[1:]}. {more}"
    return commands.add_parser(
        name, help=text, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_out(parser: argparse.ArgumentParser, text: str, *, required: bool = True) -> None:
    """Add ``--out``."""
    parser.add_argument("--out", type=Path, required=required, metavar="DIR", help=text)


def add_manifest(parser: argparse.ArgumentParser) -> None:
    """Add the manifest that is read."""
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help=".parquet, .csv or .jsonl file")


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers``, by default as many as there are cores."""
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (%(default)s)")


def add_timeout(parser: argparse.ArgumentParser, seconds: float, item: str) -> None:
    """Add ``--timeout``, the seconds that an item may take."""
    text = f"limit for one {item} (%(default)s)"
    parser.add_argument("--timeout", type=float, default=seconds, metavar="SECONDS", help=text)


def add_dry_run(parser: argparse.ArgumentParser, text: str) -> None:
    """Add ``--dry-run``."""
    parser.add_argument("--dry-run", action="store_true", help=text)


def say(made: Imported) -> int:
    """Print what was imported and what its user should know."""
    from hoi_train.core.records import SPLITS
    from hoi_train.data.manifest import read_manifest

    manifest = made.manifest or read_manifest(made.path, tracks=False)
    counts = ", ".join(f"{len(manifest.split(split))} {split}" for split in SPLITS)
    tasks = ", ".join(f"{task.name} ({task.num_classes} classes)" for task in manifest.tasks.values())
    print(f"{made.path}: {len(manifest)} clips ({counts}); tasks: {tasks}")
    for note in made.notes:
        print(f"note: {note}")
    return 0
