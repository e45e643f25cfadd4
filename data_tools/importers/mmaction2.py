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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_tools.importers.json_stream import JsonStream, JsonStreamError
from data_tools.importers.path_lists import NO_LABEL, Form, Listed, PathList, read_path_list, write_path_lists
from data_tools.importers.samples import Options
from data_tools.importers.tables import RowError
from data_tools.sources import Imported
from hoi_train.core.records import LabelKind, Split
from hoi_train.data.manifest.problems import Problems


def import_mmaction2(
    lists: Mapping[Split, Path],
    options: Options,
    *,
    frames: bool = False,
    multi_label: bool = False,
    classes: Path | None = None,
    task: str = "label",
) -> Imported:
    """Write the manifest of lists for MMAction2.

    Args:
        lists: the files by split; a name that ends in ``.json`` is read as json.
        options: what all formats are told.
        frames: the lists are of frame folders; json says so itself.
        multi_label: a clip has any number of labels.
        classes: class names by id.
        task: name of the task.

    Raises:
        ManifestError: with everything that is wrong in the files, each with file and line or record.
        UserError: no clips, or none that is on disk.
    """
    problems, left_out = Problems(), Counter[str]()
    labels: LabelKind = "multi" if multi_label else "single"
    form = Form(frames=frames, labels=labels)
    read = {
        split: read_json(file, labels, problems, left_out)
        if file.suffix == ".json"
        else read_path_list(file, form, problems, left_out)
        for split, file in lists.items()
    }
    return write_path_lists(read, options, problems, left_out, classes=classes, task=task, labels=labels)


def read_json(file: Path, labels: LabelKind, problems: Problems, left_out: Counter[str]) -> PathList:
    """Read an array of records, noting those that do not fit and counting those without a label."""
    lines = []
    stream = JsonStream(file)
    try:
        for record in stream.elements():
            try:
                line = _listed(record, stream.number, labels)
            except RowError as error:
                problems.add(file, stream.number, str(error), "row")
                continue
            if line.labels == ("-1",) or (labels == "single" and not line.labels):
                left_out[NO_LABEL] += 1
            else:
                lines.append(line)
    except JsonStreamError as error:
        problems.add(file, None, str(error))
    return PathList(file, tuple(lines), "row")


def _listed(record: Any, row: int, labels: LabelKind) -> Listed:
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
    return Listed(path, tuple(map(str, ids)), row, total)
