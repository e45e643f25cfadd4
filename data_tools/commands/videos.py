"""Commands that read the videos themselves."""

from __future__ import annotations

import argparse
from fractions import Fraction

from data_tools.commands.common import (
    Commands,
    add_command,
    add_dry_run,
    add_manifest,
    add_out,
    add_timeout,
    add_workers,
)


def add_verify(commands: Commands) -> None:
    """Add the command ``verify``."""
    more = (
        "\n\nEach clip is decoded in a process that can be killed. Exit code 1 if any clip is bad; warnings (clips that"
        "\nlook wrong, copies between splits) do not change it. A run that was killed goes on; files that have not"
        "\nchanged are not read again. Training leaves the bad clips out with"
        "\ndata.bad_clips=quarantine data.quarantine=DIR/quarantine.json"
    )
    parser = add_command(commands, "verify", "decode every clip of a manifest and report the bad ones", more)
    add_manifest(parser)
    add_out(parser, "folder for verify.txt, verify.json, quarantine.json and the journal")
    add_workers(parser)
    add_timeout(parser, 60.0, "clip")
    parser.add_argument("--reader", default="auto", metavar="NAME", help="as data.reader of a run (%(default)s)")
    parser.add_argument(
        "--measured",
        action="store_true",
        help="write a copy of the manifest to DIR, with num_frames and fps as measured",
    )
    add_dry_run(parser, "only say how many clips there are to check")
    parser.set_defaults(command=_verify)


def _verify(given: argparse.Namespace) -> int:
    from data_tools.verify.command import verify_manifest

    report = verify_manifest(
        given.manifest,
        given.out,
        workers=given.workers,
        timeout=given.timeout,
        reader=given.reader,
        measured=given.measured,
        dry_run=given.dry_run,
    )
    return 1 if report and report.bad else 0


def add_reencode(commands: Commands) -> None:
    """Add the command ``reencode``."""
    more = """

Each clip becomes an mp4 file of its own: trimmed to its times, upright, at a constant frame rate, without sound, every
frame a key frame. Labels, pairs and tracks go along into DIR/manifest.parquet. The same command goes on after a kill,
and may run several times at once. Exit code 1 if any clip is bad: it is listed in DIR/reencode.json and left out.

With --engine ray the work is done on the cluster that RAY_ADDRESS names, whose machines share the videos and DIR."""
    parser = add_command(commands, "reencode", "make clips that are cheap to read at random frames", more)
    add_manifest(parser)
    add_out(parser, "folder of the clips and their manifest")
    text = "of the pictures, even; smaller ones keep their size (%(default)s)"
    parser.add_argument("--short-side", type=int, default=256, metavar="PX", help=text)
    text = "frames a second, such as 25, 12.5 or 30000/1001 (that of each source)"
    parser.add_argument("--fps", type=_rate, metavar="F", help=text)
    text = "frames from one key frame to the next; 12 takes about 0.6 times the bytes (%(default)s)"
    parser.add_argument("--gop", type=int, default=1, metavar="N", help=text)
    text = "x264's quality, 0 to 51, less is better and larger (%(default)s)"
    parser.add_argument("--crf", type=int, default=21, metavar="N", help=text)
    text = "processes, or tasks at once on the cluster (as many as there are cores)"
    parser.add_argument("--workers", type=int, metavar="N", help=text)
    add_timeout(parser, 1800.0, "source file with all its clips")
    text = "on this machine, or on a Ray cluster (%(default)s)"
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help=text)
    add_dry_run(parser, "only say how many clips there are to make, and how large")
    parser.set_defaults(command=_reencode)


def _rate(text: str) -> str:
    try:
        return str(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"must be a number or a fraction such as 30000/1001, got {text!r}") from None


def _reencode(given: argparse.Namespace) -> int:
    from data_tools.derive.pipeline import Work
    from data_tools.derive.reencode import ReencodeSettings, plan_reencode, reencode

    settings = ReencodeSettings(given.short_side, given.fps, given.gop, given.crf)
    work = Work(given.workers, given.timeout, given.engine)
    if given.dry_run:
        print(plan_reencode(given.manifest, given.out, settings, work))
        return 0
    return 1 if reencode(given.manifest, given.out, settings, work).bad else 0


def add_cache(commands: Commands) -> None:
    """Add the command ``cache``."""
    more = """

All frames of each clip become JPEG at training size, in DIR/shards: stored zips that hold one stored zip a clip.
Labels, pairs and tracks go along into DIR/manifest.parquet, which training reads like any other. The same command goes
on after a kill, and may run several times at once. Exit code 1 if any clip is bad: it is listed in DIR/cache.json and
left out."""
    parser = add_command(commands, "cache", "make the frames of clips into JPEG at training size, in zip shards", more)
    add_manifest(parser)
    add_out(parser, "folder of the shards and their manifest")
    text = "of the frames; smaller ones keep their size (%(default)s)"
    parser.add_argument("--short-side", type=int, default=256, metavar="PX", help=text)
    text = "of the JPEG, 1 to 100; DIR/cache.json has the PSNR (%(default)s)"
    parser.add_argument("--quality", type=int, default=70, metavar="N", help=text)
    parser.add_argument("--shard-clips", type=int, default=64, metavar="N", help="clips in a shard (%(default)s)")
    add_workers(parser)
    add_timeout(parser, 1800.0, "source file with all its clips")
    add_dry_run(parser, "only say how many clips there are to make")
    parser.set_defaults(command=_cache)


def _cache(given: argparse.Namespace) -> int:
    from data_tools.derive.cache import FrameSettings, make_cache, plan_cache
    from data_tools.derive.pipeline import Work

    settings, work = (
        FrameSettings(given.short_side, given.quality, given.shard_clips),
        Work(given.workers, given.timeout),
    )
    if given.dry_run:
        print(plan_cache(given.manifest, given.out, settings, work))
        return 0
    return 1 if make_cache(given.manifest, given.out, settings, work).bad else 0
