"""VidHOI: the authors' annotation files to a manifest of videos with human-object pairs, or of labelled stretches.

    hoi-data vidhoi --annotations vidor-github --videos video --out data/vidhoi

The folder holds ``train_frame_annots.json`` and ``val_frame_annots.json``, or one of them; ``obj_categories.json`` and
``pred_categories.json``; if wanted, ``train_trajectories.json`` and ``val_trajectories.json``, and detections as
``det_val_frame_annots.json`` and ``det_val_trajectories.json`` (or ``det_train_…``). ``frames`` says how frames are
counted, ``detections`` what the detections are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from data_tools.importers.samples import Options, Reading, Sample
from data_tools.importers.vidhoi.classes import PARTS, REMOVED_FILE, Classes, read_classes, read_removed
from data_tools.importers.vidhoi.detections import read_detections
from data_tools.importers.vidhoi.frames import read_records
from data_tools.importers.vidhoi.pairs import pair_lists, sound_records
from data_tools.importers.vidhoi.records import Records
from data_tools.importers.vidhoi.samples import Level, OfficialVal, SampleMaker, boxes_by_video
from data_tools.importers.vidhoi.tracks import read_all_tracks
from hoi_train.core.records import UserError
from hoi_train.data.manifest.problems import Problems


def read_vidhoi(
    options: Options,
    *,
    annotations: Path,
    level: Level = "pair",
    segment: float = 2.0,
    official_val: OfficialVal = "test",
    leave_out: Path | None = None,
) -> Reading:
    """Read the frame annotations of VidHOI: what persons do with objects, and where.

    Args:
        options: what every importer is told; videos are <folder>/<video>.mp4, or frame folders <folder>/<video>/ with
            every frame of the video.
        annotations: folder of the annotation files.
        level: a row per video with the pairs of its key frames, or a row per stretch with the predicates in it.
        segment: length of a stretch in seconds, by default about the 64 frames that published networks see.
        official_val: what the official validation part becomes; there is no other test part.
        leave_out: file of key frames to leave out, such as 168_frames_to_remove.json.

    Raises:
        ManifestError: with what is wrong in the annotation files, each with file, record and byte.
        UserError: folders that are not there, or options that exclude each other.
    """
    maker = SampleMaker(options, annotations, level, segment, official_val)
    records, classes = read_annotations(annotations, maker.problems)
    removed = read_removed(leave_out, maker.problems) if leave_out else {}
    maker.problems.raise_if_any()
    if leave_out is None and (annotations / REMOVED_FILE).is_file():
        text = "published numbers are without the frames of {}; give it to --leave-out"
        maker.notes.append(text.format(annotations / REMOVED_FILE))
    return maker.reading(_samples(records, classes, removed, maker), classes)


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


def _samples(
    records: Records, classes: Classes, removed: Mapping[tuple[str, int], str], maker: SampleMaker
) -> Iterator[Sample]:
    maker.remarks.update(records.remarks)
    names = [video.name for video in records.videos]
    known = {
        (names[video], frame) for video, frame in {*zip(records.video.tolist(), records.frame.tolist(), strict=True)}
    }
    maker.remarks["frames to leave out that no record is of"] = sum(entry not in known for entry in removed)
    records, counts = sound_records(records, removed)
    maker.remarks.update(counts)
    if maker.level == "clip":
        yield from maker.stretches(records, classes)
        return
    videos, pairs, counts = pair_lists(records, classes)
    maker.remarks.update(counts)
    boxes = boxes_by_video(records)
    del records, known  # the tracks take as much again
    tracks = read_all_tracks(maker.annotations, "", boxes, only_named=True)
    del boxes
    if tracks:
        without = sum(video.name not in tracks for video in videos)
        maker.remarks["videos with pairs, of which no trajectories are known"] = without
    detected, notes = read_detections(maker.annotations, classes, videos)
    maker.notes += notes
    yield from maker.videos(videos, pairs, tracks, detected)
