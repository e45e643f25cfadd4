"""MMAction2: the annotation files of its ``VideoDataset`` and ``RawframeDataset`` to a manifest with one task.

Lists separate by blanks: of videos ``path label``, of frame folders ``directory total_frames label``, and with
``multi_class`` several labels, ids from 0. Paths are relative to ``data_prefix``: the data root, or its folder of the
split, such as ``videos_train``. Frame folders count their images here; lists ``with_offset`` are not read.

Versions before 1.0 read json as well: an array of records with ``filename`` or ``frame_dir`` and ``label``, a list of
ids, and of frame folders ``total_frames``. Since 1.0 these two read lists alone. Other json that it reads is of other
tasks: HVU, labels by category; ActivityNet, when actions begin and end. Its AVA files are those of AVA
(``hoi-data import ava``).

Source: mmaction/datasets/{base,video_dataset,rawframe_dataset,hvu_dataset}.py of github.com/open-mmlab/mmaction2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_tools.importers.json_stream import JsonStream, JsonStreamError
from data_tools.importers.lists import list_files
from data_tools.importers.path_lists import NO_LABEL, Form, read_path_list, reading_of_lists
from data_tools.importers.samples import Options, Reading, Sample
from data_tools.importers.tables import RowError, TableRow
from hoi_train.core.records import LabelKind, Split
from hoi_train.data.manifest.problems import Problems


def read_mmaction2(
    options: Options,
    *,
    train_list: Path | None = None,
    val_list: Path | None = None,
    test_list: Path | None = None,
    frames: bool = False,
    multi_label: bool = False,
    classes: Path | None = None,
    task: str = "label",
) -> Reading:
    """Read lists for MMAction2, of videos or frame folders, or its json.

    Args:
        options: what every importer is told.
        train_list: list of the training clips; a name that ends in .json is read as json.
        val_list: list of the val clips.
        test_list: list of the test clips.
        frames: the lists are of frame folders: a path, its frames and a class id; json says so itself.
        multi_label: a clip has any number of class ids.
        classes: file of class names, a name or an id and a name per line.
        task: name of the task.

    Raises:
        UserError: no list is named.
    """
    problems, remarks = Problems(), Counter[str]()
    labels: LabelKind = "multi" if multi_label else "single"
    samples: list[Sample] = []
    for split, file in list_files(train_list, val_list, test_list).items():
        if file.suffix == ".json":
            samples += _read_json(file, split, labels, task, problems, remarks)
        else:
            samples += read_path_list(file, split, Form(None, frames, labels), task, problems, remarks)
    return reading_of_lists(samples, options, problems, remarks, classes=classes, task=task, labels=labels)


def _read_json(
    file: Path, split: Split, labels: LabelKind, task: str, problems: Problems, remarks: Counter[str]
) -> Iterator[Sample]:
    """Yield the records of an array, noting those that do not fit and counting those without a label."""
    stream = JsonStream(file)
    try:
        for record in stream.elements():
            row = TableRow(file, stream.number, {}, "row")
            with row.faults_noted(problems):
                path, ids, num_frames = _path_and_labels(record, labels)
                if ids == ["-1"] or (labels == "single" and not ids):
                    remarks[NO_LABEL] += 1
                    continue
                named = {task: list(dict.fromkeys(ids)) if labels == "multi" else ids[0]}
                yield Sample(path, path, split, named, file, row.number, "row", num_frames=num_frames)
    except JsonStreamError as error:
        problems.add(file, None, str(error))


def _path_and_labels(record: Any, labels: LabelKind) -> tuple[str, list[str], int | None]:
    """Return the path, the labels and the number of frames of a record."""
    path = (record.get("filename") or record.get("frame_dir")) if isinstance(record, dict) else None
    if not isinstance(path, str):
        raise RowError(f"must be an object with filename or frame_dir, got {record!r:.80}")
    label = record.get("label", [])
    ids = label if isinstance(label, list) else [label]
    if not all(type(id_) is int and -1 <= id_ < 10**9 for id_ in ids):
        raise RowError(f"label must be a class id or a list of class ids, got {label!r:.80}")
    if labels == "single" and len(ids) > 1:
        raise RowError(f"several labels, {label!r:.80}; is the file of a multi-label task? (--multi-label)")
    total = record.get("total_frames")
    if total is not None and type(total) is not int:
        raise RowError(f"total_frames must be a whole number, got {total!r:.80}")
    return path, list(map(str, ids)), total
