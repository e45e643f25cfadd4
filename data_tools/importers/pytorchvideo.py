"""PyTorchVideo: the files of ``LabeledVideoPaths.from_csv`` to a manifest with one single-label task.

A line is ``<path> <integer label>``, separated by the last blanks of the line, so that paths may hold some; a line of
a path alone has no label. Paths are relative to ``video_path_prefix``, which is the data root here. Folders named by
class, which ``from_directory`` reads, are what ``hoi-data folder`` reads; its AVA files are those of AVA
(``hoi-data import ava``).

Source: pytorchvideo/data/labeled_video_paths.py and ava.py of github.com/facebookresearch/pytorchvideo.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from data_tools.importers.path_lists import Form, read_path_list, write_path_lists
from data_tools.importers.samples import Options
from data_tools.sources import Imported
from hoi_train.core.records import Split
from hoi_train.data.manifest.problems import Problems


def import_pytorchvideo(
    lists: Mapping[Split, Path], options: Options, *, classes: Path | None = None, task: str = "label"
) -> Imported:
    """Write the manifest of lists for PyTorchVideo.

    Args:
        lists: the files by split.
        options: what all formats are told.
        classes: class names by id.
        task: name of the task.

    Raises:
        ManifestError: with everything that is wrong in the files, each with file and line.
        UserError: no clips, or none that is on disk.
    """
    problems, left_out = Problems(), Counter[str]()
    read = {split: read_path_list(file, Form(unlabelled=True), problems, left_out) for split, file in lists.items()}
    return write_path_lists(read, options, problems, left_out, classes=classes, task=task, labels="single")
