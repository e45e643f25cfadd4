"""YAML files of keys and values: strict in what they hold, layered with ``extends``, changed by overrides."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from hoi_train.core.records import UserError

Renaming: TypeAlias = Callable[[Mapping[str, Any]], dict[str, Any]]


class ConfigError(UserError):
    """A configuration that cannot be used; the message lists every problem with file and key."""


class _Loader(yaml.SafeLoader):
    """YAML without surprises: repeated keys are refused, ``1e-3`` is a number, a date is a string."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        repeated = sorted({key for key in keys if keys.count(key) > 1})
        if repeated:
            raise yaml.constructor.ConstructorError(None, None, f"repeated keys {repeated}", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(("timestamp", "float"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_NUMBER = r"^[-+]?(\d+\.\d*([eE][-+]?\d+)?|\.\d+([eE][-+]?\d+)?|\d+[eE][-+]?\d+)$"
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(_NUMBER), list("-+.0123456789"))


def _parse(text: str, origin: object) -> Any:
    try:
        value = yaml.load(text, _Loader)
        json.dumps(value, default=str)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: not readable as YAML: {error}") from None
    except ValueError:
        raise ConfigError(f"{origin}: an anchor (&) is used inside its own value") from None
    return value


def read_layers(path: Path, renamed: Renaming, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a file and the files that it extends, each laid over the one before.

    Args:
        path: the file; its key ``extends`` names another, relative to it.
        renamed: gives the keys of a file their present names; raises ``ValueError``.
        seen: files that extend this one.

    Raises:
        ConfigError: a file cannot be read, is no mapping, or extends itself.
    """
    if path.resolve() in seen:
        raise ConfigError(f"{path}: extends itself")
    try:
        raw = _parse(path.read_text(encoding="utf-8-sig"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must be a mapping of keys to values, got {type(raw).__name__}")
    try:
        raw = renamed(raw)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None
    parent = raw.pop("extends", None)
    if parent is None:
        return raw
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: extends must be the path of a file, got {parent!r}")
    return _merge(read_layers(path.parent / parent, renamed, (*seen, path.resolve())), raw)


def _merge(base: Any, change: Any) -> dict[str, Any]:
    """Merge ``change`` into ``base``; a mapping with another ``name`` replaces the old one, null removes a key."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key, {})
        merge = isinstance(old, Mapping) and isinstance(value, Mapping)
        merge = merge and value.get("name", old.get("name")) == old.get("name")
        merged[key] = _merge(old, value) if merge else value
    return {key: value for key, value in merged.items() if value is not None}


def apply_override(raw: dict[str, Any], override: str, old_names: Mapping[str, str]) -> None:
    """Set one key, given as ``loss.tau=1.5`` or ``--loss.tau=1.5``; null removes a key that is set.

    Args:
        raw: plain values, changed in place.
        override: the key and its value in YAML.
        old_names: present names of sections by their old ones.

    Raises:
        ConfigError: the text has another form, or a parent of the key has no keys.
    """
    key, equals, text = override.removeprefix("--").partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"{override!r} is not of the form key=value, for example loss.tau=1.5")
    top, *below = key.split(".")
    *parents, last = [*old_names.get(top, top).split("."), *below]
    section = raw
    for parent in parents:
        inner = section.get(parent)
        if not isinstance(inner, str | Mapping | None):
            raise ConfigError(f"{override!r}: {parent} is {inner!r}, which has no keys; set it as a whole")
        section[parent] = {"name": inner} if isinstance(inner, str) else dict(inner or {})
        section = section[parent]
    value = _parse(text, override)
    if value is None and last in section:  # as in a file that extends another
        del section[last]
    else:
        section[last] = value
