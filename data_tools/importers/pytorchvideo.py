"""PyTorchVideo: the files of ``LabeledVideoPaths.from_csv`` to a manifest with one single-label task.

A line is ``<path> <integer label>``, separated by the last blanks of the line, so that paths may hold some; a line of
a path alone has no label. Paths are relative to ``video_path_prefix``, which is the data root here. Folders named by
class, which ``from_directory`` reads, are what ``hoi-data folder`` reads; its AVA files are those of AVA
(``hoi-data import ava``).

Source: pytorchvideo/data/labeled_video_paths.py and ava.py of github.com/facebookresearch/pytorchvideo.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from data_tools.importers.lists import list_files
from data_tools.importers.path_lists import Form, read_path_list, reading_of_lists
from data_tools.importers.samples import Options, Reading, Sample
from hoi_train.data.manifest.problems import Problems


def read_pytorchvideo(
    options: Options,
    *,
    train_list: Path | None = None,
    val_list: Path | None = None,
    test_list: Path | None = None,
    classes: Path | None = None,
    task: str = "label",
) -> Reading:
    """Read lists for PyTorchVideo: a path and a class id per line.

    Args:
        options: what every importer is told.
        train_list: list of the training clips.
        val_list: list of the val clips.
        test_list: list of the test clips.
        classes: file of class names, a name or an id and a name per line.
        task: name of the task.

    Raises:
        UserError: no list is named.
    """
    problems, remarks = Problems(), Counter[str]()
    samples: list[Sample] = []
    for split, file in list_files(train_list, val_list, test_list).items():
        samples += read_path_list(file, split, Form(unlabelled=True), task, problems, remarks)
    return reading_of_lists(samples, options, problems, remarks, classes=classes, task=task, labels="single")
