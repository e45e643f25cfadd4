"""AVA: its csv files to a manifest with the multi-label task action, a row per key frame.

``ava_train_v2.2.csv`` and ``ava_val_v2.2.csv``, or another version, have no header and a line per action of a person:
``video_id, middle_frame_timestamp, x1, y1, x2, y2, action_id, person_id``, seconds of the whole film, the box as parts
of the frame's width and height, ids of actions from 1; box and action are empty for a key frame without a person. The
names of the actions are in ``ava_action_list_*.pbtxt``, blocks such as ``item {name: "dance" id: 4}`` or ``label {name:
… label_id: …}``; the list made for evaluation has 60 of the 80, and other actions are left out. Key frames named in
``ava_<part>_excluded_timestamps_*.csv`` are left out, too. Videos are ``<video_id>.<any>``, looked for by name: whole
films, or minutes 15 to 30 of them as in the published preparations, which is ``offset`` 900.

AVA labels persons, with no object beside them, so its labels are none of a human-object pair, and a manifest has
nowhere else to put boxes. A row is the time around a key frame, ``window`` seconds long (annotators saw 1.5 s to either
side), with the actions of all persons in it; who does which is lost. Neighbouring rows overlap; the group is the video.

Sources: research.google.com/ava/download.html; tools/data/ava of github.com/open-mmlab/mmaction2; ava_helper.py and
DATASET.md of github.com/facebookresearch/SlowFast; Gu et al., CVPR 2018.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from data_tools.importers.samples import Options, Reading, Sample
from data_tools.importers.tables import RowError, number, read_rows
from data_tools.sources import numbered_lines
from hoi_train.core.paths import is_plain
from hoi_train.core.records import Split, UserError
from hoi_train.data.manifest.problems import Problems

PARTS: tuple[Split, ...] = ("train", "val")
COLUMNS = ("video_id", "middle_frame_timestamp", "x1", "y1", "x2", "y2", "action_id", "person_id")
NOTE = "a row has the actions of all persons around a key frame: who does which, and the boxes, are not in the manifest"
_BLOCK = re.compile(r"(?:item|label)\s*\{([^{}]*)\}")
_NAME = re.compile(r"\bname:\s*(?:\"([^\"\n]*)\"|'([^'\n]*)')")
_ID = re.compile(r"\b(?:label_)?id:\s*([0-9]{1,9})\b")

KeyFrame = tuple[str, float]  # video and second of the film


def read_ava(options: Options, *, annotations: Path, window: float = 3.0, offset: float = 0.0) -> Reading:
    """Read the csv files of AVA: the actions of all persons around a key frame.

    Args:
        options: what every importer is told.
        annotations: folder of the annotation files.
        window: length of a row in seconds.
        offset: second of the film at which the files begin: 900 if they were cut from minute 15 on.

    Raises:
        UserError: no annotation files, or an option out of range.
    """
    if not 0 < window < float("inf"):
        raise UserError(f"--window must be seconds above 0, got {window:g}")
    if not 0 <= offset < float("inf"):
        raise UserError(f"--offset must be seconds of at least 0, got {offset:g}")
    problems, remarks = Problems(), Counter[str]()
    files = {split: file for split in PARTS if (file := _newest(annotations, f"ava_{split}_v*.csv"))}
    if not files:
        raise UserError(f"--annotations: neither ava_train_v*.csv nor ava_val_v*.csv is in {annotations}")
    actions = _newest(annotations, "ava_action_list_v*.pbtxt")
    if actions is None:
        raise UserError(f"--annotations: no ava_action_list_v*.pbtxt is in {annotations}; it names the actions")
    classes = read_actions(actions, problems)

    def samples() -> Iterator[Sample]:
        for split, file in files.items() if classes else ():
            excluded = _excluded(annotations, split, problems)
            for (video, time), (line, names) in _key_frames(file, classes, excluded, problems, remarks).items():
                start, end = time - offset - window / 2, time - offset + window / 2
                if end <= 0:
                    remarks["left out, key frame before the files begin (--offset)"] += 1
                    continue
                clip_id = f"{video}_{time:04.0f}" if time.is_integer() else f"{video}_{time:.3f}"
                sample = Sample(clip_id, video, split, {"action": list(names)}, file, line, lookup="name", group=video)
                yield replace(sample, start=max(start, 0.0), end=end)

    read = ", ".join(file.name for file in (*files.values(), actions))
    return Reading(samples(), {"action": ([*classes.values()], "multi")}, problems, remarks, [NOTE, f"read: {read}"])


def read_actions(file: Path, problems: Problems) -> dict[int, str]:
    """Read the names of the actions, by ascending id."""
    lines = dict(numbered_lines(file, problems))
    text = "\n".join(lines.get(number, "") for number in range(1, max(lines, default=0) + 1))
    classes: dict[int, str] = {}
    place = 0
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        name, id_ = _NAME.search(match[1]), _ID.search(_NAME.sub("", match[1]))
        named = (name[1] or name[2] or "").strip() if name else ""
        if text[place : match.start()].strip() or not named or id_ is None or not is_plain(named):
            problems.add(file, line, f'an action must be item {{name: "dance" id: 4}}, got {match[0]!r:.80}')
        elif int(id_[1]) in classes or named in classes.values():
            problems.add(file, line, f"action {named!r:.80} or its id {id_[1]} occurs twice")
        else:
            classes[int(id_[1])] = named
        place = match.end()
    if rest := text[place:].strip():
        line = text.count("\n", 0, text.index(rest, place)) + 1
        problems.add(file, line, f'not an item {{name: "dance" id: 4}}: {rest!r:.80}')
    return dict(sorted(classes.items()))


def _key_frames(
    file: Path, classes: Mapping[int, str], excluded: set[KeyFrame], problems: Problems, remarks: Counter[str]
) -> dict[KeyFrame, tuple[int, dict[str, None]]]:
    """Return for each key frame of a file its first line and its actions, in the order of the file."""
    found: dict[KeyFrame, tuple[int, dict[str, None]]] = {}
    for row in read_rows(file, COLUMNS, problems, has_header=False):
        with row.faults_noted(problems):
            if not row["video_id"]:
                raise RowError("video_id must not be empty")
            frame = row["video_id"], number(row, "middle_frame_timestamp")
            if not row["action_id"]:
                remarks["left out, line without an action"] += 1
                continue
            for column in ("x1", "y1", "x2", "y2"):
                if number(row, column) > 1:
                    raise RowError(f"{column} must be from 0 to 1, got {row[column]!r:.80}")
            if not re.fullmatch("[0-9]{1,9}", row["action_id"]):
                raise RowError(f"action_id must be a whole number, got {row['action_id']!r:.80}")
            action = classes.get(int(row["action_id"]))
            if frame in excluded:
                remarks["left out, line of an excluded key frame"] += 1
            elif action is None:
                remarks["left out, line with an action that is not in the list of actions"] += 1
            else:
                found.setdefault(frame, (row.number, {}))[1][action] = None
    return found


def _newest(folder: Path, pattern: str) -> Path | None:
    return max(folder.glob(pattern), default=None, key=lambda file: file.name)


def _excluded(folder: Path, split: Split, problems: Problems) -> set[KeyFrame]:
    file = _newest(folder, f"ava_{split}_excluded_timestamps_v*.csv")
    excluded: set[KeyFrame] = set()
    if file is not None and file.stat().st_size:
        for row in read_rows(file, ("video_id", "timestamp"), problems, has_header=False):
            with row.faults_noted(problems):
                excluded.add((row["video_id"], number(row, "timestamp")))
    return excluded
