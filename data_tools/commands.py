"""Define the commands of ``hoi-data``; their arguments are the parameters of their functions."""

from __future__ import annotations

import inspect
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from importlib import import_module
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from data_tools.arguments import PATH, add_arguments

if TYPE_CHECKING:  # slow imports are left to the command that needs them
    from data_tools.importers.samples import Options
    from data_tools.sources import Imported

Run = Callable[[Namespace], int]
VIDEOS = {"videos": ("--videos", "--clips"), "train_list": ("--list", "--train-list"), "labels": ("--label",)}


def _always_0(_result: Any) -> int:
    return 0


def _bad_is_1(report: Any) -> int:
    return 1 if report is not None and report.bad else 0


def _failed_is_1(report: Any) -> int:
    return 1 if report.failed else 0


def _print_demo(path: Path) -> int:
    from data_tools.sources import Imported

    return say(Imported(path, ()))


@dataclass(frozen=True)
class Command:
    """A command that calls a function.

    Args:
        help: one-line summary.
        function: ``module:name``; its parameters are the command's arguments.
        exit_code: maps the function's result to the exit code; may print the result.
        flags: option strings by parameter, where they differ from the parameter's name.
    """

    help: str
    function: str
    exit_code: Callable[[Any], int] = _always_0
    flags: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def add_to(self, parser: ArgumentParser) -> Run:
        """Add the arguments to the command's parser and return the function that runs it."""
        function = self.load()
        describe(parser, self.help, import_module(function.__module__).__doc__)
        call = add_arguments(parser, function, flags=self.flags)
        return lambda given: self.exit_code(function(**call(given)))

    def load(self) -> Callable[..., Any]:
        """Import the function."""
        module, _, name = self.function.partition(":")
        function: Callable[..., Any] = getattr(import_module(module), name)
        return function


@dataclass(frozen=True)
class ImportCommand:
    """A command that imports an annotation format.

    Args:
        help: one-line summary.
        format: key of ``FORMATS``.
    """

    help: str
    format: str

    def add_to(self, parser: ArgumentParser) -> Run:
        """Add the format's own and the common options, and return the function that runs the command."""
        from data_tools.importers import FORMATS

        function = FORMATS[self.format]
        describe(parser, self.help, import_module(function.__module__).__doc__)
        positional = {"videos": "VIDEOS"} if self.format == "folder" else PATH
        flags = {name: options for name, options in VIDEOS.items() if name not in positional}
        call = add_arguments(parser, function, positional=positional, flags=flags)
        parser.add_argument("--dry-run", action="store_true", help="say what would come out, write nothing")

        def run(given: Namespace) -> int:
            arguments = call(given)
            return _import(self.format, dry_run=arguments.pop("dry_run"), **arguments)

        return run


COMMANDS: Mapping[str, Command | ImportCommand] = {
    "demo": Command(
        "make a synthetic long-tailed set of hands and objects, with its manifest",
        "data_tools.demo.command:make_demo",
        _print_demo,
    ),
    "egtea": ImportCommand("make the manifest of EGTEA Gaze+ from its official annotation", "egtea"),
    "vidhoi": ImportCommand("make the manifest of VidHOI from its frame annotations", "vidhoi"),
    "vidor": ImportCommand("make the same manifest from the annotation of VidOR itself", "vidor"),
    "folder": ImportCommand("make the manifest of videos in folders, or named in lists", "folder"),
    "stats": Command(
        "count classes, groups, lengths and sizes of a manifest, and measure its tail and its shift",
        "data_tools.stats.command:show_stats",
    ),
    "split": Command(
        "divide a manifest into train, val and test, groups whole and classes in proportion",
        "data_tools.split.command:split_manifest",
        _failed_is_1,
        {"group_by": ("--group",)},
    ),
    "vidhoi-stats": Command(
        "count predicates and triplets in the annotation of VidHOI, and what is rare",
        "data_tools.importers.vidhoi.statistics:show_statistics",
    ),
    "verify": Command(
        "decode every clip of a manifest and report the bad ones",
        "data_tools.verify.command:verify_manifest",
        _bad_is_1,
    ),
    "reencode": Command(
        "make clips that are cheap to read at random frames", "data_tools.derive.reencode:reencode", _bad_is_1
    ),
    "cache": Command(
        "make the frames of clips into JPEG at training size, in zip shards",
        "data_tools.derive.cache:make_cache",
        _bad_is_1,
    ),
}
IMPORT = "import"  # its subcommands are the formats without a command of their own


def add_import(parser: ArgumentParser, chosen: str | None) -> Run | None:
    """Add a subcommand per format without a command of its own; return the function that runs the chosen one."""
    from data_tools.importers import FORMATS

    own = {command.format for command in COMMANDS.values() if isinstance(command, ImportCommand)}
    formats, run = parser.add_subparsers(required=True, metavar="FORMAT"), None
    for name in (name for name in FORMATS if name not in own):
        text = (inspect.getdoc(FORMATS[name]) or "").partition("\n")[0]
        command = ImportCommand(f"{text[0].lower()}{text[1:].rstrip('.')}", name)
        sub = formats.add_parser(name, help=command.help)
        run = command.add_to(sub) if name == chosen else run
    return run


def describe(parser: ArgumentParser, text: str, more: str | None) -> None:
    """Set a parser's description: a summary line, then the docstring of the command's module."""
    _, _, rest = (more or "").partition("\n")
    parser.description = f"{text[0].upper()}{text[1:]}.\n{rest.rstrip().replace('``', '')}"
    parser.formatter_class = RawDescriptionHelpFormatter


def _import(format_name: str, options: Options, *, dry_run: bool, **own: Any) -> int:
    from data_tools.importers import run_import

    if not dry_run:
        return say(run_import(format_name, options, own))
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()) as said:
        say(run_import(format_name, replace(options, out=Path(folder)), own))
    print(said.getvalue().replace(folder, str(options.out)), end="dry run: nothing was written\n")
    return 0


def say(made: Imported) -> int:
    """Print the clip counts, tasks and notes of an import."""
    from hoi_train.core.records import SPLITS
    from hoi_train.data.manifest import read_manifest

    manifest = made.manifest or read_manifest(made.path, tracks=False)
    counts = ", ".join(f"{len(manifest.split(split))} {split}" for split in SPLITS)
    tasks = ", ".join(f"{task.name} ({task.num_classes} classes)" for task in manifest.tasks.values())
    print(f"{made.path}: {len(manifest)} clips ({counts}); tasks: {tasks}")
    for note in made.notes:
        print(f"note: {note}")
    return 0
