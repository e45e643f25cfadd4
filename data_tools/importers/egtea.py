"""EGTEA Gaze+: the official annotation files to a manifest with the tasks verb (19 classes) and noun (53 classes).

The files are described in the readme that comes with them. A line of a split file is
``<clip name> <action id> <verb id> <noun id> [<noun id> …]``, all ids from 1; a clip's name is
``<subject>-<recipe number>-<recipe>-<start ms>-<end ms>-F<first frame>-F<last frame>``. Times in a name are those of
the whole session, so they are not the clip's ``start`` and ``end``: each clip is a file of its own,
``<session>/<clip name>.mp4``, or a frame folder ``<session>/<clip name>/``.

The manifest's group is the subject; OP01 and P01 are different people. Sessions and subjects occur in both the
official train and test files: they are disjoint by clip only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from data_tools.importers.samples import Options, Reading, Sample, TaskClasses
from data_tools.importers.tables import ordered_classes
from data_tools.sources import numbered_lines
from hoi_train.core.records import Split, UserError
from hoi_train.data.manifest.problems import Problems

PARTS: tuple[Split, ...] = ("train", "test")
VAL_SUBJECTS = "P20-P26"
FPS = 24.0  # of the published clips
_NAME = re.compile(r"(?P<session>(?P<subject>O?P\d\d)-R\d\d-[A-Za-z]+)-(\d+)-(\d+)-F(\d{6})-F(\d{6})")
_RANGE = re.compile(r"(?P<kind>O?P)(?P<first>\d\d)(-(?P=kind)(?P<last>\d\d))?")


def read_egtea(
    options: Options, *, annotations: Path, split: Literal[1, 2, 3] = 1, val_subjects: str = VAL_SUBJECTS
) -> Reading:
    """Read the official annotation of EGTEA Gaze+: verb and nouns of a clip.

    Args:
        options: common options; with --val-fraction, val is drawn clip by clip, whatever the subject. Videos may
            be in the archive's own folder cropped_clips. Frame folders have 24 frames per second.
        annotations: folder action_annotation of the official archive.
        split: official split.
        val_subjects: training clips of these subjects become val; names and ranges joined by commas.

    Raises:
        UserError: folders or subjects that are not there.
    """
    if options.val_fraction is not None and val_subjects != VAL_SUBJECTS:
        raise UserError("--val-subjects names who is in val, --val-fraction draws val clip by clip: give one")
    folder, problems = _folder_of(annotations), Problems()
    files = {name: folder / f"{name}_idx.txt" for name in ("verb", "noun", "action")}
    classes = {name: ordered_classes(file, _classes(file, problems), "1", problems) for name, file in files.items()}
    problems.raise_if_any()  # ids cannot be checked without the classes
    samples: list[Sample] = []
    for part in PARTS:
        file = folder / f"{part}_split{split}.txt"
        samples += _samples(file, part, _sessions(options.videos), classes, problems)
    if options.val_fraction is None and not problems.total:
        held_out = _subjects({sample.group or "" for sample in samples if sample.split == "train"}, val_subjects)
        samples = [
            replace(sample, split="val") if sample.split == "train" and sample.group in held_out else sample
            for sample in samples
        ]
    kinds: TaskClasses = {"verb": (classes["verb"], "single"), "noun": (classes["noun"], "multi")}
    return Reading(samples, kinds, problems, val_fraction=0.0, val_by="clip")


def _folder_of(annotations: Path) -> Path:
    inside = annotations / "action_annotation"
    folder = inside if inside.is_dir() else annotations
    if not folder.is_dir():
        raise UserError(f"--annotations: {annotations} is not a folder")
    return folder


def _sessions(videos: Path) -> str:
    """Return what comes before the folders of the sessions, which the archive has in a folder of their own."""
    return "cropped_clips/" if (videos / "cropped_clips").is_dir() else ""


def _classes(file: Path, problems: Problems) -> Iterator[tuple[int, str, str]]:
    """Yield line, id and name of ``name id`` lines; names may hold blanks."""
    for number, line in numbered_lines(file, problems):
        name, _, id_ = line.rpartition(" ")
        yield number, id_, name


def _samples(
    file: Path, part: Split, sessions: str, classes: Mapping[str, Sequence[str]], problems: Problems
) -> Iterator[Sample]:
    """Yield the sound lines of a split file, noting the others."""
    for number, text in numbered_lines(file, problems):
        name, *fields = text.split()
        match = _NAME.fullmatch(name)
        faults = list(_faults(fields, classes))
        if match is None:
            faults.insert(0, f"clip name {name!r:.80} is not <subject>-<recipe>-<start>-<end>-F<frame>-F<frame>")
        elif int(match[3]) >= int(match[4]):
            faults.insert(0, f"clip {name!r} does not start before it ends")
        for fault in faults:
            problems.add(file, number, fault)
        if match and not faults:
            _, verb, *nouns = (int(field) - 1 for field in fields)
            labels = {"verb": classes["verb"][verb], "noun": [classes["noun"][noun] for noun in nouns]}
            video, subject = f"{sessions}{match['session']}/{name}", match["subject"]
            yield Sample(name, video, part, labels, file, number, lookup="stem", group=subject, fps=FPS)


def _faults(fields: Sequence[str], classes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield what is wrong with the ids of a line."""
    if len(fields) < 3:
        yield f"{len(fields)} ids after the clip name; it needs an action id, a verb id and one noun id or more"
        return
    for kind, field in zip(("action", "verb", *["noun"] * (len(fields) - 2)), fields, strict=True):
        size = len(classes[kind])
        if not (field.isascii() and field.isdigit() and 1 <= int(field[:9]) <= size):
            yield f"{kind} id {field!r:.40} is not a whole number from 1 to {size}"
    if len(set(fields[2:])) < len(fields[2:]):
        yield "a noun occurs twice"


def _subjects(known: set[str], subjects: str) -> set[str]:
    """Return the subjects that a text such as ``P03,P20-P26`` names, all of whom must be known."""
    wanted: set[str] = set()
    for part in subjects.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise UserError(f"--val-subjects: {part!r} is neither a subject such as P20 nor a range such as P20-P26")
        first, last = int(match["first"]), int(match["last"] or match["first"])
        named = [f"{match['kind']}{number:02}" for number in range(first, last + 1)]
        absent = [subject for subject in named if subject not in known]
        if absent or not named:
            there = ", ".join(sorted(known))
            raise UserError(f"--val-subjects: {', '.join(absent) or part} not in the training file; it has {there}")
        wanted.update(named)
    return wanted
