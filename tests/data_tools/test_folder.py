"""Folders and lists of one's own videos: every accepted form gives the same manifest, every fault is said."""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_tools.cli import main
from data_tools.sources import Imported
from hoi_train.core.records import UserError
from hoi_train.data.manifest import Manifest, ManifestError, read_manifest
from tests.data_tools.importing import import_with


def import_folder(videos: Path, out: Path, **given: Any) -> Imported:
    return import_with("folder", videos, out, **given)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def labels(manifest: Manifest, task: str = "label") -> dict[str, tuple[str, str]]:
    """Return split and class name of each clip."""
    clips = (manifest.clip(row) for row in range(len(manifest)))
    names = manifest.tasks[task].classes.names
    return {clip.clip_id: (clip.split, names[clip.labels[task]]) for clip in clips}  # type: ignore[index]


# --- folders -------------------------------------------------------------------------------------------------------


def test_one_folder_a_class(tmp_path: Path) -> None:
    root = touch(
        tmp_path / "v",
        *(f"take/{k}.mp4" for k in range(10)),
        *(f"put/deep/{k}.AVI" for k in range(3)),
        "open/x.mkv",
        "open/.hidden.mp4",
        ".git/y.mp4",
    )
    made = import_folder(root, tmp_path / "out")
    manifest = read_manifest(made.path)
    assert manifest.tasks["label"].classes.names == ("open", "put", "take")
    found = labels(manifest)
    assert found["open/x.mkv"] == ("train", "open")
    counts = Counter(found.values())
    assert counts == {
        ("train", "take"): 8,
        ("val", "take"): 2,
        ("train", "put"): 2,
        ("val", "put"): 1,
        ("train", "open"): 1,
    }
    assert made.notes == ("no val was given: 3 of train were drawn for val (--val-fraction 0.2)",)
    assert manifest.root == root


def test_groups_from_names_stay_whole_when_val_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{label}/P{person:02}_{take}.mp4" for label in "ab" for person in range(10) for take in range(3)]
    root = touch(tmp_path / "v", *names)
    command = ["folder", str(root), "--out", str(tmp_path / "out"), "--group"]
    assert main([*command, r"/(P\d+)_"]) == 0
    assert "12 of train were drawn for val" in capsys.readouterr().out
    manifest = read_manifest(tmp_path / "out" / "manifest.parquet")
    assert {clip_id: clip_id[2:5] for clip_id in manifest.clip_ids} == dict(
        zip(manifest.clip_ids, manifest.table.column("group").to_pylist(), strict=True)
    )
    groups = {split: set(manifest.split(split).table.column("group").to_pylist()) for split in ("train", "val")}
    assert len(groups["train"]) == 8
    assert not groups["train"] & groups["val"]
    touch(root, "b/other.mp4")
    assert main([*command, r"P\d+"]) == 2
    said = capsys.readouterr().err
    assert r"--group 'P\d+' finds nothing in the paths of 1 of 61 clips, such as 'b/other.mp4'" in said
    assert main([*command, "("]) == 2
    assert "--group '(' is not a regular expression: missing )" in capsys.readouterr().err


def test_the_draw_depends_on_seed_and_name_alone(tmp_path: Path) -> None:
    root = touch(tmp_path / "v", *(f"a/{k}.mp4" for k in range(50)), *(f"b/{k}.mp4" for k in range(50)))

    def val_of(seed: int, fraction: float) -> set[str]:
        made = import_folder(root, tmp_path / "out", seed=seed, val_fraction=fraction)
        return set(read_manifest(made.path).split("val").clip_ids)

    first = val_of(0, 0.2)
    assert len(first) == 20
    assert val_of(0, 0.2) == first
    assert val_of(1, 0.2) != first
    assert first < val_of(0, 0.5)
    assert len(val_of(0, 0.99)) == 98  # each class keeps a clip in train
    assert val_of(0, 0.0) == set()


@pytest.mark.parametrize("val", ["val", "valid", "validation", "validate", "Val"])
def test_splits_above_the_classes(tmp_path: Path, val: str) -> None:
    root = touch(
        tmp_path / "v",
        "train/a/1.mp4",
        "train/b/2.mp4",
        f"{val}/a/1.mp4",
        "test/b/3.mp4",
        "test/c/4.mp4",
        "extra/5.mp4",
    )
    made = import_folder(root, tmp_path / "out", task="verb", val_fraction=0.9)
    assert labels(read_manifest(made.path), "verb") == {
        "train/a/1.mp4": ("train", "a"),
        "train/b/2.mp4": ("train", "b"),
        f"{val}/a/1.mp4": ("val", "a"),
        "test/b/3.mp4": ("test", "b"),
        "test/c/4.mp4": ("test", "c"),
    }
    assert made.notes[0] == "passed over, folder 'extra' beside train: 1"
    assert made.notes[1].endswith("verb: split test has classes that train never has: c")


def test_a_class_may_be_called_test(tmp_path: Path) -> None:
    root = touch(tmp_path / "v", "test/1.mp4", "other/2.mp4")
    assert set(labels(read_manifest(import_folder(root, tmp_path / "out").path)).values()) == {
        ("train", "test"),
        ("train", "other"),
    }


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("val/take/1.mp4", "val/put/2.mp4", "test/take/3.mp4"), "test and val"),
        (("val/take/1.mp4", "other/2.mp4"), "val"),
        (("Testing/1.mp4", "val/2.mp4"), "Testing and val"),
        (("test/take/1/0.jpg",), "test"),
    ],
)
def test_splits_without_train_are_not_taken_for_classes(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    root = touch(tmp_path / "v", *names)
    with pytest.raises(UserError, match=f"v: {said} named like a split, and no folder like train; add train"):
        import_folder(root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    root = touch(tmp_path / "v", "take/1.mp4", "put/1.mp4", "put/near/2.mp4")
    touch(tmp_path / "deep", "a/1.mp4", "a/2.mp4", "frames/0.jpg", "frames/1.jpg")
    (root / "take" / "batch").symlink_to(tmp_path / "deep" / "a")
    (root / "take" / "film").symlink_to(tmp_path / "deep" / "frames")
    (root / "put" / "a").symlink_to("near")  # is found where it lies
    (root / "put" / "up").symlink_to("..")
    (tmp_path / "deep" / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "deep" / "a" / "again").symlink_to(tmp_path / "deep" / "frames")
    made = import_folder(root, tmp_path / "out", val_fraction=0)
    assert labels(read_manifest(made.path)) == {
        "put/1.mp4": ("train", "put"),
        "put/near/2.mp4": ("train", "put"),
        "take/1.mp4": ("train", "take"),
        "take/batch/1.mp4": ("train", "take"),
        "take/batch/2.mp4": ("train", "take"),
        "take/film": ("train", "take"),
    }
    assert sorted(made.notes) == [
        "passed over, link to a folder that it lies in: 2",
        "passed over, link to a folder that was looked through already: 2",
    ]


def test_frame_folders_are_clips(tmp_path: Path) -> None:
    root = touch(tmp_path / "v", *(f"a/one/{k:03}.jpg" for k in range(7)), "a/two/0.PNG", "a/cover.jpg")
    made = import_folder(root, tmp_path / "out", val_fraction=0)
    manifest = read_manifest(made.path)
    assert manifest.clip_ids == ("a/one", "a/two")
    assert [manifest.clip(k).num_frames for k in range(2)] == [7, 1]
    assert made.notes == ("passed over, .jpg image that is not in a frame folder of its own: 1",)


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    root = touch(tmp_path / "v", "a/1.mp4", "a/1.txt", "a/2.txt", "a/noname", "b/readme.md", "top.mp4", "README")
    made = import_folder(root, tmp_path / "out", val_fraction=0)
    assert sorted(made.notes) == [
        "passed over, .md file: 1",
        "passed over, .mp4 file outside the class folders: 1",
        "passed over, .txt file: 2",
        "passed over, folder 'b' without a clip: 1",
        "passed over, unnamed file outside the class folders: 1",
        "passed over, unnamed file: 1",
    ]


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS refuses such names itself")
def test_names_that_no_manifest_holds_are_passed_over(tmp_path: Path) -> None:
    root = touch(tmp_path / "v", "a/ü ñ.mp4", "a/new\nline.mp4", "a/\x1b[31m.mp4")
    Path(os.fsdecode(os.fsencode(root / "a") + b"/\xff.mp4")).write_bytes(b"x")
    made = import_folder(root, tmp_path / "out")
    assert read_manifest(made.path).clip_ids == ("a/ü ñ.mp4",)
    assert made.notes == (
        "passed over, clip whose name holds control characters or is not UTF-8: 3",
        "no val clips: train has too few clips or groups to draw any (--val-fraction 0.2)",
    )


def test_folders_that_cannot_be_taken(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        import_folder(tmp_path / "none", tmp_path / "out")
    with pytest.raises(UserError, match=r"no clips in .*: it must hold one folder per class"):
        import_folder(touch(tmp_path / "empty", "a/b.txt"), tmp_path / "out")
    with pytest.raises(UserError, match="folders val and valid both mean val"):
        import_folder(touch(tmp_path / "two", "train/a/1.mp4", "val/a/2.mp4", "valid/a/3.mp4"), tmp_path / "out")
    with pytest.raises(UserError, match="class names must not be empty or have blanks around them"):
        import_folder(touch(tmp_path / "blank", " a/1.mp4"), tmp_path / "out")
    sound = touch(tmp_path / "sound", "a/1.mp4")
    with pytest.raises(UserError, match="a task cannot be called 'path'"):
        import_folder(sound, tmp_path / "out", task="path")
    with pytest.raises(UserError, match=r"--val-fraction must be at least 0 and below 1, got 1\.5"):
        import_folder(sound, tmp_path / "out", val_fraction=1.5)
    with pytest.raises(UserError, match="--classes gives the names of the labels in lists"):
        import_folder(sound, tmp_path / "out", classes=tmp_path / "c.txt")
    assert not (tmp_path / "out").exists()


# --- lists ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return touch(tmp_path / "v", "take/1.mp4", "take/2 b.mp4", "put/3.mp4")


PATHS = ("take/1.mp4", "take/2 b.mp4", "put/3.mp4")
EXPECTED = dict(zip(PATHS, [("train", "take"), ("train", "take"), ("train", "put")], strict=True))


def listed(videos: Path, text: str, classes: str | None = None) -> dict[str, tuple[str, str]]:
    """Import the text as a training list and return what came out."""
    file = videos.parent / "list.txt"
    file.write_bytes(text.encode())
    named = None
    if classes is not None:
        named = videos.parent / "classes.txt"
        named.write_text(classes)
    made = import_folder(videos, videos.parent / "out", train_list=file, classes=named, val_fraction=0)
    return labels(read_manifest(made.path))


@pytest.mark.parametrize(
    ("separator", "form"),
    [(separator, form) for separator in ("\t", ",") for form in ("pl", "lp", "ilp", "ipl")],
)
@pytest.mark.parametrize("ids", [None, {"put": "0", "take": "1"}])
def test_every_form_of_a_line(videos: Path, separator: str, form: str, ids: dict[str, str] | None) -> None:
    rows = [
        {"i": str(k + 1), "p": path, "l": ids[name] if ids else name}
        for k, (path, (_, name)) in enumerate(EXPECTED.items())
    ]
    text = "\n".join(separator.join(row[cell] for cell in form) for row in rows)
    assert listed(videos, text, "put\ntake\n") == EXPECTED
    windows = "\ufeff" + text.replace("\n", "\r\n") + "\r\n\r\n"
    assert listed(videos, windows, "0\tput\n1\ttake\n") == EXPECTED


def test_blanks_separate_where_names_have_none(videos: Path) -> None:
    assert listed(videos, "take/1.mp4 take\nput/3.mp4   put\n") == {
        "take/1.mp4": ("train", "take"),
        "put/3.mp4": ("train", "put"),
    }


def test_a_header_and_quoted_cells_are_taken(videos: Path) -> None:
    text = 'path,label\n"take/2 b.mp4",take\nput/3.mp4,put\n'
    assert set(listed(videos, text)) == {"take/2 b.mp4", "put/3.mp4"}


def test_labels_without_class_names_stand_for_themselves(videos: Path) -> None:
    text = "take/1.mp4\t10\ntake/2 b.mp4\t9\nput/3.mp4\t10\n"
    assert set(listed(videos, text).values()) == {("train", "9"), ("train", "10")}
    manifest = read_manifest(videos.parent / "out" / "manifest.parquet")
    assert manifest.tasks["label"].classes.names == ("9", "10")


def test_a_class_folder_is_not_taken_for_a_path(tmp_path: Path) -> None:
    root = touch(tmp_path / "v", "take/one/0.jpg", "take/two/0.jpg", "put/three/0.jpg")
    assert listed(root, "take\ttake/one\ntake\ttake/two\nput\tput/three\n") == {
        "take/one": ("train", "take"),
        "take/two": ("train", "take"),
        "put/three": ("train", "put"),
    }


def test_lists_a_split_with_paths_below_their_own_folders(tmp_path: Path) -> None:
    root = touch(tmp_path / "v", "train/a/1.mp4", "validate/1.mp4", "validate/2.mp4", "test/9.mp4", "notes.txt")
    lists = {"train_list": tmp_path / "t.txt", "val_list": tmp_path / "v.txt"}
    lists["train_list"].write_text("0\t5\ta/1.mp4\n1\t5\ta/gone.mp4\n")
    lists["val_list"].write_text("0\t5\t2.mp4\n1\t7\t1.mp4\n")
    (tmp_path / "c.txt").write_text("5\tjump\n7\trun fast\n8\tsit\n")
    made = import_folder(root, tmp_path / "out", **lists, classes=tmp_path / "c.txt")
    manifest = read_manifest(made.path)
    assert labels(manifest) == {
        "train/a/1.mp4": ("train", "jump"),
        "validate/2.mp4": ("val", "jump"),
        "validate/1.mp4": ("val", "run fast"),
    }
    assert manifest.tasks["label"].classes.names == ("jump", "run fast", "sit")
    assert made.notes == (
        f"clips not on disk: 1 (1 train); {tmp_path / 'out' / 'missing_clips.txt'} lists them",
        "passed over, .txt file: 1",
        "passed over, video or frame folder that is in no list: 1",
        "label: classes without a clip: sit",
        f"{made.path}: label: split val has classes that train never has: run fast",
    )
    assert (tmp_path / "out" / "missing_clips.txt").read_text() == "train\ttrain/a/gone.mp4\n"
    (root / "train" / "a" / "gone.mp4").write_bytes(b"x")
    import_folder(root, tmp_path / "out", **lists, classes=tmp_path / "c.txt")
    assert not (tmp_path / "out" / "missing_clips.txt").exists()


def faults_of(videos: Path, text: str, classes: str | None = None) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        listed(videos, text, classes)
    return [line.removeprefix(f"{videos.parent}/") for line in str(caught.value).splitlines()]


def test_faults_of_a_list_are_said_at_once(videos: Path) -> None:
    lines = ["take/1.mp4\ttake", "take/1.mp4\tput", "../x.mp4\tput", "/etc/passwd\tput", "put/3.mp4", "put/3.mp4\tputt"]
    assert faults_of(videos, "\n".join([*lines, "a\x01.mp4\tput"]), "take\nput\n") == [
        "list.txt, line 2: clip 'take/1.mp4' is in list.txt, line 1 already",
        f"list.txt, line 3: path '../x.mp4' leaves the folder {videos}",
        f"list.txt, line 4: path '/etc/passwd' leaves the folder {videos}",
        "list.txt, line 5: cells: 1, most lines have 2: 'put/3.mp4'; separate by tabs if names hold blanks",
        "list.txt, line 6: unknown class 'putt'; did you mean 'put'?",
        "list.txt, line 7: 'a\\x01.mp4' contains control characters",
    ]


def test_unknown_ids_and_repeated_classes_are_said(videos: Path) -> None:
    assert faults_of(videos, "take/1.mp4 1\nput/3.mp4 3\n", "1 take\n2 put\n2 open\n") == [
        "classes.txt, line 3: class 'open' or its id 2 occurs twice",
        "list.txt, line 2: label 3 is not among the class ids, 1 to 2",
    ]


@pytest.mark.parametrize("text", ["a b\nc d\n", "take/1.mp4 put/3.mp4\n", "take/1.mp4 5 3\n", "take/1.mp4\n"])
def test_lines_of_unknown_form_are_refused(videos: Path, text: str) -> None:
    (fault,) = faults_of(videos, text)
    assert fault.startswith("list.txt, line 1: cannot tell path and label in [")
    assert fault.endswith("accepted forms: path label | label path | index label path | index path label")


def test_absolute_paths_are_taken_also_through_a_link(videos: Path) -> None:
    (videos.parent / "link").symlink_to(videos)
    text = f"{videos}/take/1.mp4\ttake\n{videos.parent}/link/put/3.mp4\tput\n"
    assert set(listed(videos, text)) == {"take/1.mp4", "put/3.mp4"}
    (fault,) = faults_of(videos, f"{videos.parent}/other.mp4\tput")
    assert fault.startswith(f"list.txt, line 1: path '{videos.parent}"[:90])  # a long path is cut short
    assert fault.endswith(f" leaves the folder {videos}")


def test_empty_and_missing_lists_are_said(videos: Path) -> None:
    assert faults_of(videos, "\n") == ["list.txt: the file is empty"]
    assert faults_of(videos, "path,label\n") == ["list.txt, line 1: only a header"]
    with pytest.raises(ManifestError, match=r"none\.txt: no such file"):
        import_folder(videos, videos.parent / "out", train_list=videos / "none.txt")
    assert faults_of(videos, "take/1.mp4 0\n", "") == [
        "classes.txt: the file is empty",
        "list.txt, line 1: label 0 is not among the class ids, of which there are none",
    ]


def test_lists_of_another_folder_are_refused_with_an_example(videos: Path) -> None:
    with pytest.raises(
        UserError, match=r"none of the 2 annotated clips is below .*/v; looked for files such as .*/x\.mp4"
    ):
        listed(videos, "x.mp4 a\ny.mp4 b\n")


# --- real data -----------------------------------------------------------------------------------------------------


def test_arid_from_its_lists(test_data: Path, tmp_path: Path) -> None:
    arid = test_data / "arid6"
    made = import_folder(
        arid / "clips_128",
        tmp_path,
        train_list=arid / "train.txt",
        val_list=arid / "validate.txt",
        classes=arid / "mapping_table_23.txt",
    )
    assert made.notes == ()
    manifest = read_manifest(made.path)
    assert manifest.tasks["label"].classes.names == ("Jump", "Run", "Sit", "Stand", "Turn", "Walk")
    assert manifest.split("train").counts("label").positives == (25,) * 6
    assert manifest.split("val").counts("label").positives == (17, 15, 15, 16, 17, 16)
    assert all(manifest.clip(row).path.is_file() for row in range(246))
    names = manifest.tasks["label"].classes.names
    for clip in (manifest.clip(row) for row in range(150)):
        assert clip.path.name.startswith(names[clip.labels["label"]])  # type: ignore[index]


def test_arid_from_its_class_folders(test_data: Path, tmp_path: Path) -> None:
    made = import_folder(test_data / "arid6" / "clips_128" / "train", tmp_path)
    manifest = read_manifest(made.path)
    assert manifest.split("train").counts("label").positives == (20,) * 6
    assert manifest.split("val").counts("label").positives == (5,) * 6


def test_mutated_lists_never_escape_as_other_errors(videos: Path) -> None:
    """R15 in small: whatever is done to a list, it is read or refused."""
    draw = random.Random(0)
    outcomes: Counter[str] = Counter()
    for separator in ("\t", ",", " "):
        sound = "".join(f"{path.replace(' ', '')}{separator}{name}\n" for path, (_, name) in EXPECTED.items()).encode()
        for _ in range(150):
            data = bytearray(sound)
            for _ in range(draw.randint(1, 4)):
                position = draw.randrange(len(data))
                replacement = bytes(draw.choices(b'\t," \n\r\0./0\xff', k=draw.randint(0, 3)))
                data[position : position + draw.randint(0, 5)] = replacement
            (videos.parent / "list.txt").write_bytes(data)
            try:
                import_folder(videos, videos.parent / "out", train_list=videos.parent / "list.txt")
                outcomes["read"] += 1
            except UserError:
                outcomes["refused"] += 1
    assert min(outcomes.values()) > 20
