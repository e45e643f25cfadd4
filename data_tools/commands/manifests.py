"""Commands that work on manifests and annotations alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from data_tools.commands.common import Commands, add_command, add_out


def add_vidhoi_stats(commands: Commands) -> None:
    """Add the command ``vidhoi-stats``."""
    parser = add_command(
        commands, "vidhoi-stats", "count predicates and triplets in the annotation of VidHOI, and what is rare"
    )
    parser.add_argument("--annotations", type=Path, required=True, metavar="DIR", help="the folder, as for vidhoi")
    add_out(parser, "folder for vidhoi_statistics.json")
    parser.set_defaults(command=_vidhoi_stats)


def _vidhoi_stats(given: argparse.Namespace) -> int:
    from data_tools.vidhoi_statistics import show_statistics

    show_statistics(given.annotations, given.out)
    return 0


def add_stats(commands: Commands) -> None:
    """Add the command ``stats``."""
    parser = add_command(commands, "stats", "count classes, groups, lengths and sizes of a manifest")
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help=".parquet, .csv or .jsonl file")
    add_out(parser, "folder for a PNG of the class counts of each task", required=False)
    parser.set_defaults(command=_stats)


def _stats(given: argparse.Namespace) -> int:
    from data_tools.stats import show_stats

    show_stats(given.manifest, given.out)
    return 0
