"""Read a clip of the frame cache (``hoi-data cache``): the JPEG frames of a zip that lies in a shard.

A shard is an uncompressed zip with one uncompressed zip per clip, which holds the frames ``000000.jpg``,
``000001.jpg`` and so on. Both directories are small, so nothing is kept between clips: a worker keeps no shard open,
and its memory does not grow. Entries are read into memory, never written to disk.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt

from hoi_train.core.records import Clip
from hoi_train.data.opencv import decode_jpeg
from hoi_train.data.readers.base import Image, Reader, clip_error, even_times

FAULTS = (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, struct.error)

LOCAL_HEADER = struct.Struct("<4s22xHH")  # before an entry's data; the name and an extra field of these lengths follow


def frame_name(index: int) -> str:
    """Return the name of a frame in the zip of its clip."""
    return f"{index:06}.jpg"


class ZipReader(Reader):
    """Read frames of a clip with the path ``<shard>.zip/<entry>``; times are `even_times`.

    The checksum of every frame is verified, because JPEG decoders fill damaged parts with grey.
    """

    def __init__(self, clip: Clip) -> None:
        super().__init__(clip)
        with ExitStack() as opened:
            try:
                shard = opened.enter_context(clip.path.parent.open("rb", buffering=0))
                self._clip_zip = _Part(shard, *_place(shard, _entry(shard, clip.path.name)))
                self._entries = _frames(self._clip_zip)
            except FAULTS as error:
                raise clip_error(clip, f"cannot be read from its shard: {error}") from None
            self.timestamps = even_times(clip, len(self._entries))
            self._opened = opened.pop_all()

    def _decode(self, wanted: npt.NDArray[np.int64]) -> Iterator[Image]:
        for index in wanted:
            try:
                image = decode_jpeg(_read(self._clip_zip, self._entries[index]))
            except FAULTS as error:
                reason = str(error).partition("\n")[0]
                raise clip_error(self.clip, f"frame {index} is damaged in the shard: {reason}") from None
            yield image

    def close(self) -> None:
        """Close the shard."""
        self._opened.close()


class _Part(io.RawIOBase):
    """A byte range of a file, as a file."""

    def __init__(self, file: io.RawIOBase, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._start + self._at)
        read = self._file.readinto(memoryview(buffer)[: max(0, self._size - self._at)]) or 0
        self._at += read
        return read


def _entry(shard: io.RawIOBase, name: str) -> zipfile.ZipInfo:
    with zipfile.ZipFile(shard) as directory:
        if name not in directory.NameToInfo:
            raise zipfile.BadZipFile(f"it has no entry {name!r:.200}, or is damaged")
        return directory.getinfo(name)


def _frames(clip_zip: io.RawIOBase) -> list[zipfile.ZipInfo]:
    """Return the entries of a clip's frames, which must be numbered from 0."""
    with zipfile.ZipFile(clip_zip) as directory:
        entries = directory.infolist()
    for index, entry in enumerate(entries):
        if entry.filename != frame_name(index):
            raise zipfile.BadZipFile(f"its zip has {entry.filename!r:.80} where {frame_name(index)} was due")
    if not entries:
        raise zipfile.BadZipFile("its zip has no frames")
    return entries


def _place(file: io.RawIOBase, entry: zipfile.ZipInfo) -> tuple[int, int]:
    """Return start and size of an entry's bytes in a file.

    ``ZipFile.open`` would compute the checksum over a clip's whole zip, and seeks slowly.
    """
    if (entry.compress_type, entry.compress_size) != (zipfile.ZIP_STORED, entry.file_size):
        raise zipfile.BadZipFile(f"{entry.filename!r:.80} is compressed; shards store their entries as they are")
    file.seek(entry.header_offset)
    signature, name, extra = LOCAL_HEADER.unpack(file.read(LOCAL_HEADER.size) or b"")
    if signature != zipfile.stringFileHeader:  # type: ignore[attr-defined]
        raise zipfile.BadZipFile(f"{entry.filename!r:.80} is not where the directory says")
    start = entry.header_offset + LOCAL_HEADER.size + name + extra
    if start + entry.file_size > file.seek(0, io.SEEK_END):
        raise zipfile.BadZipFile(f"{entry.filename!r:.80} is said to be longer than the file")
    return start, entry.file_size


def _read(file: io.RawIOBase, entry: zipfile.ZipInfo) -> bytes:
    """Read an entry and verify its checksum."""
    start, size = _place(file, entry)
    file.seek(start)
    data = file.read(size) or b""
    if len(data) != size or zlib.crc32(data) != entry.CRC:
        raise zipfile.BadZipFile(f"bad checksum of {entry.filename}")
    return data
