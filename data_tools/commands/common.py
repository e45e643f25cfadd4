"""What all commands share."""

from __future__ import annotations

import argparse
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


def say(made: Imported) -> int:
    """Print what was imported and what its user should know."""
    from hoi_train.data.manifest import read_manifest
    from hoi_train.records import SPLITS

    manifest = made.manifest or read_manifest(made.path, tracks=False)
    counts = ", ".join(f"{len(manifest.split(split))} {split}" for split in SPLITS)
    tasks = ", ".join(f"{task.name} ({task.num_classes} classes)" for task in manifest.tasks.values())
    print(f"{made.path}: {len(manifest)} clips ({counts}); tasks: {tasks}")
    for note in made.notes:
        print(f"note: {note}")
    return 0
