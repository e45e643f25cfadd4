"""R15: whatever is done to the lines of an annotation file, the command reads them or says what is wrong with them.

In small with every run; at full size, 100,000 mutated lines a parser, with ``pytest -m campaign``, which prints a line
a parser.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from data_tools.cli import parser_of
from hoi_train.core.records import UserError
from tests.data_tools.test_import_formats import ACTIONS, CHARADES_HEADER, EGTEA, EPIC_HEADER, SOURCES, source, touch

LIMIT = 1.0  # seconds of processor time: what R15 grants a line, and here a file of up to 300 of them


@dataclass(frozen=True)
class Parser:
    """A file that is mutated: its sound beginning and end, and lines of which ``@`` becomes a number.

    It is part of the source of a format, or of what a command reads, with its other files.
    """

    file: str
    lines: tuple[str, ...]
    start: str = ""
    format: str = ""
    command: str = ""
    end: str = ""
    others: Mapping[str, str] = field(default_factory=dict)


EGTEA_COMMAND = "egtea --annotations {folder} --clips {folder}/v --out {folder}/out --val-fraction 0.1 --keep-missing"
LISTS = "--videos {folder}/v --out {folder}/out --keep-missing"
FOLDER = "folder {folder}/v --list {folder}/l.txt --classes {folder}/c.txt --out {folder}/out --val-fraction 0"

PARSERS = {
    "kinetics": Parser(
        "train.csv", ('"a, b",k@,40,50,train,1\n', "c,-k@,1,2,val,\n"), SOURCES["kinetics"][0]["train.csv"]
    ),
    "slowfast": Parser("train.csv", ("a b/@.mp4 0\n", "@.mp4,2\n", "{folder}/v/@.mkv 7\n")),
    "pytorchvideo": Parser("train.csv", ("a b/@.mp4 0\n", "@.mp4\n", "@.mp4 -1\n")),
    "mmaction2": Parser("train.txt", ("a/@.mp4 0\n", "b/@.mp4 1 2 3\n")),
    "mmaction2-frames": Parser(
        "l.txt", ("one 7 0\n", "a/@ 300 1\n"), command=f"import mmaction2 --frames --list {{folder}}/l.txt {LISTS}"
    ),
    "mmaction2-json": Parser(
        "l.json",
        ('{"filename": "@.mp4", "label": [1]},\n', '{"frame_dir": "@", "total_frames": 7, "label": 0},\n'),
        '[{"filename": "a.mp4", "label": [1]},\n',
        end='{"filename": "z.mp4", "label": [2]}]\n',
        command=f"import mmaction2 --list {{folder}}/l.json {LISTS}",
    ),
    "huggingface-csv": Parser(
        "v/train/metadata.csv", ('@.mp4,take,"a, b"\n', "d/@.mp4,put,\n"), "file_name,label,text\n", "huggingface"
    ),
    "huggingface-jsonl": Parser(
        "v/train/metadata.jsonl",
        ('{"file_name": "@.mp4", "label": ["a", "b"]}\n', '{"file_name": "@.mp4", "label": 3}\n'),
        command=f"import huggingface {LISTS}",
    ),
    "epic-kitchens": Parser(
        "EPIC_100_train.csv",
        (
            "P01_01_@,P01,P01_01,,00:00:00.14,00:00:03.37,8,202,open door,open,1,door,2,['door'],[2]\n",
            "P02_03_@,P02,P02_03,,01:01:23.79,01:01:24.60,1,2,put,put-in,0,bin,1,\"['a', 'b']\",\"[1, 0]\"\n",
        ),
        EPIC_HEADER,
    ),
    "epic-kitchens-classes": Parser(
        "EPIC_100_noun_classes.csv", ("@,noun@,\"['a', 'b']\",c\n",), "id,key,instances,category\n", "epic-kitchens"
    ),
    "charades": Parser(
        "Charades_v1_train.csv",
        ('K@,HR43,,6,7,Yes,"He cooks, then",a;b,c,c002 11.90 21.20;c000 0.00 12.60,24.83\n', "N@,S,,,,,,,,,20.00\n"),
        CHARADES_HEADER,
    ),
    "charades-classes": Parser("Charades_v1_classes.txt", ("c00@ Holding a thing @\n",), format="charades"),
    "ava": Parser("ava_train_v2.2.csv", ("-5KQ66BBWC4,@,0.077,0.151,0.283,0.811,4,1\n", "0f39OWEqJ24,@,,,,,,\n")),
    "ava-excluded": Parser("ava_train_excluded_timestamps_v2.2.csv", ("0f39OWEqJ24,@\n",), format="ava"),
    "ava-actions": Parser("ava_action_list_v2.2.pbtxt", ('item {\n  name: "dance @"\n  id: @\n}\n',), ACTIONS, "ava"),
    "egtea": Parser(
        "train_split1.txt",
        ("P21-R04-Salad-@-2-F000001-F000009 1 1 1 2\n", "OP01-R02-Toast-5-@-F000001-F000009 1 2 1\n"),
        command=EGTEA_COMMAND,
        others=EGTEA,
    ),
    "egtea-classes": Parser("noun_idx.txt", ("a noun @ @\n",), command=EGTEA_COMMAND, others=EGTEA),
    "lists": Parser("l.txt", ("@.mp4 take\n",), command=FOLDER, others={"c.txt": "take\n"}),
    "lists-classes": Parser("c.txt", ("@ name @\n",), command=FOLDER, others={"l.txt": "1.mp4 1\n2.mp4 0\n"}),
}

CELLS = (
    *("", "-1", "0", "nan", "inf", "1e999", "9" * 9, "9" * 20, "0x10", "1_0", "٣", "²", "1.5.2", "-0.0", " 7 ", "None"),
    *(
        "..",
        ".",
        "../../x.mp4",
        "/etc/passwd",
        "a/../../b",
        "C:\\x",
        "a/b",
        "~",
        "\0",
        "\x1b[0m",
        "\x7f",
        "\u202e",
        "\u2028",
    ),
    *(
        '"',
        '""',
        "'",
        '"a',
        "[",
        "]",
        "[]",
        "[1, ",
        "{",
        "}",
        "{}",
        "null",
        "true",
        "1" * 10,
        "\\u",
        "\\ud800",
        "\u0085",
        "|",
    ),
    *(
        "99:99:99",
        "00:00:00.00",
        "c999 1 2",
        "c000 5 1;c000",
        ";;;",
        "item {",
        'name: "',
        "id:",
        "label",
        "file_name",
        "é" * 50,
    ),
)
HUGE = (
    "9" * 5000,
    "[" * 100_000,
    "{" * 5000,
    "a" * 200_000,
    ";" * 50_000,
    " " * 100_000,
    "[1, " * 20_000,
    '"' * 100_001,
)
VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    7,
    10**9,
    10**4000,
    1.5,
    [],
    {},
    [-1],
    [0, 0],
    [None],
    ["a", 1],
    [[1]],
    {"a": [1]},
    [1] * 9999,
)
BYTES = b" ,;\"'\n\r\t\0[]{}:|-./\\0919aZ\x80\xff\xc3\xed\xa0"


def mutated(line: str, draw: random.Random) -> bytes:
    """Return a line to which something was done: to a value of JSON, to cells, or to bytes."""
    if line.startswith("{") and draw.random() < 0.95:  # a fault of JSON itself would end an array there
        record = json.loads(line.rstrip(",\n"))
        record[draw.choice((*record, *CELLS))] = draw.choice((*CELLS, *VALUES))
        return line.replace(line.rstrip(",\n"), json.dumps(record)).encode()
    if draw.random() < 0.6:
        separator = draw.choice([mark for mark in (",", " ", "\t", ";", '"') if mark in line] or [","])
        cells = line.rstrip("\n").split(separator)
        for _ in range(draw.randint(1, 2)):
            place, other = draw.randrange(len(cells)), draw.randrange(len(cells))
            kind = draw.randrange(6)
            if kind < 3:
                cells[place] = draw.choice(HUGE) if draw.random() < 0.002 else draw.choice(CELLS)
            elif kind == 3:
                cells[place], cells[other] = cells[other], cells[place]
            elif kind == 4:
                cells.insert(place, cells[other])
            elif len(cells) > 1:
                del cells[place]
        return f"{separator.join(cells)}\n".encode()
    data = bytearray(line.encode())
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(data) + 1)
        data[place : place + draw.randint(0, 3)] = bytes(draw.choices(BYTES, k=draw.randint(0, 3)))
    return bytes(data)


@pytest.mark.parametrize("count", [300, pytest.param(100_000, marks=[pytest.mark.campaign, pytest.mark.timeout(7200)])])
@pytest.mark.parametrize("name", PARSERS)
def test_mutated_lines(name: str, count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = PARSERS[name]
    if parser.command:
        command = parser.command.format(folder=tmp_path).split()
        touch(tmp_path / "v", "1.mp4", "2.mp4", "one/1.jpg")
        for file, text in parser.others.items():
            (tmp_path / file).write_text(text)
    else:
        command = [*source(tmp_path, parser.format or name), "--keep-missing"]
    (tmp_path / parser.file).parent.mkdir(parents=True, exist_ok=True)
    arguments, run = parser_of(command)
    given = arguments.parse_args(command)
    draw = random.Random(name)
    done, read, refused, slowest = 0, 0, 0, 0.0
    while done < count:
        lines = [parser.start.encode()]
        for number in range(draw.choice((1, 4, 30, 300))):
            line = draw.choice(parser.lines).replace("@", str(number)).replace("{folder}", str(tmp_path))
            sound = draw.random() < 0.1
            lines.append(line.encode() if sound else mutated(line, draw))
            done += not sound
        if draw.random() < 0.05:
            lines[0] = mutated(parser.start, draw)
        (tmp_path / parser.file).write_bytes(b"".join(lines) + parser.end.encode())
        before = time.process_time()
        try:
            run(given)
            read += 1
        except UserError:
            refused += 1
        slowest = max(slowest, time.process_time() - before)
        capsys.readouterr()
    with capsys.disabled():
        if count > 300:
            print(f"\n{name}: {done} lines in {read + refused} files, {read} read, {refused} refused; {slowest:.2f} s")
    assert refused > 0
    assert slowest < LIMIT
