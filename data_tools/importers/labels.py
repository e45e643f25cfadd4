"""Class names for labels: from a file of them, or from the labels themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from data_tools.importers.samples import Sample
from data_tools.sources import numbered_lines
from hoi_train.core.paths import is_plain
from hoi_train.core.records import nearest
from hoi_train.data.manifest.problems import Problems

MOST_CLASSES = 2_000  # ids up to the highest make the classes where no file names them: a slip must not make millions
_ID_AND_NAME = re.compile(r"(\d+)[\t ,]+(.+)")


def read_classes(file: Path, problems: Problems) -> dict[int, str]:
    """Read class names: a name per line with ids from 0, or an id and a name; returned by ascending id."""
    lines = list(numbered_lines(file, problems))
    matches = [_ID_AND_NAME.fullmatch(line) for _, line in lines]
    numbered = all(matches)
    names: dict[int, str] = {}
    taken: set[str] = set()
    for position, (number, line) in enumerate(lines):
        match = matches[position] if numbered else None
        id_, name = (int(match[1][:9]), match[2].strip()) if match else (position, line)
        if not is_plain(name):
            problems.add(file, number, f"class name {name!r:.80} contains control characters")
        if id_ in names or name in taken:
            problems.add(file, number, f"class {name!r:.80} or its id {id_} occurs twice")
        names[id_] = name
        taken.add(name)
    return dict(sorted(names.items()))


def with_names(samples: Sequence[Sample], task: str, classes: Mapping[int, str], problems: Problems) -> list[Sample]:
    """Return the samples with class names for the labels of a task, noting unknown labels.

    Labels are class names if all of them are, else ids.
    """
    labels = {label for sample in samples for label in sample.names(task)}
    known = set(classes.values())
    are_ids = all(label.isascii() and label.isdigit() and len(label) < 10 for label in labels) and not labels <= known
    names = {label: classes.get(int(label), label) if are_ids else label for label in labels}
    unknown = {label for label in labels if (int(label) not in classes if are_ids else label not in known)}

    def fault(label: str) -> str:
        if not are_ids:
            return f"unknown class {label!r:.80}{nearest(label[:80], list(classes.values()))}"
        ids = f"{min(classes)} to {max(classes)}" if classes else "of which there are none"
        return f"label {label} is not among the class ids, {ids}"

    for file, of_file in groupby(samples, key=lambda sample: sample.file):
        bad = [(sample, label) for sample in of_file for label in sample.names(task) if label in unknown]
        _note(file, bad, fault, problems)
    return [_named(sample, task, names) for sample in samples]


def _note(file: Path, bad: list[tuple[Sample, str]], fault: Callable[[str], str], problems: Problems) -> None:
    """Note samples of a file that have an unknown label; the texts are made for the first ones only."""
    if bad:
        unit = bad[0][0].unit
        problems.add_rows(file, range(len(bad)), lambda k: fault(bad[k][1]), lambda k: bad[k][0].row or 0, unit)


def _named(sample: Sample, task: str, names: Mapping[str, str]) -> Sample:
    labels = sample.labels[task]
    named = names[labels] if isinstance(labels, str) else list(dict.fromkeys(names[label] for label in labels))
    return replace(sample, labels={**sample.labels, task: named})


def id_classes(labels: Iterable[str]) -> list[str]:
    """Return names for classes that no file names: if labels are ids, all ids up to the highest, so that ids stay."""
    found = set(labels)
    if all(re.fullmatch("0|[1-9][0-9]{0,8}", label) and int(label) < MOST_CLASSES for label in found):
        return [str(id_) for id_ in range(max(map(int, found), default=-1) + 1)]
    return sorted(found)
