"""Build a command's argparse arguments from the signature and docstring of its function.

A parameter without a default is required. ``path``, a manifest, is positional, all others are options:
``val_fraction`` is ``--val-fraction``. Type, default and help come from the function: the help is the parameter's entry
under ``Args``. A parameter whose type is a dataclass is replaced by its fields. A path is shown as DIR if its help
begins with "folder", else as FILE.

>>> def shrink(path: Path, *, size: int = 96, measured: bool = False) -> None:
...     '''Shrink a set.
...
...     Args:
...         path: table of the clips.
...         size: side in pixels.
...         measured: write what was measured.
...     '''
>>> parser = argparse.ArgumentParser()
>>> call = add_arguments(parser, shrink)
>>> call(parser.parse_args(["m.csv", "--size", "64"]))
{'path': PosixPath('m.csv'), 'size': 64, 'measured': False}
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

METAVARS: Mapping[type, str] = {Path: "FILE", int: "N", float: "X", str: "TEXT"}
NAMES = {int: "a whole number", float: "a number"}
SEVERAL = (tuple, Sequence)
PATH: Mapping[str, str] = {"path": "MANIFEST"}
NO_ARGUMENTS = ("console",)  # parameters for Python callers only
UNSET = inspect.Parameter.empty

Call = Callable[[argparse.Namespace], dict[str, Any]]


def add_arguments(
    parser: argparse.ArgumentParser,
    function: Callable[..., Any],
    *,
    positional: Mapping[str, str] = PATH,
    flags: Mapping[str, Sequence[str]] = {},
) -> Call:
    """Add the parameters of a function to a parser.

    Args:
        parser: the command's parser.
        function: has type hints, and every parameter described under ``Args``.
        positional: metavar of each positional parameter.
        flags: option strings that replace the one derived from the parameter's name.

    Returns:
        A function that converts the parsed namespace into keyword arguments of ``function``.
    """
    hints, described, records = get_type_hints(function), descriptions(function), dict[str, type]()
    for name, parameter in inspect.signature(function).parameters.items():
        if name in NO_ARGUMENTS:
            continue
        kind = _without_none(hints[name])
        if is_dataclass(kind) and isinstance(kind, type):
            records[name] = kind
            texts, own = descriptions(kind), get_type_hints(kind)
            for each in fields(kind):
                default = UNSET if each.default is MISSING else each.default
                _add(parser, each.name, own[each.name], default, texts[each.name], positional, flags)
        else:
            _add(parser, name, hints[name], parameter.default, described[name], positional, flags)

    def call(given: argparse.Namespace) -> dict[str, Any]:
        values = dict(vars(given))  # SUPPRESS: a missing list option is absent
        made = {
            name: record(**{each.name: values.pop(each.name) for each in fields(record)})
            for name, record in records.items()
        }
        return {**values, **made}

    return call


def descriptions(of: Callable[..., Any]) -> dict[str, str]:
    """Return the ``Args`` entries of a docstring by parameter; an entry ``a, b: text`` describes both."""
    found: dict[str, str] = {}
    _, _, text = (inspect.getdoc(of) or "").partition("\nArgs:\n")
    text = re.split(r"\n\S", text, maxsplit=1)[0]
    for entry in re.split(r"\n(?=    \S)", text.rstrip()):
        names, _, words = entry.strip().partition(":")
        found |= dict.fromkeys(names.split(", "), " ".join(words.replace("``", "").split()).rstrip("."))
    return found


def _add(
    parser: argparse.ArgumentParser,
    name: str,
    hint: Any,
    default: Any,
    text: str,
    positional: Mapping[str, str],
    flags: Mapping[str, Sequence[str]],
) -> None:
    kind, about = _without_none(hint), dict[str, Any](help=text.replace("%", "%%"))
    if name in positional:
        parser.add_argument(name, type=_reader(kind), metavar=positional[name], **about)
        return
    options = flags.get(name, (f"--{name.replace('_', '-')}",))
    about["dest"] = name
    if kind is bool:
        parser.add_argument(*options, action="store_true", **about)
        return
    about |= {"required": default is UNSET, "default": None if default is UNSET else default}
    if get_origin(kind) in SEVERAL:
        kind = get_args(kind)[0]
        about |= {"nargs": "+", "action": "extend", "default": argparse.SUPPRESS}
        about["help"] += f" ({' '.join(map(str, default))})" if default is not UNSET else ""
    elif default not in (UNSET, None):
        about["help"] += " (%(default)s)"
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        parser.add_argument(*options, type=_reader(type(choices[0])), choices=choices, **about)
    else:
        metavar = "DIR" if kind is Path and text.startswith("folder") else METAVARS[kind]
        parser.add_argument(*options, type=_reader(kind), metavar=metavar, **about)


def _reader(kind: type) -> Callable[[str], Any]:
    """Return an argparse ``type`` function whose error gives the expected type and the text received."""

    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {NAMES[kind]}, got {text!r}") from None

    return read


def _without_none(hint: Any) -> Any:
    """Return ``T`` for ``T | None``, and any other type unchanged."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (each for each in get_args(hint) if each is not NoneType)
    return hint
