"""EGTEA Gaze+: the official annotation files to a manifest with the tasks verb (19 classes) and noun (53 classes).

The files are described in the readme that comes with them. A line of a split file is
``<clip name> <action id> <verb id> <noun id> [<noun id> …]``, all ids from 1; a clip's name is
``<subject>-<recipe number>-<recipe>-<start ms>-<end ms>-F<first frame>-F<last frame>``. Times in a name are those of
the whole session, so they are not the clip's ``start`` and ``end``: each clip is a file of its own.

The manifest's group is the subject; OP01 and P01 are different people. Sessions and subjects occur in both the
official train and test files: they are disjoint by clip only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_tools.sources import VIDEO_SUFFIXES, ClipFolders, Imported, numbered_lines, write_import
from hoi_train.core.paths import is_plain
from hoi_train.core.randomness import seed_of
from hoi_train.core.records import ClassList, Split, Task, UserError
from hoi_train.data.manifest.problems import Problems

_NAME = re.compile(r"(?P<session>(?P<subject>O?P\d\d)-R\d\d-[A-Za-z]+)-(\d+)-(\d+)-F(\d{6})-F(\d{6})")
_RANGE = re.compile(r"(?P<kind>O?P)(?P<first>\d\d)(-(?P=kind)(?P<last>\d\d))?")


@dataclass(frozen=True)
class Annotation:
    """One line of a split file, ids from 0."""

    name: str
    session: str
    subject: str
    verb: int
    nouns: tuple[int, ...]
    file: Path
    line: int


def import_egtea(
    annotations: Path,
    clips: Path,
    out: Path,
    *,
    split: int = 1,
    val_subjects: str = "P20-P26",
    val_fraction: float | None = None,
    seed: int = 0,
    fps: float = 24.0,
    keep_missing: bool = False,
) -> Imported:
    """Write the manifest of one official split.

    Args:
        annotations: the folder ``action_annotation``.
        clips: the folder with ``<session>/<clip name>.mp4``, or with frame folders ``<session>/<clip name>/``.
        out: where to write.
        split: 1, 2 or 3.
        val_subjects: training clips of these subjects become val, for example ``P20-P26`` or ``P03,OP01-OP04``.
        val_fraction: instead, this fraction of the training clips, drawn clip by clip.
        seed: of that draw.
        fps: frames a second of frame folders.
        keep_missing: list clips that are not on disk, too.

    Raises:
        ManifestError: with everything that is wrong in the annotation files, each with file and line.
        UserError: folders or subjects that are not there, or none of the clips.
    """
    verbs, nouns, parts = _read(_folder_of(annotations), split)
    if val_fraction is None:
        held_out = _of_subjects(parts["train"], val_subjects)
    else:
        held_out = _drawn(parts["train"], val_fraction, seed)
    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    found = _clip_folders(clips)
    for official, lines in parts.items():
        for line in lines:
            part: Split = "test" if official == "test" else "val" if line.name in held_out else "train"
            place = found.place(line.session, line.name, fps)
            if place is None:
                missing[line.name] = part
                place = {"path": f"{line.session}/{line.name}{VIDEO_SUFFIXES[0]}"}
            if line.name not in missing or keep_missing:
                labels = {"verb": verbs.names[line.verb], "noun": [nouns.names[k] for k in line.nouns]}
                rows.append({"clip_id": line.name, "split": part, "group": line.subject, **labels, **place})
    if not rows:
        example = parts["train"][0]
        raise UserError(
            f"none of the {len(missing)} annotated clips is below {clips}; looked for files such as "
            f"{clips / example.session / example.name}{VIDEO_SUFFIXES[0]}; --keep-missing lists them all the same"
        )
    kept = (
        ["clips that are not on disk are in the manifest all the same (--keep-missing)"]
        if missing and keep_missing
        else []
    )
    return write_import(
        out, rows, [Task("verb", verbs, "single"), Task("noun", nouns, "multi")], found.root, missing, kept
    )


def _folder_of(annotations: Path) -> Path:
    inside = annotations / "action_annotation"
    folder = inside if inside.is_dir() else annotations
    if not folder.is_dir():
        raise UserError(f"--annotations: {annotations} is not a folder")
    return folder


def _read(folder: Path, split: int) -> tuple[ClassList, ClassList, dict[str, list[Annotation]]]:
    """Read class names and both files of a split; raises one ``ManifestError`` with whatever is wrong in them."""
    problems = Problems()
    verbs = _classes(folder / "verb_idx.txt", problems)
    nouns = _classes(folder / "noun_idx.txt", problems)
    actions = _classes(folder / "action_idx.txt", problems)
    problems.raise_if_any()
    sizes = {"action": len(actions), "verb": len(verbs), "noun": len(nouns)}
    seen: dict[str, Annotation] = {}
    parts = {
        name: list(_annotations(folder / f"{name}_split{split}.txt", sizes, seen, problems))
        for name in ("train", "test")
    }
    problems.raise_if_any()
    return ClassList(verbs), ClassList(nouns), parts


def _classes(file: Path, problems: Problems) -> tuple[str, ...]:
    """Read ``name id`` lines: names may hold blanks, ids run from 1 without a gap."""
    names: list[str] = []
    for number, line in numbered_lines(file, problems):
        name, _, id_ = line.rpartition(" ")
        if not name or id_ != str(len(names) + 1) or not is_plain(name):
            problems.add(file, number, f"must be a class name and its id {len(names) + 1}, got {line!r:.80}")
        elif name in names:
            problems.add(file, number, f"class {name!r} has id {names.index(name) + 1} already")
        names.append(name)
    return tuple(names)


def _annotations(
    file: Path, sizes: Mapping[str, int], seen: dict[str, Annotation], problems: Problems
) -> Iterator[Annotation]:
    """Yield the sound lines of a split file, noting the others; ``seen`` holds the clips of both files."""
    for number, text in numbered_lines(file, problems):
        name, *fields = text.split()
        match = _NAME.fullmatch(name)
        faults = _faults(fields, sizes)
        if match is None:
            faults.insert(0, f"clip name {name!r:.80} is not <subject>-<recipe>-<start>-<end>-F<frame>-F<frame>")
        elif int(match[3]) >= int(match[4]):
            faults.insert(0, f"clip {name!r} does not start before it ends")
        if name in seen:
            before = seen[name]
            faults.append(f"clip {name!r} occurs in {before.file.name}, line {before.line}, already")
        for fault in faults:
            problems.add(file, number, fault)
        if match and not faults:
            _, verb, *nouns = (int(field) - 1 for field in fields)
            seen[name] = Annotation(name, match["session"], match["subject"], verb, tuple(nouns), file, number)
            yield seen[name]


def _faults(fields: Sequence[str], sizes: Mapping[str, int]) -> list[str]:
    """Return what is wrong with the ids of a line."""
    if len(fields) < 3:
        return [f"{len(fields)} ids after the clip name; it needs an action id, a verb id and one noun id or more"]
    faults = []
    for kind, field in zip(("action", "verb", *["noun"] * (len(fields) - 2)), fields, strict=True):
        if not (field.isascii() and field.isdigit() and 1 <= int(field[:9]) <= sizes[kind]):
            faults.append(f"{kind} id {field!r:.40} is not a whole number from 1 to {sizes[kind]}")
    if len(set(fields[2:])) < len(fields[2:]):
        faults.append("a noun occurs twice")
    return faults


def _of_subjects(lines: Sequence[Annotation], subjects: str) -> set[str]:
    """Return the names of the clips of some subjects, all of whom must occur."""
    known = sorted({line.subject for line in lines})
    wanted: set[str] = set()
    for part in subjects.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            raise UserError(f"--val-subjects: {part!r} is neither a subject such as P20 nor a range such as P20-P26")
        first, last = int(match["first"]), int(match["last"] or match["first"])
        named = [f"{match['kind']}{number:02}" for number in range(first, last + 1)]
        absent = [subject for subject in named if subject not in known]
        if absent or not named:
            raise UserError(
                f"--val-subjects: {', '.join(absent) or part} not in the training file; it has {', '.join(known)}"
            )
        wanted.update(named)
    return {line.name for line in lines if line.subject in wanted}


def _drawn(lines: Sequence[Annotation], fraction: float, seed: int) -> set[str]:
    """Return the names of a fraction of the clips; a clip's place in the draw does not depend on the others."""
    if not 0 <= fraction < 1:
        raise UserError(f"--val-fraction must be at least 0 and below 1, got {fraction}")
    by_draw = sorted((line.name for line in lines), key=lambda name: seed_of(seed, "val", name))
    return set(by_draw[: round(fraction * len(by_draw))])


def _clip_folders(folder: Path) -> ClipFolders:
    """Return the folder of the sessions, which may be the archive's own ``cropped_clips`` within the one given."""
    if not folder.is_dir():
        raise UserError(f"--clips: {folder} is not a folder")
    inside = folder / "cropped_clips"
    return ClipFolders(inside if inside.is_dir() else folder)
