"""``dataset.json``, the file beside a manifest with its data root and the ordered classes of every task."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Len, MinLen
from pydantic import AfterValidator, Field, ValidationError, model_validator

from hoi_train.core.paths import is_plain
from hoi_train.core.records import ClassList, LabelKind, Task
from hoi_train.core.schema import Strict, explain
from hoi_train.core.strict_json import JSONError, read_json
from hoi_train.data.manifest.problems import ManifestError, Problem, Problems

DATASET_FILE = "dataset.json"
EXAMPLE = '{"root": ".", "tasks": {"verb": {"labels": "single", "classes": ["take", "put"]}}}'
CLIP_COLUMNS = (
    *("clip_id", "path", "start", "end", "split", "group", "num_frames", "fps"),
    *("width", "height", "pairs", "tracks"),
)
_TASK_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_PAIR_MULTI = 'a task of pairs is multi-label; write "labels": "multi"'


def read_dataset(folder: Path) -> tuple[Path, dict[str, Task], ClassList | None]:
    """Read ``dataset.json`` in a folder.

    Returns:
        The data root, which may not exist; the tasks by name, in the order of the file; the classes of the objects.

    Raises:
        ManifestError: lists everything that is wrong in the file.
    """
    file = folder / DATASET_FILE
    if not file.is_file():
        text = f"no such file; it says where the videos are and lists the classes, for example {EXAMPLE}"
        raise ManifestError((Problem(file, None, text),), 1)
    problems = Problems()
    try:
        found = read_json(file)
        if not isinstance(found, dict):
            raise JSONError(f"must hold an object such as {EXAMPLE}")
        content = _Dataset.model_validate(found)
    except JSONError as error:
        raise ManifestError((Problem(file, error.line, str(error)),), 1) from None
    except ValidationError as error:
        for line in explain(error, _Dataset):
            problems.add(file, None, f"{line:.500}")
        problems.raise_if_any()
    objects = None if content.object_classes is None else ClassList(tuple(content.object_classes))
    return folder / content.root, {name: entry.task(name) for name, entry in content.tasks.items()}, objects


def dataset_json(root: Path, folder: Path, tasks: Sequence[Task], object_classes: ClassList | None) -> str:
    """Return the text of ``dataset.json`` for a manifest in ``folder``; a root inside it is written relative to it."""
    root, folder = root.resolve(), folder.resolve()
    shown = root.relative_to(folder) if root.is_relative_to(folder) else root
    described: dict[str, dict[str, Any]] = {}
    for task in tasks:
        of = {} if task.of == "clip" else {"of": task.of}
        described[task.name] = {"labels": task.labels, **of, "classes": list(task.classes)}
        if task.mirrored:
            names = task.classes.names
            described[task.name]["mirrored"] = [[names[one], names[other]] for one, other in task.mirrored]
    objects = {} if object_classes is None else {"object_classes": list(object_classes)}
    return json.dumps({"root": shown.as_posix(), **objects, "tasks": described}, indent=1, ensure_ascii=False) + "\n"


def check_tasks(tasks: Sequence[Task], object_classes: ClassList | None) -> None:
    """Raise ``ValueError`` on names that a manifest cannot hold; for tasks and classes built in a program."""
    names = [task.name for task in tasks]
    texts = [text for text in map(task_name_fault, names) if text]
    texts += [f"task {task.name!r}: {fault}" for task in tasks if (fault := class_names_fault(task.classes))]
    if object_classes and (fault := class_names_fault(object_classes)):
        texts.append(f"object_classes: {fault}")
    texts += [f"task {name!r} occurs twice" for name in sorted({name for name in names if names.count(name) > 1})]
    texts += [f"task {task.name!r}: {_PAIR_MULTI}" for task in tasks if task.of == "pair" and task.labels != "multi"]
    if not names:
        texts.append("a manifest needs at least one task")
    if texts:
        raise ValueError("; ".join(texts))


def task_name_fault(name: str) -> str | None:
    """Return the fault of a task's name, or ``None``."""
    if name in CLIP_COLUMNS:
        return f"a task cannot be called {name!r}: that column is about the clip"
    if not _TASK_NAME.fullmatch(name):
        return f"task name {name!r} must begin with a letter and consist of letters, digits, '_' and '-'"
    return None


def class_names_fault(names: Iterable[str]) -> str | None:
    """Return the fault of class names beyond what a ``ClassList`` checks, or ``None``."""
    odd = next((name for name in names if not is_plain(name)), None)
    return None if odd is None else f"class name {odd!r:.80} contains control characters"


def _check_classes(names: list[str]) -> list[str]:
    if fault := class_names_fault(ClassList(tuple(names))):
        raise ValueError(fault)
    return names


_Classes = Annotated[list[str], AfterValidator(_check_classes)]


class _TaskEntry(Strict):
    labels: LabelKind
    classes: _Classes
    of: Literal["clip", "pair"] = "clip"
    mirrored: list[Annotated[list[str], Len(2, 2)]] = Field(default=[])

    @model_validator(mode="after")
    def _fits(self) -> _TaskEntry:
        mirrored = [name for pair in self.mirrored for name in pair]
        if self.of == "pair" and self.labels == "single":
            raise ValueError(_PAIR_MULTI)
        if len({*mirrored}) != len(mirrored) or not {*mirrored} <= {*self.classes}:
            raise ValueError("mirrored must be pairs of its classes, each class once")
        return self

    def task(self, name: str) -> Task:
        classes = ClassList(tuple(self.classes))
        mirrored = tuple((classes.index(one), classes.index(other)) for one, other in self.mirrored)
        return Task(name, classes, self.labels, self.of, mirrored)


class _Dataset(Strict):
    root: Any = "."  # pydantic refuses text with surrogates, which file names can hold
    tasks: Annotated[dict[str, _TaskEntry], MinLen(1)]
    object_classes: _Classes | None = None

    @model_validator(mode="after")
    def _names(self) -> _Dataset:
        faults = [fault for name in self.tasks if (fault := task_name_fault(name))]
        if not isinstance(self.root, str) or not self.root or "\0" in self.root:
            faults.append(f"root must be the path of a folder, got {self.root!r}")
        if faults:
            raise ValueError("; ".join(faults))
        return self
