"""Read a JSON file of any size piece by piece: the elements of its array, or the members of its object.

Only a window of the text is in memory. A piece is decoded whole by the strict decoder, so its size is the limit.

Measured against ijson 3.6 (yajl2_c): VidHOI's records 23 MB/s here and 25 there, its trajectories 11 and 13, the same
memory. But ijson lets repeated keys pass, does not say which record is wrong and at which byte, refuses a byte order
mark, and its memory grows with the square of the depth: 100,000 opening brackets took over 20 GB.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from hoi_train.core import strict_json
from hoi_train.data.manifest.problems import LISTED, Problems

CHUNK = 1 << 20  # bytes read at a time, at least
_BLANKS = re.compile(r"[ \t\n\r]*")
_LITERAL = 16  # letters within which a cut-off number or word is misread


class JsonStreamError(ValueError):
    """The text is not what was asked for; it says where, by piece and byte. Nothing after it can be read."""


class JsonStream:
    """A JSON file that holds one array or one object.

    Args:
        file: the file, UTF-8, with or without a byte order mark.
        longest: characters of a single piece that are read before the file is given up.

    Attributes:
        number: which piece was given last, from 1.
        offset: the byte of the file at which it begins, from 0.
    """

    def __init__(self, file: Path, *, longest: int = CHUNK) -> None:
        self.file, self.longest = file, longest
        self.number = self.offset = 0
        self._decode = strict_json.DECODER.raw_decode
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at, self._read, self._ended = "", 0, 0, False
        self._mark, self._mark_offset = 0, 0  # a place in the window, and its byte in the file

    def elements(self) -> Iterator[Any]:
        """Yield the elements of the file's array; raises ``JsonStreamError``."""
        with self._opened() as self._binary:
            for _ in self._pieces("[", "]", "an array"):
                yield self._value()

    def members(self) -> Iterator[tuple[str, Any]]:
        """Yield the names and values of the file's object; raises ``JsonStreamError``."""
        with self._opened() as self._binary:
            for _ in self._pieces("{", "}", "an object"):
                name = self._value()
                if not isinstance(name, str):
                    raise self._fault(f"a name in quotes must come here, got {name!r:.40}")
                self._must(":")
                yield name, self._value()

    def note(self, problems: Problems, text: str) -> None:
        """Note what is wrong with the piece given last; of one file the first ``LISTED`` faults are kept."""
        self._noted += 1
        if self._noted > LISTED:
            problems.total += 1
        else:
            problems.add(self.file, None, f"record {self.number} (byte {self.offset}): {text}")

    _binary: BinaryIO
    _noted = 0

    def _opened(self) -> BinaryIO:
        if not self.file.is_file():  # a pipe would be waited for
            raise JsonStreamError("a folder, not a file" if self.file.is_dir() else "not a regular file")
        return self.file.open("rb")

    def _pieces(self, opening: str, closing: str, kind: str) -> Iterator[None]:
        if self._next() == "\ufeff":
            self._at += 1
        if self._next() != opening:
            came = f"it begins with {self._next()!r}" if self._next() else "it is empty"
            raise JsonStreamError(f"not JSON that holds {kind}: {came}")
        self._at += 1
        while self._next() != closing:
            if self.number:
                self._must(",", closing)
                self._next()
            self.number += 1
            self.offset = self._byte()
            yield
            if self._next() == closing:
                break
        self._at += 1
        if self._next():
            raise self._fault(f"the file goes on with {self._next()!r} after the closing {closing!r}")

    def _value(self) -> Any:
        self._next()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
                # what is a number here may have more digits in the next window
                if self._ended or end < len(self._text) - _LITERAL or not isinstance(value, (int, float)):
                    self._at = end
                    return value
            except json.JSONDecodeError as error:
                if self._ended or not (error.pos > len(self._text) - _LITERAL or error.msg.startswith("Untermin")):
                    self._at = min(error.pos, len(self._text))
                    raise self._fault(f"not JSON: {error.msg}") from None
            except ValueError as error:  # a repeated key, NaN, or a number of more digits than Python reads
                raise self._fault(f"not JSON: {error}") from None
            except RecursionError:
                raise self._fault("not JSON: nested too deeply") from None
            if len(self._text) - self._at > self.longest:
                raise self._fault(f"no end of the record within {self.longest} characters")
            self._more()

    def _must(self, *allowed: str) -> None:
        if self._next() != allowed[0]:
            came = repr(self._next()) if self._next() else "the end of the file"
            raise self._fault(f"not JSON: {' or '.join(map(repr, allowed))} must come here, got {came}")
        self._at += 1

    def _next(self) -> str:
        """Pass over blanks and return the next letter, or an empty text at the end of the file."""
        while True:
            blanks = _BLANKS.match(self._text, self._at)
            self._at = blanks.end() if blanks else self._at
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more()

    def _more(self) -> None:
        """Drop what has been used of the window, and read at least as much as is left in it."""
        self._mark_offset, self._mark = self._byte(), 0
        rest = self._text[self._at :]
        data = self._binary.read(max(CHUNK, len(rest)))
        waiting = len(self._decoder.getstate()[0])
        try:
            self._text = rest + self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            text = f"not UTF-8 text: byte 0x{error.object[error.start]:02x} at {self._read - waiting + error.start}"
            raise JsonStreamError(text) from None
        self._read += len(data)
        self._at, self._ended = 0, not data

    def _byte(self) -> int:
        """Return the byte of the file at which the window's current place is."""
        passed = self._text[self._mark : self._at]
        self._mark_offset += len(passed) if passed.isascii() else len(passed.encode())
        self._mark = self._at
        return self._mark_offset

    def _fault(self, text: str) -> JsonStreamError:
        return JsonStreamError(f"record {self.number} (byte {self._byte()}): {text}")
