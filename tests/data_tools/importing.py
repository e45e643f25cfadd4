"""Importing in process, with all options by name."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from data_tools.importers import run_import
from data_tools.importers.samples import Options
from data_tools.sources import Imported


def import_with(name: str, videos: Path, out: Path, **given: Any) -> Imported:
    """Import with a format; ``given`` are its options and those that all formats have."""
    options = {field.name: given.pop(field.name) for field in fields(Options) if field.name in given}
    return run_import(name, Options(videos, out, **options), given)
