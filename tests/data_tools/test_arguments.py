"""A command's arguments are those of its function: type, default and help stand in one place."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import pytest

from data_tools.arguments import add_arguments, descriptions
from data_tools.commands import COMMANDS, Command
from data_tools.importers import FORMATS
from data_tools.importers.samples import Options


@dataclass(frozen=True)
class Drawing:
    """How it is drawn.

    Args:
        colour: of the line; it may
            be any word.
        width: in ``pixels``.
    """

    colour: str = "red"
    width: float | None = None


def draw(
    path: Path,
    out: Path,
    drawing: Drawing,
    *,
    font: Path | None = None,
    side: Literal[1, 2] = 1,
    names: Sequence[str] = ("a",),
    loud: bool = False,
    console: Any = None,
) -> None:
    """Draw a table.

    Args:
        path: the table.
        out: folder of the drawing.
        drawing: how.
        font: of the names; not a folder.
        side: of the paper, 50 % each.
        names: of the columns.
        loud: say so.
        console: where it is said.

    Raises:
        ValueError: never.
    """


def parsed(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    call = add_arguments(parser, draw, flags={"names": ("--name",)})
    return call(parser.parse_args([*words]))


def test_types_and_defaults_are_the_functions() -> None:
    assert parsed("t.csv", "--out", "o") == {
        "path": Path("t.csv"),
        "out": Path("o"),
        "drawing": Drawing(),
        "font": None,
        "side": 1,
        "loud": False,
    }, "what is left out of names is the function's own default"
    found = parsed("t.csv", "--out", "o", "--side", "2", "--width", "1.5", "--name", "x", "y", "--name", "z", "--loud")
    assert (found["drawing"], found["side"], found["names"], found["loud"]) == (
        Drawing("red", 1.5),
        2,
        ["x", "y", "z"],
        True,
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["t.csv"], "the following arguments are required: --out"),
        (["t.csv", "--out", "o", "--width", "wide"], "argument --width: must be a number, got 'wide'"),
        (["t.csv", "--out", "o", "--side", "x"], "argument --side: must be a whole number, got 'x'"),
        (["t.csv", "--out", "o", "--side", "3"], "argument --side: invalid choice: 3 (choose from 1, 2)"),
    ],
)
def test_wrong_values_are_refused(words: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(*words)
    assert text in capsys.readouterr().err


def test_the_help_is_the_docstrings() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, draw)
    shown = " ".join(parser.format_help().split())
    assert "of the line; it may be any word (red)" in shown
    assert "in pixels" in shown
    assert "of the paper, 50 % each (1)" in shown
    assert "console" not in shown
    assert "--out DIR folder of the drawing" in shown
    assert "--font FILE of the names" in shown, "only a help that begins with folder makes a path a folder"


def functions() -> dict[str, Any]:
    commands = {name: each for name, each in COMMANDS.items() if isinstance(each, Command)}
    return {name: each.load() for name, each in commands.items()} | dict(FORMATS) | {"Options": Options}


@pytest.mark.parametrize("name", functions())
def test_every_argument_is_described(name: str) -> None:
    function = functions()[name]
    names = [each.name for each in fields(function)] if name == "Options" else inspect.signature(function).parameters
    assert set(names) <= descriptions(function).keys()
