"""Work that makes a file of every clip: resumable after a kill, and safe to run twice at once.

A file's name comes from its clip's id and nothing else. Beside it lies its record, ``<name>.json``: a key that stands
for all that it was made from (settings, the source's size and time of change), its size and sha256, and facts that the
tool wants to know again. The file is moved into place whole, its record after it; what has no record, or one of another
key, is made anew. Two runs at once may make the same file twice, which costs time and nothing else.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import resource
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from data_tools.jobs.killable import WorkerFailure, run_killable
from hoi_train.core.disk import sha256_of, sync, write_whole
from hoi_train.core.records import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")
Engine = Literal["local", "ray"]

SETTINGS = "settings.json"
UNFINISHED = "unfinished"  # folder of what is being written
MEMORY = 6 * 2**30  # bytes that a worker may take
READABLE = 60  # letters of an id that a file's name shows
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Record:
    """A finished file.

    Args:
        key: stands for what it was made from.
        size, mtime_ns, sha256: of the file.
        facts: what the tool keeps about it; plain JSON.
    """

    key: str
    size: int
    mtime_ns: int
    sha256: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Store:
    """A folder of finished files, one a clip, each with its record.

    Args:
        folder: absolute.
        suffix: of the files, such as ``.mp4``.
    """

    folder: Path
    suffix: str

    def path(self, clip_id: str) -> Path:
        """Return where a clip's file is or will be."""
        return self.folder / f"{safe_stem(clip_id)}{self.suffix}"

    def find(self, clip_id: str, key: str) -> Record | None:
        """Return the record of a clip's file if it was made from what the key stands for and is still whole."""
        path = self.path(clip_id)
        try:
            record = self.load(clip_id)
            found = path.stat()
            if (record.key, record.size) != (key, found.st_size):
                return None
            # a copied folder has other times
            return record if record.mtime_ns == found.st_mtime_ns or sha256_of(path) == record.sha256 else None
        except (OSError, ValueError, TypeError):
            return None

    def load(self, clip_id: str) -> Record:
        """Return the record of a clip's file, whatever it was made from; raises ``OSError`` if there is none."""
        return Record(**json.loads(self.path(clip_id).with_suffix(".json").read_bytes()))

    @contextmanager
    def unfinished(self) -> Iterator[Path]:
        """Give a new empty file to write to, which is locked while it is written and gone afterwards."""
        folder = self.folder / UNFINISHED
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{secrets.token_hex(12)}{self.suffix}"
        with path.open("xb") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)

    def keep(self, clip_id: str, key: str, unfinished: Path, facts: Mapping[str, Any]) -> Record:
        """Move a written file into place, then its record."""
        path = self.path(clip_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        sync(unfinished)
        found = unfinished.stat()
        record = Record(key, found.st_size, found.st_mtime_ns, sha256_of(unfinished), dict(facts))
        with self.unfinished() as waiting:  # a kill leaves it where `sweep` finds it
            waiting.write_text(_json(asdict(record), indent=None), encoding="utf-8", errors="backslashreplace")
            sync(waiting)
            unfinished.replace(path)
            waiting.replace(path.with_suffix(".json"))
        return record

    def sweep(self) -> None:
        """Remove what killed runs left half written; what a running one writes is locked and stays."""
        for path in (self.folder / UNFINISHED).glob("*"):
            try:
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
            except OSError:
                continue


def safe_stem(clip_id: str) -> str:
    """Return a relative name that is one clip's alone on any disk, whatever letters its id has.

    >>> safe_stem("../P01/Cup")
    'f3/P01_Cup-f39f41b5a0190cda'
    """
    digest = hashlib.sha256(clip_id.encode()).hexdigest()[:16]
    readable = UNSAFE.sub("_", clip_id).strip("._-")[:READABLE] or "clip"
    return f"{digest[:2]}/{readable}-{digest}"


def key_of(*parts: Any) -> str:
    """Return a digest of plain JSON values: the same values, the same key."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def state_of(source: Path) -> list[Any]:
    """Return what changes when a file changes, or any file of a frame folder: sizes and times of change."""
    found = source.stat()
    if not source.is_dir():
        return [found.st_size, found.st_mtime_ns]
    files = sorted((entry.name, entry.stat()) for entry in os.scandir(source))
    return [[name, each.st_size, each.st_mtime_ns] for name, each in files]


def claim(folder: Path, settings: Mapping[str, Any], result: str, *, dry_run: bool = False) -> None:
    """Note a folder's settings the first time; afterwards refuse others.

    Args:
        folder: made if it is not there.
        settings: as they will be compared.
        result: name of the file that will be written last; one that is there without settings is somebody else's.
        dry_run: only look.

    Raises:
        UserError: the folder was made with other settings; says which. Or the result is somebody else's.
    """
    path = folder / SETTINGS
    if not path.exists():
        if (folder / result).exists():
            raise UserError(f"{folder / result}: not made by this tool, which would replace it; give another --out")
        if dry_run:
            return
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, settings)
    try:
        found = json.loads(path.read_bytes())
        other = {name: value for name, value in found.items() if settings.get(name) != value}
    except (ValueError, AttributeError):
        raise UserError(f"{path}: not the settings that this tool writes; give another --out") from None
    if other or found.keys() != settings.keys():
        changes = ", ".join(f"{name} {value!r}, now {settings.get(name)!r}" for name, value in other.items())
        text = f"made with other settings ({changes or 'of another version'})"
        raise UserError(f"{folder}: {text}; give the same ones, or another --out")


def write_json(path: Path, content: Any, *, indent: int | None = 1) -> None:
    """Write plain values as JSON, whole; other objects by their text, such as paths."""
    write_whole(path, _json(content, indent))


def _json(content: Any, indent: int | None) -> str:
    return json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def run_jobs(
    work: Callable[[Item], Result], items: Iterable[Item], *, engine: Engine, workers: int | None, timeout: float
) -> Iterator[tuple[Item, Result | WorkerFailure]]:
    """Apply a function to items, here or on a Ray cluster; see ``run_killable``, whose promises both keep."""
    if engine == "local":
        return run_killable(partial(_limited, work), items, workers=workers or os.cpu_count() or 1, timeout=timeout)
    from data_tools.jobs.ray import run_on_ray

    return run_on_ray(work, items, workers=workers, timeout=timeout)


def _limited(work: Callable[[Item], Result], item: Item) -> Result:
    limit_memory()
    return work(item)


@cache
def limit_memory() -> None:
    """Limit the memory of this process: a small file can make a decoder ask for any amount."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard), hard))
