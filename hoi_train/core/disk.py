"""Durable writing of files, and detection of damaged or malicious ones."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

CHUNK = 2**20


class HashedFile:
    """A new file with size and sha256, on disk when its ``with`` block ends.

    A failed write is raised at the end of the block, not by `write`: ``torch.save`` converts an ``OSError`` of its file
    to a ``RuntimeError`` about positions, which hides the cause.

    Args:
        path: the new file.

    Raises:
        OSError: the file could not be written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        self._digest = hashlib.sha256()
        self._error: OSError | None = None
        self._file = path.open("wb", buffering=0)

    @property
    def sha256(self) -> str:
        """The hexadecimal digest of the bytes written so far."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> int:
        """Append bytes; they are ignored after an error."""
        view = memoryview(data)
        try:
            while view and self._error is None:
                written = self._file.write(view)
                self._digest.update(view[:written])
                self.size += written
                view = view[written:]
        except OSError as error:
            self._error = error
        return len(data)

    def flush(self) -> None:
        """Do nothing; ``torch.save`` calls it, and the end of the block writes to disk."""

    def __enter__(self) -> HashedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if self._error is not None:
                raise self._error
            os.fsync(self._file.fileno())


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces ``path`` when the block ends, when the file is on disk.

    If the block raises, an old file stays and the temporary one is removed. Temporary names are random, so that two
    processes may write the same file.

    Raises:
        OSError: the file could not be written; its ``filename`` is ``path``.
    """
    waiting = path.with_name(f".unfinished-{secrets.token_hex(8)}{path.suffix}")
    try:
        yield waiting
        sync(waiting)
        waiting.replace(path)
        sync(path.parent)
    except OSError as error:
        if error.filename is not None and waiting.name not in str(error.filename):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # a full disk names no file
    finally:
        waiting.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file that is old or complete after a kill or power cut; see `whole_file`.

    Args:
        path: the file; its folder must exist.
        content: bytes, or text for UTF-8; surrogates are written as escapes.
    """
    data = content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
    with whole_file(path) as waiting:
        waiting.write_bytes(data)


def sync(path: Path) -> None:
    """Force a file's bytes, or a folder's entries (new names, renamings), to disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sha256_of(path: Path) -> str:
    """Return a file's hexadecimal digest."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def free_mib(folder: Path) -> float:
    """Return the free space in MiB at an existing or future folder."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 2**20


def unpacks_within(path: Path, size: int) -> bool:
    """Return whether a ``torch.save`` file unpacks to at most ``size`` bytes.

    torch writes uncompressed archives with each entry once; compressed entries, or entries that share bytes, could fill
    any memory. Raises ``zipfile.BadZipFile`` if it is no archive.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    return stored and sum(entry.file_size for entry in entries) <= size
