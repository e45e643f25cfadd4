"""Annotation formats of others, a file each; every one ends in the same manifest (``samples.py``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from data_tools.importers.ava import import_ava
from data_tools.importers.charades import import_charades
from data_tools.importers.epic_kitchens import import_epic_kitchens
from data_tools.importers.huggingface import import_huggingface
from data_tools.importers.kinetics import import_kinetics
from data_tools.importers.mmaction2 import import_mmaction2
from data_tools.importers.pytorchvideo import import_pytorchvideo
from data_tools.importers.samples import Options
from data_tools.importers.slowfast import import_slowfast
from data_tools.jobs.local import write_json
from data_tools.sources import Imported

REPORT = "import.json"

FORMATS: Mapping[str, Callable[..., Imported]] = {
    "kinetics": import_kinetics,
    "slowfast": import_slowfast,
    "pytorchvideo": import_pytorchvideo,
    "mmaction2": import_mmaction2,
    "huggingface": import_huggingface,
    "epic-kitchens": import_epic_kitchens,
    "charades": import_charades,
    "ava": import_ava,
}


def run_import(name: str, options: Options, own: Mapping[str, Any]) -> Imported:
    """Import with a format and the options that are its own, and write the report: what was asked, and what is said."""
    made = FORMATS[name](options=options, **own)
    asked = {**vars(options), **own}
    content = {"format": name, "options": asked, "manifest": made.path.name, "notes": made.notes}
    write_json(options.out / REPORT, content)
    return made
