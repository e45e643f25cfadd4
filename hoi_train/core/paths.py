"""Checks of names and paths in a manifest."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

CONTROL = r"[\x00-\x1f\x7f]"
"""The pattern of a control character, for ``re`` and for Arrow."""


def is_plain(name: str) -> bool:
    """Return whether a name is free of control characters and of surrogates, which UTF-8 cannot hold."""
    return re.search(rf"{CONTROL}|[\ud800-\udfff]", name) is None


def real_folder(folder: Path) -> Path:
    """Return a folder with links resolved; unchanged if they cannot be."""
    try:
        return folder.resolve()
    except (OSError, RuntimeError, ValueError):  # name too long, loop of links, NUL
        return folder


def inside(root: Path, path: str, resolve: Callable[[Path], Path] = real_folder) -> str | None:
    """Return a path relative to a root folder in its shortest spelling, or ``None`` if it is outside the root.

    Args:
        root: absolute, without links.
        path: relative to the root, or absolute, also through links to the root. A link as its last part is not
            followed.
        resolve: used in place of `real_folder`, such as a cached one.
    """
    place = root / path
    if ".." in place.parts:
        return None
    if not place.is_relative_to(root):
        place = resolve(place.parent) / place.name
    return place.relative_to(root).as_posix() if place.is_relative_to(root) else None
