"""Store one file per clip, resumable after a kill and safe for concurrent runs.

A file's name depends on its clip's id only. Beside it is its record, ``<name>.json``: a key, the digest of all inputs
(settings, the source's size and mtime), its size and sha256, and facts that the tool reads again later. The file is
moved into place when complete, then its record; a file without a record, or with another key, is made again.
Concurrent runs may make the same file twice, which only costs time.
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
UNFINISHED = "unfinished"  # folder of partially written files
MEMORY = 6 * 2**30  # bytes, limit per worker
READABLE = 60  # characters of a clip id in a file's name
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Record:
    """A finished file.

    Args:
        key: digest of all inputs.
        size, mtime_ns, sha256: of the file; size in bytes, mtime in ns.
        facts: values that the tool reads again, plain JSON.
    """

    key: str
    size: int
    mtime_ns: int
    sha256: str
    facts: dict[str, Any]


@dataclass(frozen=True)
class Store:
    """A folder of finished files, one per clip, each with its record.

    Args:
        folder: absolute.
        suffix: of the files, such as ``.mp4``.
    """

    folder: Path
    suffix: str

    def path(self, clip_id: str) -> Path:
        """Return the path of a clip's file."""
        return self.folder / f"{safe_stem(clip_id)}{self.suffix}"

    def find(self, clip_id: str, key: str) -> Record | None:
        """Return the record of a clip's file if it has this key and the file is unchanged, else ``None``."""
        path = self.path(clip_id)
        try:
            record = self.load(clip_id)
            found = path.stat()
            if (record.key, record.size) != (key, found.st_size):
                return None
            # copying a folder changes mtimes
            return record if record.mtime_ns == found.st_mtime_ns or sha256_of(path) == record.sha256 else None
        except (OSError, ValueError, TypeError):
            return None

    def load(self, clip_id: str) -> Record:
        """Return the record of a clip's file whatever its key; raises ``OSError`` if there is none."""
        return Record(**json.loads(self.path(clip_id).with_suffix(".json").read_bytes()))

    @contextmanager
    def unfinished(self) -> Iterator[Path]:
        """Yield the path of a new empty file, locked in the ``with`` block and removed after it."""
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
        with self.unfinished() as waiting:  # after a kill, ``sweep`` removes it
            waiting.write_text(_json(asdict(record), indent=None), encoding="utf-8", errors="backslashreplace")
            sync(waiting)
            unfinished.replace(path)
            waiting.replace(path.with_suffix(".json"))
        return record

    def sweep(self) -> None:
        """Remove partial files of killed runs; those of running ones are locked and kept."""
        for path in (self.folder / UNFINISHED).glob("*"):
            try:
                with path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
            except OSError:
                continue


def safe_stem(clip_id: str) -> str:
    """Return a relative file name that is unique per clip id and valid on any file system.

    >>> safe_stem("../P01/Cup")
    'f3/P01_Cup-f39f41b5a0190cda'
    """
    digest = hashlib.sha256(clip_id.encode()).hexdigest()[:16]
    readable = UNSAFE.sub("_", clip_id).strip("._-")[:READABLE] or "clip"
    return f"{digest[:2]}/{readable}-{digest}"


def key_of(*parts: Any) -> str:
    """Return the sha256 digest of plain JSON values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def state_of(source: Path) -> list[Any]:
    """Return size and mtime of a file, or those of every file of a frame folder, to detect changes."""
    found = source.stat()
    if not source.is_dir():
        return [found.st_size, found.st_mtime_ns]
    files = sorted((entry.name, entry.stat()) for entry in os.scandir(source))
    return [[name, each.st_size, each.st_mtime_ns] for name, each in files]


def claim(folder: Path, settings: Mapping[str, Any], result: str, *, dry_run: bool = False) -> None:
    """Write the settings of an output folder, or check that they equal those of an earlier run.

    Args:
        folder: created if it does not exist.
        settings: plain JSON.
        result: name of the file that is written last; if it exists without settings, another program made it.
        dry_run: only check, write nothing.

    Raises:
        UserError: the folder has other settings (says which), or a result of another program.
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
    """Write JSON atomically; values that JSON does not have, such as paths, are written as ``str``."""
    write_whole(path, _json(content, indent))


def _json(content: Any, indent: int | None) -> str:
    return json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False, default=str) + "\n"


def run_jobs(
    work: Callable[[Item], Result], items: Iterable[Item], *, engine: Engine, workers: int | None, timeout: float
) -> Iterator[tuple[Item, Result | WorkerFailure]]:
    """Apply a function to items on this machine or a Ray cluster; arguments and results as for ``run_killable``."""
    if engine == "local":
        return run_killable(partial(_limited, work), items, workers=workers or os.cpu_count() or 1, timeout=timeout)
    from data_tools.jobs.ray import run_on_ray

    return run_on_ray(work, items, workers=workers, timeout=timeout)


def _limited(work: Callable[[Item], Result], item: Item) -> Result:
    limit_memory()
    return work(item)


@cache
def limit_memory() -> None:
    """Limit the memory of this process: a small damaged file can make a decoder allocate any amount."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard), hard))
