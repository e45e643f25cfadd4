"""Commands that make manifests."""

from __future__ import annotations

import argparse
from contextlib import redirect_stdout
from dataclasses import fields, replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from data_tools.commands.common import Commands, add_command, add_dry_run, add_out, say


def add_demo(commands: Commands) -> None:
    """Add the command ``demo``."""
    parser = add_command(commands, "demo", "make a synthetic long-tailed set of hands and objects, with its manifest")
    add_out(parser, "folder for the videos and the manifest")
    parser.add_argument("--clips", type=int, default=300, metavar="N", help="number of clips (%(default)s)")
    parser.add_argument(
        "--imbalance", type=float, default=50.0, metavar="F", help="most frequent over rarest verb (%(default)s)"
    )
    parser.add_argument(
        "--size", type=int, default=96, metavar="PX", help="side of the pictures, 64 to 128 (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the same seed makes the same bytes (%(default)s)"
    )
    parser.set_defaults(command=_demo)


def _demo(given: argparse.Namespace) -> int:
    from data_tools.demo.command import make_demo
    from data_tools.sources import Imported

    path = make_demo(given.out, clips=given.clips, imbalance=given.imbalance, size=given.size, seed=given.seed)
    return say(Imported(path, ()))


def add_egtea(commands: Commands) -> None:
    """Add the command ``egtea``."""
    more = "\n\nTasks: verb (one of 19) and noun (any of 53). The group of a clip is its subject."
    parser = _add_format(commands, "egtea", "make the manifest of EGTEA Gaze+ from its official annotation", more)
    parser.add_argument("--annotations", type=Path, required=True, metavar="DIR", help="the folder action_annotation")
    parser.add_argument("--split", type=int, choices=(1, 2, 3), help="official split (1)")
    text = "training clips of these subjects become val; names and ranges joined by commas (P20-P26)"
    parser.add_argument("--val-subjects", metavar="NAMES", help=text)


def add_vidhoi(commands: Commands) -> None:
    """Add the command ``vidhoi``."""
    more = """

DIR of --annotations holds train_frame_annots.json and val_frame_annots.json (or one of them), obj_categories.json,
pred_categories.json, and if wanted train_ and val_trajectories.json, and det_val_frame_annots.json with
det_val_trajectories.json: what was detected, which goes to detections.parquet beside the manifest. Frames are counted
in the video files as they are."""
    parser = _add_format(commands, "vidhoi", "make the manifest of VidHOI from its frame annotations", more)
    _add_pair_options(parser, "the folder of the annotation files")
    text = "list of key frames to leave out, such as 168_frames_to_remove.json"
    parser.add_argument("--leave-out", type=Path, metavar="FILE", help=text)


def add_vidor(commands: Commands) -> None:
    """Add the command ``vidor``."""
    more = (
        "\n\nClasses and key frames are those of VidHOI, which was made from VidOR: what persons do, once per second."
    )
    parser = _add_format(commands, "vidor", "make the same manifest from the annotation of VidOR itself", more)
    _add_pair_options(parser, "folder with training/<folder>/<video>.json and validation/<folder>/<video>.json")


def _add_pair_options(parser: argparse.ArgumentParser, annotations: str) -> None:
    parser.add_argument("--annotations", type=Path, required=True, metavar="DIR", help=annotations)
    text = "a row per video with the pairs of its key frames, or per stretch with the predicates in it (pair)"
    parser.add_argument("--level", choices=("pair", "clip"), help=text)
    text = "length of a stretch (2.0: about the 64 frames that published networks see of a key frame)"
    parser.add_argument("--segment", type=float, metavar="SECONDS", help=text)
    text = "what the official validation part becomes (test, as there is no other test part)"
    parser.add_argument("--official-val", choices=("test", "val"), help=text)


def add_folder(commands: Commands) -> None:
    """Add the command ``folder``."""
    more = """

Without lists, DIR holds one folder per class, or train, val and test with one folder per class in each
(other names of these, such as validation and dev, are known). A clip is a video file or a folder of frame images.

A list has a clip per line, its cells separated by tabs, commas or blanks, in one of the forms
  path label            label path            index label path            index path label
where index is an ascending number, and label is a class name, or its id in --classes. Paths are relative to
DIR or to its folder of the split. The file of --classes has a name per line (ids from 0), or id and name."""
    parser = _add_format(commands, "folder", "make the manifest of videos in folders, or named in lists", more)
    _add_lists(parser)
    _add_task(parser)
    text = "regular expression: clips in whose paths it (or its first parenthesis) finds the same are of one group"
    parser.add_argument("--group", metavar="REGEX", help=text)


def _add_lists(parser: argparse.ArgumentParser) -> None:
    text = "list of the training clips, or of all clips"
    parser.add_argument("--list", "--train-list", type=Path, dest="train_list", metavar="FILE", help=text)
    parser.add_argument("--val-list", type=Path, metavar="FILE", help="list of the val clips")
    parser.add_argument("--test-list", type=Path, metavar="FILE", help="list of the test clips")


def _add_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--classes", type=Path, metavar="FILE", help="class names, a name or an id and a name per line")
    parser.add_argument("--task", metavar="NAME", help="name of the task (label)")


def add_import(commands: Commands) -> None:
    """Add the command ``import``, with a sub-command for each format that has no command of its own."""
    more = "\n\n`hoi-data import FORMAT --help` says what a format needs."
    parser = add_command(commands, "import", "make the manifest of clips that are annotated for other code", more)
    formats = parser.add_subparsers(required=True, metavar="FORMAT")
    kinetics = _add_format(formats, "kinetics", "the official csv files of Kinetics")
    text = "csv files with label, youtube_id, time_start, time_end, split; clips are <youtube_id>_<start>_<end>.mp4"
    kinetics.add_argument("--annotations", type=Path, nargs="+", required=True, metavar="FILE", help=text)
    _add_task(kinetics)
    slowfast = _add_format(formats, "slowfast", "lists for SlowFast, a path and a class id per line")
    text = "what is between path and class id (default: a comma if most lines have one there, else blanks)"
    slowfast.add_argument("--separator", metavar="TEXT", help=text)
    pytorchvideo = _add_format(formats, "pytorchvideo", "lists for PyTorchVideo, a path and a class id per line")
    mmaction2 = _add_format(formats, "mmaction2", "lists for MMAction2 of videos or frame folders, or json")
    mmaction2.add_argument("--frames", action="store_true", help="frame folders: a path, its frames and a class id")
    mmaction2.add_argument("--multi-label", action="store_true", help="any number of class ids per line")
    for of_lists in (slowfast, pytorchvideo, mmaction2):
        _add_lists(of_lists)
        _add_task(of_lists)
    huggingface = _add_format(formats, "huggingface", "a Hugging Face video folder, with or without metadata")
    text = "column of the metadata that is a task; repeat it for several (label)"
    huggingface.add_argument("--label", action="append", dest="labels", metavar="NAME", help=text)
    text = "column of the path, if several end in file_name"
    huggingface.add_argument("--file-column", metavar="NAME", help=text)
    huggingface.add_argument("--classes", type=Path, metavar="FILE", help="class names for labels that are ids")
    epic = _add_format(formats, "epic-kitchens", "the csv files of EPIC-KITCHENS-100: verb and noun of an action")
    epic.add_argument("--all-nouns", action="store_true", help="all nouns of an action, instead of the first")
    charades = _add_format(formats, "charades", "the csv files of Charades: all actions of a video")
    text = "a row per video, or a row per action (video)"
    charades.add_argument("--level", choices=("video", "segment"), help=text)
    ava = _add_format(formats, "ava", "the csv files of AVA: the actions of all persons around a key frame")
    ava.add_argument("--window", type=float, metavar="SECONDS", help="length of a row (3.0)")
    text = "where in the film the files begin: 900 if they were cut from minute 15 on (0.0)"
    ava.add_argument("--offset", type=float, metavar="SECONDS", help=text)
    for of_folder in (epic, charades, ava):
        text = "the folder of the annotation files"
        of_folder.add_argument("--annotations", type=Path, required=True, metavar="DIR", help=text)


def _add_format(commands: Commands, name: str, text: str, more: str = "") -> argparse.ArgumentParser:
    """Add a format with the options that all have; one that is not given has the default of the importer."""
    parser = add_command(commands, name, text, more)
    if name == "folder":
        parser.add_argument("videos", type=Path, metavar="DIR", help="folder of the videos")
    else:
        parser.add_argument("--videos", "--clips", type=Path, required=True, metavar="DIR", help="folder of the videos")
    add_out(parser, "folder for the manifest")
    text = "without val clips, this fraction of train, by group where there are groups (0.2; vidhoi and vidor 0.1)"
    parser.add_argument("--val-fraction", type=float, metavar="F", help=text)
    parser.add_argument("--seed", type=int, metavar="N", help="of the draw for --val-fraction (0)")
    parser.add_argument("--keep-missing", action="store_true", help="list clips that are not on disk, too")
    parser.add_argument("--fps", type=float, metavar="F", help="frames per second of frame folders")
    add_dry_run(parser, "say what would come out, write nothing")
    parser.set_defaults(command=_import, format=name)
    return parser


def _import(given: argparse.Namespace) -> int:
    from data_tools.importers import run_import
    from data_tools.importers.samples import Options

    own = {name: value for name, value in vars(given).items() if name not in ("command", "format", "dry_run")}
    own = {name: value for name, value in own.items() if value is not None}
    options = Options(**{field.name: own.pop(field.name) for field in fields(Options) if field.name in own})
    if not given.dry_run:
        return say(run_import(given.format, options, own))
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()) as said:
        say(run_import(given.format, replace(options, out=Path(folder)), own))
    print(said.getvalue().replace(folder, str(options.out)), end="dry run: nothing was written\n")
    return 0
