"""One's own videos to a manifest with one single-label task: from folders named by class, or from lists."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_tools.importers.lists import Listing, label_names, read_classes, read_list
from data_tools.sources import SPLIT_NAMES, Imported, count_images, find_clips, is_clip, with_val, write_import
from hoi_train.core.records import SPLITS, ClassList, Split, Task, UserError
from hoi_train.data.manifest.problems import Problems
from hoi_train.data.manifest.tasks import task_name_fault


@dataclass(frozen=True)
class Found:
    """A labelled clip, its path relative to the data root."""

    path: str
    label: str
    split: Split
    group: str | None = None


@dataclass
class Search:
    """What was found in folders or lists."""

    clips: list[Found] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)


def import_folder(
    folder: Path,
    out: Path,
    *,
    lists: Mapping[Split, Path] | None = None,
    classes: Path | None = None,
    task: str = "label",
    group: re.Pattern[str] | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    fps: float | None = None,
) -> Imported:
    """Write the manifest of a folder of videos.

    Args:
        folder: the data root.
        out: where to write.
        lists: list files by split, instead of folders named by class.
        classes: class names for the labels of the lists.
        task: name of the task.
        group: clips are of one group where this finds the same in their paths: its first parenthesis, or without one
            the whole.
        val_fraction: how much of each class of train, or of its groups, becomes val, if no val videos are given; the
            number is rounded, and at least one stays in train.
        seed: of that draw.
        fps: frames a second of frame folders.

    Raises:
        ManifestError: with everything that is wrong in the lists, each with file and line.
        UserError: the folder is missing, or holds no clips in a form that is known, or splits without train, or
            ``group`` does not find anything in a clip's path.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    if not 0 <= val_fraction < 1:
        raise UserError(f"--val-fraction must be at least 0 and below 1, got {val_fraction}")
    if fault := task_name_fault(task):
        raise UserError(f"--task: {fault}")
    if classes and not lists:
        raise UserError("--classes gives the names of the labels in lists; name a list with --list or --train-list")
    search, names = _in_lists(folder, lists, classes) if lists else _in_folders(folder)
    try:
        tasks = [Task(task, ClassList(tuple(names)), "single")]
    except ValueError as error:
        raise UserError(f"{folder}: {error}; got {names}") from None
    clips = _grouped(search.clips, group) if group else search.clips
    clips, drawn = with_val(clips, lambda clip: (clip.path, clip.label), val_fraction, seed)
    rows = [_row(folder, clip, task, fps) for clip in clips]
    notes = [f"passed over: {count} × {what}" for what, count in search.passed_over.most_common()]
    if drawn:
        notes.append(f"no val videos were given: {drawn} of train were drawn for val (--val-fraction {val_fraction})")
    elif val_fraction and not any(clip.split == "val" for clip in clips):
        few = "too few groups" if group else "every class is too small"
        notes.append(f"no val clips: {few} to draw any (--val-fraction {val_fraction})")
    empty = sorted(set(names) - {clip.label for clip in clips}, key=names.index)
    if empty:
        notes.append(f"classes without a clip: {', '.join(empty)}")
    return write_import(out, rows, tasks, folder, search.missing, notes)


def _row(folder: Path, clip: Found, task: str, fps: float | None) -> dict[str, Any]:
    path = folder / clip.path
    frames = {"num_frames": count_images(path), "fps": fps} if path.is_dir() else {}
    return {
        "clip_id": clip.path,
        "path": clip.path,
        "split": clip.split,
        "group": clip.group,
        task: clip.label,
        **frames,
    }


def _grouped(clips: Sequence[Found], pattern: re.Pattern[str]) -> list[Found]:
    """Name the group of each clip by what a pattern finds in its path."""
    found = [(clip, pattern.search(clip.path)) for clip in clips]
    named = [replace(clip, group=match[min(1, pattern.groups)]) for clip, match in found if match]
    without = sorted({clip.path for clip in clips} - {clip.path for clip in named if clip.group})
    if without:
        raise UserError(
            f"--group '{pattern.pattern}' finds nothing in the paths of {len(without)} of {len(clips)} clips, such as "
            f"{without[0]!r}; every clip needs a group, or none of them"
        )
    return named


def _in_lists(folder: Path, lists: Mapping[Split, Path], classes: Path | None) -> tuple[Search, list[str]]:
    problems = Problems()
    known = read_classes(classes, problems) if classes else None
    tops = [top for top in _visible(folder) if top.is_dir()]
    listings: dict[Split, Listing] = {}
    for split, file in lists.items():
        bases = [folder, *(top for top in tops if SPLIT_NAMES.get(top.name.lower()) == split)]
        listings[split] = read_list(file, bases, problems)
    names, name_of = label_names(list(listings.values()), known, problems)
    search = Search()
    seen: dict[str, str] = {}
    for split, listing in listings.items():
        for entry in listing.entries:
            path = listing.base / entry.path
            relative = path.relative_to(folder).as_posix()
            if relative in seen:
                problems.add(listing.file, entry.line, f"clip {entry.path!r:.80} is in {seen[relative]} already")
            elif is_clip(path):
                search.clips.append(Found(relative, name_of[entry.label], split))
            else:
                search.missing[relative] = split
            seen.setdefault(relative, f"{listing.file.name}, line {entry.line}")
    problems.raise_if_any()
    if not search.clips:
        raise UserError(
            f"none of the {len(search.missing)} clips in the lists is below {folder}; "
            f"looked for files such as {folder / next(iter(search.missing))}"
        )
    unlisted = sum(clip.path not in seen for clip in _clips(folder, folder, "", "train", search))
    if unlisted:
        search.passed_over["video or frame folder that is in no list"] = unlisted
    return search, names


def _in_folders(folder: Path) -> tuple[Search, list[str]]:
    tops = [top for top in _visible(folder) if top.is_dir()]
    named = {top: SPLIT_NAMES[top.name.lower()] for top in tops if top.name.lower() in SPLIT_NAMES}
    splits, search = named, Search()
    if "train" in splits.values():
        _refuse_twice(splits)
        for top in sorted(set(tops) - set(splits)):
            search.passed_over[f"folder {top.name!r} beside train"] += 1
    else:
        splits = {folder: "train"}
    names: set[str] = set()
    for top, split in splits.items():
        for child in _visible(top):
            if not child.is_dir():
                search.passed_over[f"{child.suffix or 'unnamed'} file outside the class folders"] += 1
                continue
            found = list(_clips(folder, child, child.name, split, search))
            search.clips += found
            names.update([child.name] if found else ())
            if not found:
                search.passed_over[f"folder {child.relative_to(folder).as_posix()!r} without a clip"] += 1
    if not search.clips:
        raise UserError(
            f"no clips in {folder}: it must hold one folder a class with video files or frame folders in it, "
            "or train, val and test with such folders; or name lists with --list or --train-list"
        )
    if "train" not in named.values():
        _refuse_without_train(folder, [top.name for top in named], len(tops), search.clips)
    return search, sorted(names)


def _refuse_twice(splits: Mapping[Path, Split]) -> None:
    for split in SPLITS:
        named = sorted(top.name for top, of in splits.items() if of == split)
        if len(named) > 1:
            raise UserError(f"folders {' and '.join(named)} both mean {split}; rename or remove one")


def _refuse_without_train(folder: Path, named: Sequence[str], num_tops: int, clips: Sequence[Found]) -> None:
    """Refuse folders that seem to be splits; one among classes that holds videos itself is a class, too."""
    of_classes = {clip.label for clip in clips if clip.path.count("/") > 1}
    if len(named) == num_tops or not of_classes.isdisjoint(named):
        raise UserError(
            f"{folder}: {' and '.join(named)} named like a split, and no folder like train; add train with a folder a "
            "class, or rename the folder if it is a class, or name lists with --list, --val-list or --test-list"
        )


def _clips(root: Path, top: Path, label: str, split: Split, search: Search) -> Iterator[Found]:
    """Yield the videos and frame folders below a class folder, in the order of their names."""
    for path in find_clips(root, top, search.passed_over):
        yield Found(path, label, split)


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.name[0] != ".")
