"""Commands that work on manifests and annotations alone."""

from __future__ import annotations

import argparse
from pathlib import Path

from data_tools.commands.common import Commands, add_command, add_dry_run, add_manifest, add_out


def add_vidhoi_stats(commands: Commands) -> None:
    """Add the command ``vidhoi-stats``."""
    parser = add_command(
        commands, "vidhoi-stats", "count predicates and triplets in the annotation of VidHOI, and what is rare"
    )
    parser.add_argument("--annotations", type=Path, required=True, metavar="DIR", help="the folder, as for vidhoi")
    add_out(parser, "folder for vidhoi_statistics.json")
    parser.set_defaults(command=_vidhoi_stats)


def _vidhoi_stats(given: argparse.Namespace) -> int:
    from data_tools.importers.vidhoi.statistics import show_statistics

    show_statistics(given.annotations, given.out)
    return 0


def add_stats(commands: Commands) -> None:
    """Add the command ``stats``."""
    parser = add_command(
        commands,
        "stats",
        "count classes, groups, lengths and sizes of a manifest, and measure its tail and its shift",
        "Tables in the terminal; below --out a PNG a plot, stats.json, and stats.html, one page with everything in it.",
    )
    add_manifest(parser)
    add_out(parser, "folder for the plots, stats.json and stats.html", required=False)
    parser.add_argument(
        "--probe", action="store_true", help="read the headers of the files: pixels, rate, length, codec"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes for --probe (default: 1)")
    parser.set_defaults(command=_stats)


def _stats(given: argparse.Namespace) -> int:
    from data_tools.stats.command import show_stats

    show_stats(given.manifest, given.out, probe=given.probe, workers=given.workers)
    return 0


def add_split(commands: Commands) -> None:
    """Add the command ``split``."""
    parser = add_command(
        commands,
        "split",
        "divide a manifest into train, val and test, groups whole and classes in proportion",
        "Writes a manifest like MANIFEST below --out, and split.json. Exit code 1: --min-per-class could not be\n"
        "reached for every class; the manifest is written all the same, and split.json says which classes and why.",
    )
    add_manifest(parser)
    add_out(parser, "folder for the new manifest, not that of MANIFEST")
    parser.add_argument("--val", type=float, default=0.15, metavar="FRACTION", help="of the clips (default: 0.15)")
    parser.add_argument("--test", type=float, default=0.15, metavar="FRACTION", help="of the clips (default: 0.15)")
    parser.add_argument(
        "--group",
        choices=("group", "path", "none"),
        default="group",
        help="what stays whole: the column group (default; clips without one by file), the file, or only the clip",
    )
    parser.add_argument(
        "--min-per-class",
        type=int,
        metavar="N",
        help="samples each class must have in each split (default: 1, if can be)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another one finds another division")
    text = "quarantine.json of hoi-data verify: leave the clips in it out"
    parser.add_argument("--quarantine", type=Path, metavar="FILE", help=text)
    add_dry_run(parser, "say what would come out, write nothing")
    parser.set_defaults(command=_split)


def _split(given: argparse.Namespace) -> int:
    from data_tools.split.command import split_manifest

    report = split_manifest(
        given.manifest,
        given.out,
        val=given.val,
        test=given.test,
        group_by=given.group,
        min_per_class=given.min_per_class,
        seed=given.seed,
        quarantine=given.quarantine,
        dry_run=given.dry_run,
    )
    return 1 if report.failed else 0
