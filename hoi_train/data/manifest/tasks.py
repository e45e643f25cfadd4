"""``dataset.json``, the file beside a manifest with its data root and the ordered classes of every task."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hoi_train.core.paths import is_plain
from hoi_train.core.records import ClassList, Task, nearest
from hoi_train.core.strict_json import JSONError, read_json
from hoi_train.data.manifest.problems import ManifestError, Problem, Problems

DATASET_FILE = "dataset.json"
EXAMPLE = '{"root": ".", "tasks": {"verb": {"labels": "single", "classes": ["take", "put"]}}}'
CLIP_COLUMNS = (
    *("clip_id", "path", "start", "end", "split", "group", "num_frames", "fps"),
    *("width", "height", "pairs", "tracks"),
)

_TASK_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


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
    try:
        content = read_json(file)
    except JSONError as error:
        raise ManifestError((Problem(file, error.line, str(error)),), 1) from None
    problems = Problems()
    checker = _Checker(file, problems)
    root, tasks, object_classes = checker.dataset(content)
    problems.raise_if_any()
    return folder / root, tasks, object_classes


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
    texts += [_PAIR_MULTI.format(task.name) for task in tasks if task.of == "pair" and task.labels != "multi"]
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


_PAIR_MULTI = 'task {0!r}: a task of pairs is multi-label; write "labels": "multi"'


class _Checker:
    """Convert the parsed JSON to tasks and note its faults."""

    def __init__(self, file: Path, problems: Problems) -> None:
        self.file = file
        self.problems = problems

    def note(self, text: str) -> None:
        self.problems.add(self.file, None, text)

    def keys(self, where: str, came: Mapping[str, Any], allowed: Sequence[str]) -> None:
        for key in came:
            if key not in allowed:
                self.note(f"{where}unknown key {key!r:.80}{nearest(key[:80], allowed)} (allowed: {', '.join(allowed)})")

    def dataset(self, content: Any) -> tuple[str, dict[str, Task], ClassList | None]:
        if not isinstance(content, dict):
            self.note(f"must hold an object such as {EXAMPLE}")
            return ".", {}, None
        self.keys("", content, ("root", "tasks", "object_classes"))
        root = content.get("root", ".")
        if not isinstance(root, str) or not root or "\0" in root:
            self.note(f"root must be the path of a folder, got {root!r}")
            root = "."
        described = content.get("tasks")
        if not isinstance(described, dict) or not described:
            self.note(f"tasks must describe at least one task, for example {EXAMPLE}")
            described = {}
        tasks = {name: task for name, value in described.items() if (task := self.task(name, value)) is not None}
        objects = self.classes("object_classes", content["object_classes"]) if "object_classes" in content else None
        return root, tasks, objects

    def task(self, name: str, came: Any) -> Task | None:
        before = self.problems.total
        fault = task_name_fault(name)
        if fault:
            self.note(fault)
        if not isinstance(came, dict):
            self.note(f"task {name!r} must be an object with labels and classes, got {came!r:.80}")
            return None
        self.keys(f"task {name!r}: ", came, ("labels", "classes", "of", "mirrored"))
        labels: Any = came.get("labels")
        of: Any = came.get("of", "clip")
        if labels not in ("single", "multi"):
            self.note(f'task {name!r}: labels must be "single" or "multi", got {labels!r:.80}')
        if of not in ("clip", "pair"):
            self.note(f'task {name!r}: of must be "clip" or "pair", got {of!r:.80}')
        elif of == "pair" and labels == "single":
            self.note(_PAIR_MULTI.format(name))
        classes = self.classes(f"task {name!r}: classes", came.get("classes"))
        mirrored = self.mirrored(name, came.get("mirrored", []), classes) if classes else ()
        return None if classes is None or self.problems.total > before else Task(name, classes, labels, of, mirrored)

    def mirrored(self, name: str, came: Any, classes: ClassList) -> tuple[tuple[int, int], ...]:
        sound = isinstance(came, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in came)
        names = [entry for pair in came for entry in pair] if sound else []
        if not sound or len({*map(str, names)}) != len(names) or any(entry not in classes.names for entry in names):
            self.note(f"task {name!r}: mirrored must be pairs of its classes, each class once, got {came!r:.80}")
            return ()
        return tuple((classes.index(one), classes.index(other)) for one, other in came)

    def classes(self, where: str, came: Any) -> ClassList | None:
        if not isinstance(came, list) or not all(isinstance(entry, str) for entry in came):
            self.note(f"{where} must be the list of class names in their order, got {came!r:.80}")
            return None
        if fault := class_names_fault(came):
            self.note(f"{where}: {fault}")
            return None
        try:
            return ClassList(tuple(came))
        except ValueError as error:
            self.note(f"{where}: {error}")
            return None
