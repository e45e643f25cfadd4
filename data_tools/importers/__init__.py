"""Annotation formats, one file each; all end in the same manifest.

A format is a function ``read_<name>(options: Options, *, ...) -> Reading`` that reads an annotation into ``Sample``s.
Its keyword-only parameters are the options of the format: type, default and help (``Args``) are written there and
nowhere else, as those of all formats are in ``Options``. What comes after reading is in ``writing``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from data_tools.importers.ava import read_ava
from data_tools.importers.charades import read_charades
from data_tools.importers.egtea import read_egtea
from data_tools.importers.epic_kitchens import read_epic_kitchens
from data_tools.importers.folder import read_folder
from data_tools.importers.huggingface import read_huggingface
from data_tools.importers.kinetics import read_kinetics
from data_tools.importers.mmaction2 import read_mmaction2
from data_tools.importers.pytorchvideo import read_pytorchvideo
from data_tools.importers.samples import Options, Reading
from data_tools.importers.slowfast import read_slowfast
from data_tools.importers.vidhoi.reading import read_vidhoi
from data_tools.importers.vidor import read_vidor
from data_tools.importers.writing import write_reading
from data_tools.jobs.local import write_json
from data_tools.sources import Imported

REPORT = "import.json"

FORMATS: Mapping[str, Callable[..., Reading]] = {
    "folder": read_folder,
    "egtea": read_egtea,
    "vidhoi": read_vidhoi,
    "vidor": read_vidor,
    "kinetics": read_kinetics,
    "slowfast": read_slowfast,
    "pytorchvideo": read_pytorchvideo,
    "mmaction2": read_mmaction2,
    "huggingface": read_huggingface,
    "epic-kitchens": read_epic_kitchens,
    "charades": read_charades,
    "ava": read_ava,
}


def run_import(name: str, options: Options, own: Mapping[str, Any]) -> Imported:
    """Import an annotation and write a report of what was asked and what came out.

    Args:
        name: of the format.
        options: what every importer is told.
        own: the options of the format that are given; the others have their defaults.

    Raises:
        ManifestError: with everything that is wrong with the annotation, each with file and row.
        UserError: what is asked cannot be done, or nothing is there to be written.
    """
    made = write_reading(FORMATS[name](options, **own), options)
    asked = {**vars(options), **own}
    content = {"format": name, "options": asked, "manifest": made.path.name, "notes": made.notes}
    write_json(options.out / REPORT, content)
    return made
