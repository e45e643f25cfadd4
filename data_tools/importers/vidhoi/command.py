"""VidHOI: the authors' annotation files to a manifest of videos with human-object pairs, or of labelled stretches.

    hoi-data vidhoi --annotations vidor-github --videos video --out data/vidhoi

The folder holds ``train_frame_annots.json`` and ``val_frame_annots.json``, or one of them; ``obj_categories.json`` and
``pred_categories.json``; if wanted, ``train_trajectories.json`` and ``val_trajectories.json``, and detections as
``det_val_frame_annots.json`` and ``det_val_trajectories.json`` (or ``det_train_…``). ``vidhoi_frames`` says how frames
are counted, ``vidhoi_detections`` what the detections are.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from data_tools.importers.vidhoi.classes import REMOVED_FILE, Classes, read_classes, read_removed
from data_tools.importers.vidhoi.detections import read_detections
from data_tools.importers.vidhoi.frames import read_records
from data_tools.importers.vidhoi.manifest import Annotated, import_annotated
from data_tools.importers.vidhoi.records import Records
from data_tools.importers.vidhoi.tracks import Named, Tracks, read_tracks
from data_tools.importers.vidhoi.videos import Options
from data_tools.sources import Imported
from hoi_train.core.records import UserError
from hoi_train.data.manifest.problems import Problems

PARTS = ("train", "val")


def import_vidhoi(
    annotations: Path, videos: Path, out: Path, options: Options | None = None, leave_out: Path | None = None
) -> Imported:
    """Write the manifest.

    Args:
        annotations: folder of the annotation files.
        videos: folder with ``<folder>/<video>.mp4``.
        out: where to write.
        options: what is to be made.
        leave_out: a file such as ``168_frames_to_remove.json``.

    Raises:
        ManifestError: with what is wrong in the annotation files, each with file, record and byte.
        UserError: folders that are not there, or none of the videos.
    """
    problems = Problems()
    records, classes = read_annotations(annotations, problems)
    removed = read_removed(leave_out, problems) if leave_out else {}
    problems.raise_if_any()
    notes = []
    if leave_out is None and (annotations / REMOVED_FILE).is_file():
        notes.append(
            f"published numbers are without the frames of {annotations / REMOVED_FILE}; give it to --leave-out"
        )
    tracks, detected = (partial(_read, annotations, prefix) for prefix in ("", "det_"))
    files = [annotations / f"det_{part}_frame_annots.json" for part in PARTS]
    detections = partial(read_detections, [file for file in files if file.exists()], classes, detected)
    source = Annotated(records, classes, removed, tracks, detections, tuple(notes))
    return import_annotated(source, videos, out, options or Options())


def read_annotations(annotations: Path, problems: Problems) -> tuple[Records, Classes]:
    """Read the frame annotations and the class lists of a folder, noting what is wrong; at least one part is needed."""
    if not annotations.is_dir():
        raise UserError(f"--annotations: {annotations} is not a folder")
    files = {part: annotations / f"{part}_frame_annots.json" for part in PARTS}
    there = {part: file for part, file in files.items() if file.exists()}
    if not there:
        problems.add(annotations, None, f"neither {' nor '.join(file.name for file in files.values())} is there")
    classes = read_classes(annotations, problems)
    problems.raise_if_any()  # ids cannot be checked without the classes
    return read_records(there, classes, problems), classes


def _read(annotations: Path, prefix: str, named: Named) -> Mapping[str, Tracks]:
    """Read the trajectories of all parts, if there are any."""
    problems, tracks = Problems(), {}
    for part in PARTS:
        file = annotations / f"{prefix}{part}_trajectories.json"
        if file.exists():
            tracks.update(read_tracks(file, named, only_named=not prefix, problems=problems))
    problems.raise_if_any()
    return tracks
