"""Formats of others: files of the documented forms give the manifest they mean, and every fault of theirs is said."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from data_tools.cli import main
from data_tools.commands import COMMANDS, ImportCommand, add_import
from data_tools.importers import FORMATS
from hoi_train.data.manifest import Manifest, read_manifest
from hoi_train.data.readers import open_clip
from tests.data_tools.test_vidhoi import CATEGORIES, record
from tests.data_tools.test_vidor import video
from tests.videos import encode, number_of

EGTEA = {
    **{"verb_idx.txt": "Take 1\nPut Down 2\n", "noun_idx.txt": "cup 1\nplate 2\n", "action_idx.txt": "Take cup 1\n"},
    "train_split1.txt": "P21-R04-Salad-1-2-F000001-F000002 1 1 1\n",
    "test_split1.txt": "P22-R04-Salad-1-2-F000001-F000002 1 2 1 2\n",
}
EPIC_HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame,"
    "narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
)
CHARADES_HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
ACTIONS = (
    'label {\n  name: "dance"\n  label_id: 4\n  label_type: PERSON_MOVEMENT\n}\nitem {\n  name: "sit"\n  id: 11\n}\n'
)

# a source of each format: its files, and the arguments that name them; the videos need not be there
SOURCES: Mapping[str, tuple[Mapping[str, str], tuple[str, ...]]] = {
    "folder": (
        {"train.txt": "a/1.mp4 take\nb/2.mp4 put\n", "val.txt": "3.mp4 put\n"},
        ("--list", "train.txt", "--val-list", "val.txt"),
    ),
    "egtea": (EGTEA, ("--annotations", ".", "--val-fraction", "0.1")),
    "vidhoi": (
        {
            "train_frame_annots.json": json.dumps([record(), record(action=1)]),
            **{name: json.dumps(classes) for name, classes in CATEGORIES.items()},
        },
        ("--annotations", "."),
    ),
    "vidor": ({"training/0001/11.json": json.dumps(video())}, ("--annotations", ".")),
    "kinetics": (
        {
            "train.csv": "label,youtube_id,time_start,time_end,split,is_cc\n"
            '"shooting goal (soccer)",---QUuC4vJs,84,94,train,0\nair drumming,-_dbcJuKJQN,40,50,train,1\n',
            "val.csv": "label,youtube_id,time_start,time_end,split\nair drumming,--nQbRBEz2s,104,114,validate\n",
        },
        ("--annotations", "train.csv", "val.csv"),
    ),
    "slowfast": (
        {"train.csv": "a/1.mp4 0\nb/2.mp4 2\n", "val.csv": "3.mp4 2\n"},
        ("--list", "train.csv", "--val-list", "val.csv"),
    ),
    "pytorchvideo": ({"train.csv": "my videos/1.mp4 0\nb/2.mp4 1\n"}, ("--list", "train.csv")),
    "mmaction2": (
        {"train.txt": "a/1.mp4 0 3\nb/2.mp4 2\n", "val.txt": "c/3.mp4 1 2 3\n"},
        ("--multi-label", "--list", "train.txt", "--val-list", "val.txt"),
    ),
    "huggingface": (
        {"v/train/metadata.csv": 'file_name,label,text\n1.mp4,take,"a hand, a cup"\n2.mp4,put,\n'},
        (),
    ),
    "epic-kitchens": (
        {
            "EPIC_100_train.csv": EPIC_HEADER
            + "P01_01_0,P01,P01_01,00:00:01.089,00:00:00.14,00:00:03.37,8,202,open door,open,1,door,2,['door'],[2]\n"
            + "P02_03_1,P02,P02_03,00:00:24.900,01:01:23.79,01:01:24.60,1427,1476,put rubbish in bin,put-in,0,rubbish,"
            + "1,\"['rubbish', 'bin', 'bin']\",\"[1, 0, 0]\"\n",
            "EPIC_100_validation.csv": EPIC_HEADER
            + "P01_11_0,P01,P01_11,00:00:00.560,00:00:00.00,00:00:01.89,1,113,put bin,put,0,bin,0,['bin'],[0]\n",
            "EPIC_100_verb_classes.csv": "id,key,instances,category\n"
            + "0,put,\"['put', 'lay']\",leave\n1,open,['open'],access\n",
            "EPIC_100_noun_classes.csv": "id,key,instances,category\n"
            + "0,bin,['bin'],a\n1,rubbish,['rubbish'],b\n2,door,['door'],c\n",
        },
        ("--annotations", "."),
    ),
    "charades": (
        {
            "Charades_v1_train.csv": CHARADES_HEADER
            + '46GP8,HR43,Kitchen,6,7,Yes,"He cooks, then eats.",food;stove,A person cooks.;He eats.,'
            + "c002 11.90 21.20;c000 0.00 12.60;c001 20.00 45.00,24.83\n"
            + "N11GT,HR44,Hallway,6,7,Yes,Nothing.,,,,20.00\n",
            "Charades_v1_test.csv": CHARADES_HEADER
            + "YSE8U,QQ,Den,5,6,No,Sits.,chair,One sits.,c001 3.00 7.50,30.50\n",
            "Charades_v1_classes.txt": "c000 Holding some clothes\nc001 Sitting in a chair\nc002 Cooking something\n",
        },
        ("--annotations", "."),
    ),
    "ava": (
        {
            "ava_train_v2.2.csv": "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,4,1\n"
            "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,11,1\n"
            "-5KQ66BBWC4,0902,0.226,0.032,0.366,0.497,4,0\n-5KQ66BBWC4,0903,0.226,0.032,0.366,0.497,80,0\n"
            "0f39OWEqJ24,0904,0.1,0.1,0.5,0.5,4,0\n0f39OWEqJ24,0905,,,,,,\n",
            "ava_val_v2.2.csv": "1j20qq1JyX4,1798,0.1,0.1,0.5,0.5,11,7\n",
            "ava_train_excluded_timestamps_v2.2.csv": "0f39OWEqJ24,0904\n",
            "ava_val_excluded_timestamps_v2.2.csv": "",
            "ava_action_list_v2.2.pbtxt": ACTIONS,
        },
        ("--annotations", "."),
    ),
}


def source(folder: Path, name: str, changes: Mapping[str, str] | None = None) -> list[str]:
    """Write the files of a format's source and return the command that imports it to ``folder / "out"``."""
    files, arguments = SOURCES[name]
    (folder / "v").mkdir(parents=True, exist_ok=True)
    for file, text in {**files, **(changes or {})}.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(text.encode())
    placed = [str(folder / word) if word in files or word == "." else word for word in arguments]
    start = [name] if name in COMMANDS else ["import", name]
    videos = [str(folder / "v")] if name == "folder" else ["--videos", str(folder / "v")]
    return [*start, *placed, *videos, "--out", str(folder / "out")]


def imported(command: list[str]) -> Manifest:
    assert main([*command, "--keep-missing"]) == 0
    return read_manifest(Path(command[-1]) / "manifest.parquet")


def rows(manifest: Manifest, *columns: str) -> list[tuple[Any, ...]]:
    """Return columns of all rows, labels as names."""
    found = []
    for row in manifest.table.to_pylist():
        for name, task in manifest.tasks.items():
            names = task.classes.names
            row[name] = [names[k] for k in row[name]] if task.labels == "multi" else names[row[name]]
        found.append(tuple(row[column] for column in columns))
    return found


def faults(command: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what a refused import says, without the folder of the source."""
    capsys.readouterr()
    assert main([*command, "--keep-missing"]) == 2
    assert not (Path(command[-1]) / "manifest.parquet").exists()
    said = capsys.readouterr().err.replace(f"{Path(command[-1]).parent}/", "")
    return [line.removeprefix("hoi-data: ") for line in said.splitlines() if line != "hoi-data: bad input"]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


# --- what all formats have -----------------------------------------------------------------------------------------


def test_the_command_has_every_format() -> None:
    parser = argparse.ArgumentParser()
    add_import(parser, None)
    (formats,) = (action for action in parser._actions if action.choices)
    own = [command.format for command in COMMANDS.values() if isinstance(command, ImportCommand)]
    assert {*own, *(formats.choices or ())} == FORMATS.keys() == SOURCES.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_windows_files_give_the_same_manifest(name: str, tmp_path: Path) -> None:
    plain = imported(source(tmp_path / "a", name))
    files, _ = SOURCES[name]
    windows = {file: "\ufeff" + text.replace("\n", "\r\n") + "\r\n" for file, text in files.items() if text}
    other = imported(source(tmp_path / "b", name, windows))
    assert other.table == plain.table
    assert other.tasks == plain.tasks


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_written_where_no_video_is(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(source(tmp_path, name)) == 2
    said = capsys.readouterr().err
    assert "annotated clips is below" in said
    assert "--keep-missing lists them all the same" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("content", ["", "\n\n", "\xff\xfe", '"', "a,b\n", "{", "["])
def test_files_of_something_else_are_refused(
    name: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files, _ = SOURCES[name]
    for file in files:
        if "excluded" not in file or content.strip():
            command = source(tmp_path / file.replace("/", "_"), name, {file: content})
            (Path(command[-1]).parent / file).write_bytes(content.encode("latin-1"))
            said = faults(command, capsys)
            assert Path(file).name in said[0] or "nothing to write" in said[0] or "no list" in said[0]


def test_a_missing_clip_is_listed_and_groups_stay_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"V{k},S{k % 5},,,,,,,,c000 1.0 2.0,9.0\n" for k in range(40)]
    command = source(tmp_path, "charades", {"Charades_v1_train.csv": CHARADES_HEADER + "".join(lines)})
    touch(tmp_path / "v", *(f"deep/{k % 3}/V{k}.MP4" for k in range(1, 40)))
    assert main([*command, "--val-fraction", "0.4"]) == 0
    manifest = read_manifest(tmp_path / "out" / "manifest.parquet")
    groups = {split: set(manifest.split(split).table.column("group").to_pylist()) for split in ("train", "val")}
    assert {split: len(of) for split, of in groups.items()} == {"train": 3, "val": 2}
    assert not groups["train"] & groups["val"]
    assert ("V7", "deep/1/V7.MP4") in rows(manifest, "clip_id", "path")
    missing = (tmp_path / "out" / "missing_clips.txt").read_text().splitlines()
    assert [line.split("\t")[1] for line in missing] == ["V0", "YSE8U"]
    assert "of train were drawn for val (--val-fraction 0.4)" in capsys.readouterr().out


def test_a_report_is_written_and_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*source(tmp_path, "slowfast"), "--keep-missing"]
    assert main([*command, "--dry-run"]) == 0
    dry = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main(command) == 0
    assert dry == capsys.readouterr().out + "dry run: nothing was written\n"
    report = json.loads((tmp_path / "out" / "import.json").read_text())
    assert report["format"] == "slowfast"
    assert report["options"]["val_list"] == str(tmp_path / "val.csv")
    assert report["notes"][1].endswith("are in the manifest all the same (--keep-missing)")
    assert report["notes"][2] == "label: classes without a clip: 1"


def test_val_is_drawn_by_class_where_there_are_no_groups(tmp_path: Path) -> None:
    text = "".join(f"{k}.mp4 {int(k >= 10)}\n" for k in range(15))
    manifest = imported(source(tmp_path, "pytorchvideo", {"train.csv": text}))
    assert manifest.split("train").counts("label").positives == (8, 4)
    assert manifest.split("val").counts("label").positives == (2, 1)


def test_two_videos_of_a_name_are_refused_unless_one_is_its_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = source(tmp_path, "charades")
    touch(tmp_path / "v", "46GP8.mp4", "N11GT.mp4", "frames/46GP8/46GP8-000001.jpg")
    assert rows(imported(command), "path") == [("46GP8.mp4",), ("N11GT.mp4",), ("YSE8U.mp4",)]
    touch(tmp_path / "v", "copy/46GP8.mkv")
    assert main(command) == 2
    assert "two videos below" in (said := capsys.readouterr().err)
    assert "are called '46GP8': 46GP8.mp4 and copy/46GP8.mkv; keep one of them there" in said


def test_stretches_of_frame_folders_need_their_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = source(tmp_path, "charades")
    touch(tmp_path / "v", *(f"46GP8/46GP8-{k:06}.jpg" for k in range(1, 601)))
    assert main([*command, "--level", "segment"]) == 2
    assert "46GP8 is a folder of frames: say with --fps how many are a second" in capsys.readouterr().err
    assert main([*command, "--level", "segment", "--fps", "24"]) == 0
    manifest = read_manifest(tmp_path / "out" / "manifest.parquet")
    assert set(rows(manifest, "path", "num_frames", "fps")) == {("46GP8", 600, 24.0)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--val-fraction", "1"], "--val-fraction must be at least 0 and below 1, got 1"),
        (["--val-fraction", "nan"], "--val-fraction must be at least 0 and below 1, got nan"),
        (["--fps", "0"], "--fps must be frames per second above 0, got 0"),
        (["--window", "-1"], "--window must be seconds above 0, got -1"),
        (["--offset", "inf"], "--offset must be seconds of at least 0, got inf"),
        (["--videos", "none"], "none is not a folder; it must be that of the videos"),
        (["--annotations", "none"], "neither ava_train_v*.csv nor ava_val_v*.csv is in none"),
    ],
)
def test_options_that_cannot_be(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*source(tmp_path, "ava"), *options]) == 2
    assert words in capsys.readouterr().err


def test_an_imported_stretch_shows_its_frames(tmp_path: Path) -> None:
    text = EPIC_HEADER + "P01_01_0,P01,P01_01,,00:00:00.50,00:00:01.00,15,30,,,1,,2,,[2]\n"
    command = source(tmp_path, "epic-kitchens", {"EPIC_100_train.csv": text})
    (tmp_path / "v" / "P01" / "videos").mkdir(parents=True)
    encode(tmp_path / "v" / "P01" / "videos" / "P01_01.MP4", 60)
    assert main(command) == 0
    manifest = read_manifest(tmp_path / "out" / "manifest.parquet")
    with open_clip(manifest.clip(0)) as reader:
        assert [number_of(frame) for frame in reader.read(reader.window())] == list(range(15, 30))


# --- each format ---------------------------------------------------------------------------------------------------


def test_kinetics(tmp_path: Path) -> None:
    command = source(tmp_path, "kinetics")
    touch(tmp_path / "v", "train/shooting goal (soccer)/---QUuC4vJs_000084_000094.mp4", "-_dbcJuKJQN_000040_000050.mkv")
    manifest = imported(command)
    assert manifest.tasks["label"].classes.names == ("air drumming", "shooting goal (soccer)")
    assert rows(manifest, "clip_id", "path", "split", "group", "label") == [
        (
            "---QUuC4vJs_000084_000094",
            "train/shooting goal (soccer)/---QUuC4vJs_000084_000094.mp4",
            "train",
            "---QUuC4vJs",
            "shooting goal (soccer)",
        ),
        (
            "-_dbcJuKJQN_000040_000050",
            "-_dbcJuKJQN_000040_000050.mkv",
            "train",
            "-_dbcJuKJQN",
            "air drumming",
        ),
        (
            "--nQbRBEz2s_000104_000114",
            "--nQbRBEz2s_000104_000114.mp4",
            "val",
            "--nQbRBEz2s",
            "air drumming",
        ),
    ]
    (tmp_path / "classes.txt").write_text("shooting goal (soccer)\nyoga\nair drumming\n")
    named = imported([*command[:-2], "--classes", str(tmp_path / "classes.txt"), "--task", "verb", *command[-2:]])
    assert named.tasks["verb"].classes.names == ("shooting goal (soccer)", "yoga", "air drumming")


def test_faults_of_kinetics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "label,youtube_id,time_start,time_end,split\n"
    lines = ["a,x/../y,1,2,train", "a,k,2,1,train", "a,k,1,2,tran", "a,k,1", 'a,"k,1,2,train', "a,k,-1,2,train"]
    command = source(
        tmp_path, "kinetics", {"train.csv": text + "\n".join([*lines, "a,k,1,2,val", "b,k,1,2,val", ",l,1,2,val"])}
    )
    assert faults(command, capsys) == [
        "train.csv, line 2: youtube_id must be letters, digits, '-' and '_', got 'x/../y'",
        "train.csv, line 3: it starts at 2 s and ends at 1 s: a clip must end after it starts",
        "train.csv, line 4: split must be one of train, training, val, valid, validation, validate, dev, test, "
        "testing, eval, evaluation, got 'tran'",
        "train.csv, line 5: 3 cells where the header has 5: 'a,k,1'",
        "train.csv, line 6: not csv: unexpected end of data; a cell in quotes must end on its line",
        "train.csv, line 7: time_start must be a number of at least 0, got '-1'",
        "train.csv, line 9: clip 'k_000001_000002' is in train.csv, line 8 already",
    ]
    command = source(tmp_path, "kinetics", {"train.csv": "youtube_id,time_start,time_end,splits\nk,1,2,test\n"})
    assert faults(command, capsys) == [
        "train.csv, line 1: no column 'label'; needed are label, youtube_id, time_start, time_end, split",
        "train.csv, line 1: no column 'split'; did you mean 'splits'?; needed are label, youtube_id, time_start, "
        "time_end, split",
    ]
    command = source(tmp_path, "kinetics")
    (tmp_path / "classes.txt").write_text("air drummin\n")
    assert faults([*command[:-2], "--classes", str(tmp_path / "classes.txt"), *command[-2:]], capsys) == [
        "train.csv, line 2: unknown class 'shooting goal (soccer)'",
        "train.csv, line 3: unknown class 'air drumming'; did you mean 'air drummin'?",
        "val.csv, line 2: unknown class 'air drumming'; did you mean 'air drummin'?",
    ]


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a/1.mp4 0\nb/2.mp4 2\n", []),
        ("a/1.mp4,0\nb/2.mp4, 2\n", []),
        ("a/1.mp4|0\nb/2.mp4|02\n", ["--separator", "|"]),
        ("{v}/a/1.mp4 0\n{v}/b/2.mp4 2\nb/3.mp4 -1\n", []),
    ],
)
def test_slowfast(text: str, options: list[str], tmp_path: Path) -> None:
    val = "3.mp4|2" if options else "3.mp4 2"
    command = source(tmp_path, "slowfast", {"train.csv": text.replace("{v}", str(tmp_path / "v")), "val.csv": val})
    manifest = imported([*command[:-2], *options, *command[-2:]])
    assert manifest.tasks["label"].classes.names == ("0", "1", "2")  # ids stay what they were
    assert rows(manifest, "clip_id", "split", "label") == [
        ("a/1.mp4", "train", "0"),
        ("b/2.mp4", "train", "2"),
        ("3.mp4", "val", "2"),
    ]


def test_faults_of_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["../a.mp4 0", "/etc/passwd 0", "a.mp4 x", "b.mp4 2000", "c.mp4 0", "./c.mp4 0", "d\x01.mp4 0", "3"]
    command = source(tmp_path, "slowfast", {"train.csv": "\n".join(lines), "val.csv": "e.mp4 0"})
    label = "label must be a class id below 2000, got"
    assert faults(command, capsys) == [
        "train.csv, line 1: path '../a.mp4' leaves the folder v",
        "train.csv, line 2: path '/etc/passwd' leaves the folder v",
        f"train.csv, line 3: {label} 'x'; --classes gives names",
        f"train.csv, line 4: {label} '2000'; --classes gives names",
        "train.csv, line 6: clip 'c.mp4' is in train.csv, line 5 already",
        "train.csv, line 7: 'd\\x01.mp4' contains control characters",
        "train.csv, line 8: must be a path and a label, got '3'",
    ]
    (tmp_path / "classes.txt").write_text("1 take\n2 put\n")
    command = source(tmp_path, "slowfast", {"train.csv": "a.mp4 1\nb.mp4 0", "val.csv": "c.mp4 2"})
    assert faults([*command[:-2], "--classes", str(tmp_path / "classes.txt"), *command[-2:]], capsys) == [
        "train.csv, line 2: label 0 is not among the class ids, 1 to 2"
    ]
    assert main([*command[:2], *command[-4:]]) == 2
    assert "name a list with --list, --val-list or --test-list" in capsys.readouterr().err


def test_pytorchvideo(tmp_path: Path) -> None:
    text = "my videos/1.mp4 0\nb/2.mp4   1\nmy other/3.mp4\nb/4.mp4 -1\n"
    manifest = imported(source(tmp_path, "pytorchvideo", {"train.csv": text}))
    assert rows(manifest, "clip_id", "label") == [("my videos/1.mp4", "0"), ("b/2.mp4", "1")]


def test_mmaction2_lists_below_the_folders_of_their_splits(tmp_path: Path) -> None:
    command = source(tmp_path, "mmaction2")
    touch(tmp_path / "v", "videos_train/a/1.mp4", "videos_val/c/3.mp4", "videos_val/a/1.mp4")
    manifest = imported(command)
    assert rows(manifest, "clip_id", "split", "label") == [
        ("videos_train/a/1.mp4", "train", ["0", "3"]),
        ("videos_train/b/2.mp4", "train", ["2"]),
        ("videos_val/c/3.mp4", "val", ["1", "2", "3"]),
    ]


@pytest.mark.parametrize("form", ["list", "json"])
def test_mmaction2_frame_folders(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(
        tmp_path / "v",
        *(f"some dir/one/img_{k:05}.jpg" for k in range(1, 8)),
        "two/img_00001.jpg",
        "two/flow_x_00001.jpg",
    )
    (tmp_path / "l.txt").write_text("some dir/one 7 1\ntwo 1 0\n")
    records = [
        {"frame_dir": "some dir/one", "total_frames": 7, "label": [1]},
        {"frame_dir": "two", "total_frames": 1, "label": 0},
        {"frame_dir": "three", "total_frames": 1, "label": []},
    ]
    (tmp_path / "l.json").write_text(json.dumps(records))
    file = tmp_path / ("l.txt" if form == "list" else "l.json")
    options = ["--frames"] if form == "list" else []
    out = ["--videos", str(tmp_path / "v"), "--out", str(tmp_path / "out")]
    manifest = imported(["import", "mmaction2", "--list", str(file), *options, *out])
    assert rows(manifest, "path", "num_frames", "label") == [("some dir/one", 7, "1"), ("two", 2, "0")]
    assert (
        "another number of images than was annotated: 1, such as two with 2 images for 1 frames"
        in capsys.readouterr().out
    )


def test_faults_of_mmaction2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--videos", str(tmp_path), "--out", str(tmp_path / "out")]
    (tmp_path / "l.txt").write_text("a x 1\nb 3 1\n")
    command = ["import", "mmaction2", "--frames", "--list", str(tmp_path / "l.txt"), *out]
    assert faults(command, capsys) == ["l.txt, line 1: must be a path, its number of frames and a label, got 'a x 1'"]
    records = [
        {"filename": "a.mp4", "label": [1, 2]},
        {"filename": "b.mp4", "label": {"action": [1]}},
        {"filename": 3, "label": 1},
        {"frame_dir": "c", "total_frames": "7", "label": 1},
        7,
        {"filename": "../d.mp4", "label": 1},
        {"filename": "\ud800.mp4", "label": True},
    ]
    (tmp_path / "l.json").write_text(json.dumps(records))
    command = ["import", "mmaction2", "--list", str(tmp_path / "l.json"), *out]
    assert faults(command, capsys) == [
        "l.json, row 1: several labels, [1, 2]; is the file of a multi-label task? (--multi-label)",
        "l.json, row 2: label must be a class id or a list of class ids, got {'action': [1]}",
        "l.json, row 3: must be an object with filename or frame_dir, got {'filename': 3, 'label': 1}",
        "l.json, row 4: total_frames must be a whole number, got '7'",
        "l.json, row 5: must be an object with filename or frame_dir, got 7",
        f"l.json, row 6: path '../d.mp4' leaves the folder {tmp_path}",
        "l.json, row 7: label must be a class id or a list of class ids, got True",
    ]


def test_huggingface_folders_name_the_classes_where_there_is_no_metadata(tmp_path: Path) -> None:
    touch(tmp_path / "v", "train/dog/1.mp4", "train/cat/2.mp4", "validation/cat/3.mp4", "eval/dog/4.mp4")
    command = [
        "import",
        "huggingface",
        "--label",
        "animal",
        "--videos",
        str(tmp_path / "v"),
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(command) == 0
    assert sorted(rows(read_manifest(tmp_path / "o" / "manifest.parquet"), "clip_id", "split", "animal")) == [
        ("eval/dog/4.mp4", "test", "dog"),
        ("train/cat/2.mp4", "train", "cat"),
        ("train/dog/1.mp4", "train", "dog"),
        ("validation/cat/3.mp4", "val", "cat"),
    ]


def test_huggingface_options_that_need_metadata(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path / "v", "train/dog/1/000.jpg", "train/cat/2.mp4", "test/cat/3.mp4")
    command = ["import", "huggingface", "--videos", str(tmp_path / "v"), "--out", str(tmp_path / "o")]
    assert main([*command, "--keep-missing", "--file-column", "file_name"]) == 2
    said = capsys.readouterr().err
    assert "the folders name the classes, and what is there is listed" in said
    assert "leave out --file-column, --keep-missing, or add metadata" in said
    assert not (tmp_path / "o").exists()
    assert main([*command, "--fps", "12.5"]) == 0
    manifest = read_manifest(tmp_path / "o" / "manifest.parquet")
    assert {*rows(manifest, "path", "fps")} == {
        ("train/dog/1", 12.5),
        ("train/cat/2.mp4", None),
        ("test/cat/3.mp4", None),
    }


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_huggingface_metadata(form: str, tmp_path: Path) -> None:
    found: dict[str, list[dict[str, Any]]] = {
        "train": [{"file_name": "deep/1.mp4", "verb": "take", "n": 7}, {"file_name": "2.mp4", "verb": "put", "n": 9}],
        "dev": [{"file_name": "3.mp4", "verb": "put", "n": 7}, {"file_name": "4.mp4", "verb": None, "n": 7}],
    }
    for split, records in found.items():
        file = tmp_path / "v" / "data" / split / f"metadata.{form}"
        file.parent.mkdir(parents=True)
        if form == "parquet":
            parquet.write_table(pa.Table.from_pylist(records), file)
        elif form == "jsonl":
            file.write_text("".join(json.dumps(record) + "\n" for record in records))
        else:
            cells = ["file_name,verb,n", *(",".join(str(cell or "") for cell in each.values()) for each in records)]
            file.write_text("\n".join(cells))
    command = ["import", "huggingface", "--label", "verb", "--label", "n", "--videos", str(tmp_path / "v")]
    manifest = imported([*command, "--out", str(tmp_path / "out")])
    assert manifest.tasks["verb"].classes.names == ("put", "take")
    assert manifest.tasks["n"].classes.names == tuple(map(str, range(10)))
    assert sorted(rows(manifest, "path", "split", "verb", "n")) == [
        ("data/dev/3.mp4", "val", "put", "7"),
        ("data/train/2.mp4", "train", "put", "9"),
        ("data/train/deep/1.mp4", "train", "take", "7"),
    ]


def test_huggingface_lists_of_labels_and_other_file_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [
        {"left_file_name": "1l.mp4", "right_file_name": "1r.mp4", "label": [1, 0, 1]},
        {"left_file_name": "2l.mp4", "right_file_name": "2r.mp4", "label": 2},
    ]
    (tmp_path / "c.txt").write_text("take\nput\ncut\n")
    text = "".join(json.dumps(record) + "\n" for record in records)
    command = source(tmp_path, "huggingface", {"v/train/metadata.csv": "", "v/metadata.jsonl": text})
    (tmp_path / "v" / "train" / "metadata.csv").unlink()
    assert faults(command, capsys)[0] == (
        "v/metadata.jsonl, line 1: several videos per row, in left_file_name, right_file_name; choose one "
        "with --file-column"
    )
    options = ["--file-column", "right_file_name", "--classes", str(tmp_path / "c.txt")]
    manifest = imported([*command[:-2], *options, *command[-2:]])
    assert manifest.tasks["label"].classes.names == ("take", "put", "cut")
    assert rows(manifest, "path", "label") == [("1r.mp4", ["take", "put"]), ("2r.mp4", ["cut"])]


def test_faults_of_huggingface(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        '{"file_name": "../../etc/passwd", "label": "a"}',
        '{"file_name": "1.mp4", "label": {"a": 1}}',
        '{"file_name": "1.mp4"}',
        '{"file_names": ["1.mp4"], "label": "a"}',
        '{"file_name": "1.mp4", "label": "a", "label": "b"}',
        '["1.mp4", "a"]',
        '{"file_name": "\\u0007.mp4", "label": "a"}',
        '{"file_name": "2.mp4", "label": "a\\u0007"}',
    ]
    command = source(tmp_path, "huggingface", {"v/train/metadata.csv": "", "v/train/metadata.jsonl": "\n".join(lines)})
    (tmp_path / "v" / "train" / "metadata.csv").unlink()
    file = "v/train/metadata.jsonl, line"
    assert faults(command, capsys) == [
        f"{file} 1: the video must be a path below v/train, got '../../etc/passwd'",
        f"{file} 2: label must be a class name, a class id or a list of these, got {{'a': 1}}",
        f"{file} 3: no column 'label' for --label; there are 'file_name'",
        f"{file} 4: no column 'file_name'; 'file_names' lists several videos per row, which a manifest does not hold",
        f"{file} 5: not JSON: key 'label' occurs twice in an object",
        f"{file} 6: must be an object such as {{\"file_name\": …}}, got ['1.mp4', 'a']",
        f"{file} 7: 'train/\\x07.mp4' contains control characters",
        f"{file} 8: 'a\\x07' contains control characters",
    ]


@pytest.mark.parametrize("all_nouns", [False, True])
def test_epic_kitchens(all_nouns: bool, tmp_path: Path) -> None:
    command = source(tmp_path, "epic-kitchens")
    touch(tmp_path / "v", "P01/videos/P01_01.MP4", "P02/videos/P02_03.MP4")
    manifest = imported([*command[:-2], *(["--all-nouns"] if all_nouns else []), *command[-2:]])
    assert manifest.tasks["verb"].classes.names == ("put", "open")
    assert manifest.tasks["noun"].classes.names == ("bin", "rubbish", "door")
    nouns: list[Any] = [["door"], ["bin", "rubbish"], ["bin"]] if all_nouns else ["door", "rubbish", "bin"]
    assert rows(manifest, "clip_id", "path", "split", "group", "start", "end", "verb", "noun") == [
        ("P01_01_0", "P01/videos/P01_01.MP4", "train", "P01", 0.14, 3.37, "open", nouns[0]),
        ("P02_03_1", "P02/videos/P02_03.MP4", "train", "P02", 3683.79, 3684.60, "put", nouns[1]),
        ("P01_11_0", "P01_11.mp4", "val", "P01", 0.0, 1.89, "put", nouns[2]),
    ]


def test_faults_of_epic_kitchens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sound = "P01_01_{k},P01,P01_01,,00:00:00.14,00:00:03.37,8,202,,,1,,2,,[2]\n"
    lines = [sound.format(k=k) for k in range(6)]
    lines[1] = lines[1].replace("03.37", "00.14")
    lines[2] = lines[2].replace("00:00:03.37", "00:61:03.37")
    lines[3] = lines[3].replace("[2]", '"[2, 3]"')
    lines[4] = lines[4].replace(",1,", ",2,")
    lines[5] = lines[5].replace("[2]", "['door']").replace("P01_01_5", "P01_01_0")
    command = source(tmp_path, "epic-kitchens", {"EPIC_100_train.csv": EPIC_HEADER + "".join(lines)})
    assert faults(command, capsys) == [
        "EPIC_100_train.csv, line 3: it starts at 0.14 s and ends at 0.14 s: a clip must end after it starts",
        "EPIC_100_train.csv, line 4: stop_timestamp must be a time such as 00:01:02.53, got '00:61:03.37'",
        "EPIC_100_train.csv, line 5: all_noun_classes must be a class id from 0 to 2, got '3'",
        "EPIC_100_train.csv, line 6: verb_class must be a class id from 0 to 1, got '2'",
        "EPIC_100_train.csv, line 7: all_noun_classes must be a list such as [54, 36], got \"['door']\"",
    ]
    command = source(tmp_path, "epic-kitchens", {"EPIC_100_noun_classes.csv": "id,key\n0,bin\n2,door\n2,bin\n"})
    assert faults(command, capsys)[:3] == [
        "EPIC_100_noun_classes.csv, line 3: class id 1 must come here, got '2'; ids count up from 0",
        "EPIC_100_noun_classes.csv, line 4: class 'bin' is on line 2 already",
        "EPIC_100_train.csv, line 2: all_noun_classes must be a class id from 0 to 1, got '2'",
    ]


def test_charades_by_video(tmp_path: Path) -> None:
    manifest = imported(source(tmp_path, "charades"))
    cooking, clothes, sitting = "Cooking something", "Holding some clothes", "Sitting in a chair"
    assert manifest.tasks["action"].classes.names == (clothes, sitting, cooking)
    assert sorted(rows(manifest, "clip_id", "path", "group", "start", "action")) == [
        ("46GP8", "46GP8.mp4", "HR43", None, [clothes, sitting, cooking]),
        ("N11GT", "N11GT.mp4", "HR44", None, []),
        ("YSE8U", "YSE8U.mp4", "QQ", None, [sitting]),
    ]
    assert [len(manifest.split(split)) for split in ("train", "val", "test")] == [2, 0, 1]


def test_charades_by_segment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = source(
        tmp_path, "charades", {"Charades_v1_test.csv": CHARADES_HEADER + "YSE8U,QQ,,,,,,,,c001 3.00 3.00,30.50\n"}
    )
    manifest = imported([*command[:-2], "--level", "segment", *command[-2:]])
    cooking, clothes, sitting = "Cooking something", "Holding some clothes", "Sitting in a chair"
    assert rows(manifest, "clip_id", "path", "start", "end", "action") == [
        ("46GP8_000", "46GP8.mp4", 11.9, 21.2, [cooking]),
        ("46GP8_001", "46GP8.mp4", 0.0, 12.6, [clothes]),
        ("46GP8_002", "46GP8.mp4", 20.0, None, [sitting]),  # it would go on after the end of the video
    ]
    assert (
        "left out, action that does not end after it starts, or starts after the end of the video: 1"
        in capsys.readouterr().out
    )


def test_faults_of_charades(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        "A,S,,,,,,,,c003 1.0 2.0,9",
        "B,S,,,,,,,,c000 1.0,9",
        "C,S,,,,,,,,c000 1.0 2.0,",
        "../D,S,,,,,,,,c000 1.0 2.0,9",
        "E,,,,,,,,,c000 1.0 2.0,9",
    ]
    command = source(tmp_path, "charades", {"Charades_v1_train.csv": CHARADES_HEADER + "\n".join(lines)})
    assert faults(command, capsys) == [
        "Charades_v1_train.csv, line 2: an action must be a class id from 0 to 2, got '003'",
        "Charades_v1_train.csv, line 3: actions must be a list such as c092 11.90 21.20;c147 0.00 12.60, "
        "got 'c000 1.0'",
        "Charades_v1_train.csv, line 4: length must be a number of at least 0, got ''",
        "Charades_v1_train.csv, line 5: '../D' is not the name of a file",
        "Charades_v1_train.csv, line 6: id and subject must not be empty",
    ]


def test_ava(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = source(tmp_path, "ava")
    touch(tmp_path / "v", "trainval/-5KQ66BBWC4.mkv")
    manifest = imported(command)
    assert manifest.tasks["action"].classes.names == ("dance", "sit")
    assert rows(manifest, "clip_id", "path", "split", "group", "start", "end", "action") == [
        ("-5KQ66BBWC4_0902", "trainval/-5KQ66BBWC4.mkv", "train", "-5KQ66BBWC4", 900.5, 903.5, ["dance", "sit"]),
        ("1j20qq1JyX4_1798", "1j20qq1JyX4.mp4", "val", "1j20qq1JyX4", 1796.5, 1799.5, ["sit"]),
    ]
    said = capsys.readouterr().out
    assert "note: a row has the actions of all persons around a key frame" in said
    for what in ("an excluded key frame", "an action that is not in the list of actions"):
        assert f"left out, line {'of' if 'excl' in what else 'with'} {what}: 1" in said
    cut = imported([*command[:-2], "--offset", "901.5", "--window", "2", *command[-2:]])
    assert rows(cut, "start", "end") == [(0.0, 1.5), (895.5, 897.5)]


def test_faults_of_ava(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["A,902,0,0,1,1.2,4,0", "A,902,0,0,1,1,4", "A,x,0,0,1,1,4,0", "A,902,0,0,1,1,four,0", "..,902,0,0,1,1,4,0"]
    command = source(tmp_path, "ava", {"ava_train_v2.2.csv": "\n".join(lines)})
    assert faults(command, capsys) == [
        "ava_train_v2.2.csv, line 1: y2 must be from 0 to 1, got '1.2'",
        "ava_train_v2.2.csv, line 2: 7 cells where there must be 8: 'A,902,0,0,1,1,4'",
        "ava_train_v2.2.csv, line 3: middle_frame_timestamp must be a number of at least 0, got 'x'",
        "ava_train_v2.2.csv, line 4: action_id must be a whole number, got 'four'",
        "ava_train_v2.2.csv, line 5: '..' is not the name of a file",
    ]
    actions = ACTIONS + 'item {\n  name: "dance"\n  id: 5\n}\nitem {\n  id: 6\n}\nitem {\n  name: "run"\n'
    command = source(tmp_path, "ava", {"ava_action_list_v2.2.pbtxt": actions})
    assert faults(command, capsys) == [
        "ava_action_list_v2.2.pbtxt, line 10: action 'dance' or its id 5 occurs twice",
        "ava_action_list_v2.2.pbtxt, line 14: an action must be item {name: \"dance\" id: 4}, got 'item {\\nid: 6\\n}'",
        'ava_action_list_v2.2.pbtxt, line 17: not an item {name: "dance" id: 4}: \'item {\\nname: "run"\'',
    ]
