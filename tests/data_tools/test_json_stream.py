"""Streamed JSON equals what the standard decoder reads at once, and every fault has its place."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from data_tools.importers import json_stream
from data_tools.importers.json_stream import JsonStream, JsonStreamError
from hoi_train.core.strict_json import parse_json


@pytest.fixture
def _tiny_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "CHUNK", 7)


def _value(draw: random.Random, depth: int = 0) -> Any:
    kind = draw.randrange(8)
    if kind == 0 and depth < 3:
        return [_value(draw, depth + 1) for _ in range(draw.randrange(4))]
    if kind == 1 and depth < 3:
        return {draw.choice("aéb€\U0001f600") + str(k): _value(draw, depth + 1) for k in range(draw.randrange(4))}
    return draw.choice([1, -12, 3.25e-7, True, False, None, 'x"y\\', "é\U0001f600", 10**20, ""])


@pytest.mark.usefixtures("_tiny_windows")
def test_arrays_and_objects_come_back_piece_by_piece_with_their_bytes(tmp_path: Path) -> None:
    draw, file = random.Random(0), tmp_path / "a.json"
    for _ in range(200):
        values = [_value(draw) for _ in range(draw.randrange(6))]
        text = json.dumps(values, ensure_ascii=draw.random() < 0.5, indent=draw.choice([None, 1]))
        file.write_text(draw.choice(["", "\ufeff", " \r\n"]) + text + draw.choice(["", "\n "]))
        stream, found = JsonStream(file), []
        for value in stream.elements():
            found.append(value)
            assert json.JSONDecoder().raw_decode(file.read_bytes()[stream.offset :].decode())[0] == value
            assert stream.number == len(found)
        assert found == values
        named = {f"{k}é": value for k, value in enumerate(values)}
        file.write_text(json.dumps(named, ensure_ascii=False))
        assert dict(JsonStream(file).members()) == named


@pytest.mark.usefixtures("_tiny_windows")
def test_what_the_decoder_refuses_is_refused_and_nothing_else(tmp_path: Path) -> None:
    draw, file = random.Random(1), tmp_path / "a.json"
    refused = 0
    for _ in range(1500):
        data = bytearray(json.dumps([_value(draw) for _ in range(draw.randrange(6))], ensure_ascii=False).encode())
        for _ in range(draw.randint(1, 3)):
            place = draw.randrange(len(data) + 1)
            noise = bytes(draw.choices(b'",[]{}:\\0-e\xff\n t', k=draw.randrange(3)))
            data[place : place + draw.randrange(3)] = noise
        file.write_bytes(data)
        expected: Any = None
        with contextlib.suppress(ValueError):
            expected = parse_json(data.decode())
        try:
            assert str(list(JsonStream(file).elements())) == str(expected)
        except JsonStreamError:
            assert not isinstance(expected, list)
            refused += 1
    assert 500 < refused < 1490


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON that holds an array: it is empty"),
        ("{}", "not JSON that holds an array: it begins with '{'"),
        ("[1,]", "record 2 (byte 3): not JSON: Expecting value"),
        ("[1 2]", "record 1 (byte 3): not JSON: ',' or ']' must come here, got '2'"),
        ("[1", "record 1 (byte 2): not JSON: ',' or ']' must come here, got the end of the file"),
        ('["é", nul]', "record 2 (byte 7): not JSON: Expecting value"),
        ("[1]x", "record 1 (byte 3): the file goes on with 'x' after the closing ']'"),
        ('["a', "record 1 (byte 1): not JSON: Unterminated string starting at"),
        ('[{"a": 1,b}]', "record 1 (byte 9): not JSON: Expecting property name enclosed in double quotes"),
        ("[" * 100_000, "record 1 (byte 1): not JSON: nested too deeply"),
        (f"[1{'0' * 5000}]", "record 1 (byte 1): not JSON: Exceeds the limit"),
        (f'[1, "{"x" * 30_000}"]', "record 2 (byte 4): no end of the record within 10000 characters"),
        (b"[1, \xff]", "not UTF-8 text: byte 0xff at 4"),
        ('[1, {"a": 1, "a": 2}]', "record 2 (byte 4): not JSON: key 'a' occurs twice in an object"),
        ('[1, {"a": [-Infinity]}]', "record 2 (byte 4): not JSON: -Infinity is not a JSON number"),
    ],
)
@pytest.mark.usefixtures("_tiny_windows")
def test_faults_are_said_with_record_and_byte(tmp_path: Path, text: str | bytes, words: str) -> None:
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(JsonStreamError) as caught:
        list(JsonStream(tmp_path / "a.json", longest=10_000).elements())
    assert str(caught.value).startswith(words)


def test_names_of_members_must_be_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1, 2: 3}')
    with pytest.raises(JsonStreamError, match=r"record 2 \(byte 10\): a name in quotes must come here, got 2"):
        list(JsonStream(tmp_path / "a.json").members())
