"""One's own videos to a manifest with one single-label task: from folders named by class, or from lists.

Without lists, the folder of the videos holds a folder per class, or train, val and test with a folder per class in each
(other names of these, such as validation and dev, are known). A clip is a video file or a folder of frame images.

A list has a clip per line, its cells separated by tabs, commas or blanks, in one of the forms ``path label``,
``label path``, ``index label path`` and ``index path label``, where index is an ascending number and label a class
name, or its id in the file of classes. Paths are relative to the folder of the videos or to its folder of the split.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data_tools.importers.labels import read_classes, with_names
from data_tools.importers.lists import list_files, read_list
from data_tools.importers.samples import Options, Reading, Sample
from data_tools.sources import SPLIT_NAMES, find_clips
from hoi_train.core.records import SPLITS, Split, UserError
from hoi_train.data.manifest.problems import Problems


def read_folder(
    options: Options,
    *,
    train_list: Path | None = None,
    val_list: Path | None = None,
    test_list: Path | None = None,
    classes: Path | None = None,
    task: str = "label",
    group: str | None = None,
) -> Reading:
    """Read videos in folders named by class, or named in lists.

    Args:
        options: what every importer is told.
        train_list: list of the training clips, or of all clips.
        val_list: list of the val clips.
        test_list: list of the test clips.
        classes: file of class names for the labels of lists, a name (ids from 0) or an id and a name per line.
        task: name of the task.
        group: regular expression; clips in whose paths it (or its first parenthesis) finds the same are of one group.

    Raises:
        UserError: no clips in a form that is known, splits without train, or ``group`` finds nothing in a path.
    """
    lists = list_files(train_list, val_list, test_list) if train_list or val_list or test_list else {}
    if classes and not lists:
        raise UserError("--classes gives the names of the labels in lists; name a list with --list or --train-list")
    root, problems, passed_over = options.videos.resolve(), Problems(), Counter[str]()
    pattern = None if group is None else _pattern(group)
    if lists:
        samples = [one for split, file in lists.items() for one in read_list(file, split, root, task, problems)]
        names = _sorted({name for sample in samples for name in sample.names(task)})
        if classes:
            known = read_classes(classes, problems)
            samples, names = with_names(samples, task, known, problems), list(known.values())
        listed = {sample.video for sample in samples}
        unlisted = sum(path not in listed for path in find_clips(root, root, passed_over)) if not problems.total else 0
        passed_over["video or frame folder that is in no list"] = unlisted
    else:
        samples = _in_folders(root, task, passed_over)
        names = sorted({name for sample in samples for name in sample.names(task)})
    remarks = Counter({f"passed over, {what}": count for what, count in passed_over.most_common()})
    return Reading(_grouped(samples, pattern) if pattern else samples, {task: (names, "single")}, problems, remarks)


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise UserError(f"--group {text!r} is not a regular expression: {error}") from None


def _sorted(labels: set[str]) -> list[str]:
    """Return labels in their order, which is that of their numbers if all are."""
    are_ids = all(label.isascii() and label.isdigit() and len(label) < 10 for label in labels)
    return sorted(labels, key=lambda label: (int(label) if are_ids else 0, label))


def _grouped(samples: Sequence[Sample], pattern: re.Pattern[str]) -> list[Sample]:
    """Name the group of each sample by what a pattern finds in its path."""
    found = [(sample, pattern.search(sample.video)) for sample in samples]
    named = [replace(sample, group=match[min(1, pattern.groups)]) for sample, match in found if match]
    without = sorted({sample.video for sample in samples} - {sample.video for sample in named if sample.group})
    if without:
        raise UserError(
            f"--group '{pattern.pattern}' finds nothing in the paths of {len(without)} of {len(samples)} clips, such "
            f"as {without[0]!r}; every clip needs a group, or none of them"
        )
    return named


def _in_folders(root: Path, task: str, passed_over: Counter[str]) -> list[Sample]:
    tops = [top for top in _visible(root) if top.is_dir()]
    named = {top: SPLIT_NAMES[top.name.lower()] for top in tops if top.name.lower() in SPLIT_NAMES}
    splits: Mapping[Path, Split] = {root: "train"}
    if "train" in named.values():
        splits = named
        _refuse_twice(splits)
        passed_over.update(f"folder {top.name!r} beside train" for top in sorted(set(tops) - set(splits)))
    samples: list[Sample] = []
    for top, split in splits.items():
        samples += _in_class_folders(root, top, split, task, passed_over)
    if not samples:
        raise UserError(
            f"no clips in {root}: it must hold one folder per class with video files or frame folders in it, "
            "or train, val and test with such folders; or name lists with --list or --train-list"
        )
    if "train" not in named.values():
        classes_with_folders = {sample.names(task)[0] for sample in samples if sample.video.count("/") > 1}
        _refuse_without_train(root, [top.name for top in named], len(tops), classes_with_folders)
    return samples


def _in_class_folders(root: Path, top: Path, split: Split, task: str, passed_over: Counter[str]) -> Iterator[Sample]:
    for child in _visible(top):
        if not child.is_dir():
            passed_over[f"{child.suffix or 'unnamed'} file outside the class folders"] += 1
            continue
        paths = list(find_clips(root, child, passed_over))
        yield from (Sample(path, path, split, {task: child.name}, root / path) for path in paths)
        if not paths:
            passed_over[f"folder {child.relative_to(root).as_posix()!r} without a clip"] += 1


def _refuse_twice(splits: Mapping[Path, Split]) -> None:
    for split in SPLITS:
        named = sorted(top.name for top, of in splits.items() if of == split)
        if len(named) > 1:
            raise UserError(f"folders {' and '.join(named)} both mean {split}; rename or remove one")


def _refuse_without_train(root: Path, named: Sequence[str], num_tops: int, with_folders: set[str]) -> None:
    """Refuse folders that seem to be splits; one among classes that holds videos itself is a class, too."""
    if len(named) == num_tops or not with_folders.isdisjoint(named):
        raise UserError(
            f"{root}: {' and '.join(named)} named like a split, and no folder like train; add train with a folder per "
            "class, or rename the folder if it is a class, or name lists with --list, --val-list or --test-list"
        )


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.name[0] != ".")
