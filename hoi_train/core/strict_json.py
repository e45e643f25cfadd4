"""Strict JSON: no repeated keys, no NaN or infinity, read or written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class JSONError(ValueError):
    """Text that is not strict JSON.

    Args:
        text: the problem, with its column if known.
        line: number of the line, from 1; ``None`` if not known.
    """

    def __init__(self, text: str, line: int | None = None) -> None:
        super().__init__(text)
        self.line = line


def parse_json(data: str | bytes) -> Any:
    """Parse JSON in which no object has a key twice and no number is NaN or infinite.

    Args:
        data: the text; bytes are UTF-8, with or without a byte order mark.

    Raises:
        JSONError: with the problem and its line.
    """
    try:
        return DECODER.decode(data if isinstance(data, str) else data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise JSONError(f"not JSON: {error.msg}, column {error.colno}", error.lineno) from None
    except RecursionError:
        raise JSONError("not JSON: nested too deeply") from None
    except ValueError as error:
        raise JSONError(f"not JSON: {error}") from None


def read_json(path: Path) -> Any:
    """Read a file with `parse_json`; raises ``OSError`` if it cannot be read."""
    return parse_json(path.read_bytes())


def finite(value: Any) -> Any:
    """Return a value with ``None`` in place of every nan and infinity, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def number(value: float | None) -> float:
    """Return a number that was read from JSON, nan for ``None``: the inverse of `finite`."""
    return math.nan if value is None else float(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r:.80} occurs twice in an object")
    return content


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number; write null or leave it out")


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
