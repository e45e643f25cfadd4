"""Strict JSON: what other readers let pass is refused, with its line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from hoi_train.core.strict_json import JSONError, finite, parse_json, read_json


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "not JSON: Expecting value, column 1"),
        ('{"a": 1,\n "b": }', 2, "not JSON: Expecting value, column 7"),
        ("[1] 2", 1, "not JSON: Extra data, column 5"),
        ('[{"a": 1, "b": 2, "a": 1}]', None, "not JSON: key 'a' occurs twice in an object"),
        ("[NaN]", None, "not JSON: NaN is not a JSON number; write null or leave it out"),
        ("[-Infinity]", None, "not JSON: -Infinity is not a JSON number; write null or leave it out"),
        ("[" * 100_000, None, "not JSON: nested too deeply"),
        (b'"\xff"', None, "not JSON: 'utf-8' codec can't decode byte 0xff in position 1: invalid start byte"),
        (f"1{'0' * 5000}", None, "not JSON: Exceeds the limit (4300 digits) for integer string conversion"),
    ],
)
def test_what_is_wrong_is_said(text: str | bytes, line: int | None, message: str) -> None:
    with pytest.raises(JSONError) as caught:
        parse_json(text)
    assert str(caught.value).startswith(message)
    assert caught.value.line == line


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": {"a": ["\xc3\xa9", 1.5, null]}}\n')
    assert read_json(tmp_path / "a.json") == {"a": {"a": ["é", 1.5, None]}}


def test_finite_puts_none_for_nan_at_any_depth() -> None:
    value = {"a": [1, 2.5, (math.nan, "nan", {"b": -math.inf})], "c": True}
    assert finite(value) == {"a": [1, 2.5, [None, "nan", {"b": None}]], "c": True}
    assert parse_json(json.dumps(finite(value), allow_nan=False)) == finite(value)
