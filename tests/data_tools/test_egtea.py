"""The EGTEA import: every official count comes out, and every fault of the files is said."""

from __future__ import annotations

import csv
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_tools.sources import Imported
from hoi_train.core.records import UserError
from hoi_train.data.manifest import Manifest, ManifestError, read_manifest
from tests.data_tools.importing import import_with

VERB_COUNTS = {
    "train": (429, 779, 1421, 822, 129, 1335, 130, 308, 223, 249, 54, 54, 139, 42, 78, 117, 26, 15, 22),
    "val": (173, 255, 447, 23, 75, 396, 59, 92, 112, 109, 36, 36, 14, 20, 30, 22, 6, 15, 7),
    "test": (150, 253, 454, 208, 51, 420, 46, 98, 81, 85, 22, 22, 37, 15, 26, 33, 7, 7, 7),
}


def import_egtea(annotations: Path, videos: Path, out: Path, **given: Any) -> Imported:
    return import_with("egtea", videos, out, annotations=annotations, **given)


@pytest.fixture(scope="module")
def annotations(test_data: Path) -> Path:
    return test_data / "egtea" / "action_annotation"


@pytest.fixture(scope="module")
def split1(annotations: Path, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    clips, out = tmp_path_factory.mktemp("clips"), tmp_path_factory.mktemp("out")
    return read_manifest(import_egtea(annotations, clips, out, keep_missing=True).path)


# --- the official data ---------------------------------------------------------------------------------------------


def test_split_1_has_the_papers_counts(split1: Manifest) -> None:
    assert {split: len(split1.split(split)) for split in ("train", "val", "test")} == {  # type: ignore[arg-type]
        "train": 6372,
        "val": 1927,
        "test": 2022,
    }
    for split, counts in VERB_COUNTS.items():
        assert split1.split(split).counts("verb").positives == counts  # type: ignore[arg-type]
    full = [train + val for train, val in zip(VERB_COUNTS["train"], VERB_COUNTS["val"], strict=True)]
    assert full == [602, 1034, 1868, 845, 204, 1731, 189, 400, 335, 358, 90, 90, 153, 62, 108, 139, 32, 30, 29]


def test_counts_agree_with_the_file_of_counts(split1: Manifest, test_data: Path) -> None:
    with (test_data / "egtea" / "verb_counts_split1.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(row["verb"] for row in rows) == split1.tasks["verb"].classes.names
    for split, column in (("train", "train_6372"), ("val", "val_1927"), ("test", "test_2022")):
        expected = tuple(int(row[column]) for row in rows)
        assert split1.split(split).counts("verb").positives == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(("split", "several"), [("train", 303), ("val", 103), ("test", 99)])
def test_clips_with_several_nouns(split1: Manifest, split: str, several: int) -> None:
    view = split1.split(split)  # type: ignore[arg-type]
    lengths = [len(nouns) for nouns in view.table.column("noun").to_pylist()]
    assert sum(length > 1 for length in lengths) == several
    assert set(lengths) == {1, 2, 3}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_splits_and_labels_equal_the_authors_lists(split1: Manifest, test_data: Path, split: str) -> None:
    lines = (test_data / "egtea" / "cdb_loss_splits" / f"{split}_split.txt").read_text().splitlines()
    expected = {}
    for line in lines:
        name, _, verb, *nouns = line.split()
        expected[name] = (int(verb) - 1, sorted(int(noun) - 1 for noun in nouns))
    table = split1.split(split).table  # type: ignore[arg-type]
    columns = (table.column(name).to_pylist() for name in ("clip_id", "verb", "noun"))
    assert {name: (verb, nouns) for name, verb, nouns in zip(*columns, strict=True)} == expected


def test_classes_are_the_official_ones_in_their_order(split1: Manifest) -> None:
    verbs, nouns = split1.tasks["verb"].classes, split1.tasks["noun"].classes
    assert (len(verbs), len(nouns)) == (19, 53)
    assert verbs.names[:3] == ("Inspect/Read", "Open", "Take")
    assert verbs.names[8] == "Move Around"
    assert (nouns.names[0], nouns.names[52]) == ("recipe", "strainer")
    assert split1.warnings == ()


def test_op01_is_not_p01(split1: Manifest) -> None:
    column = split1.table.column("group").to_pylist()
    assert len(set(column)) == 32
    assert {"P01", "OP01"} <= set(column)
    names = split1.clip_ids
    assert all(name.startswith(f"{group}-") for name, group in zip(names, column, strict=True))
    assert set(split1.split("val").table.column("group").to_pylist()) == {f"P{k}" for k in range(20, 27)}


@pytest.mark.parametrize(("split", "train", "test"), [(2, 8299, 2022), (3, 8300, 2021)])
def test_other_splits(annotations: Path, tmp_path: Path, split: int, train: int, test: int) -> None:
    made = import_egtea(annotations, tmp_path, tmp_path / "out", split=split, keep_missing=True)
    manifest = read_manifest(made.path)
    assert len(manifest.split("train")) + len(manifest.split("val")) == train
    assert len(manifest.split("test")) == test
    assert len(manifest) == 10321


def test_val_by_fraction_is_exact_and_repeatable(annotations: Path, tmp_path: Path) -> None:
    def val_of(name: str, seed: int, fraction: float = 0.1) -> set[str]:
        out = tmp_path / name
        made = import_egtea(annotations, tmp_path, out, val_fraction=fraction, seed=seed, keep_missing=True)
        return set(read_manifest(made.path).split("val").clip_ids)

    first = val_of("a", 0)
    assert len(first) == 830
    assert val_of("b", 0) == first
    assert len(val_of("c", 1) & first) < 200
    assert first < val_of("d", 0, 0.2)  # a larger fraction adds clips, and moves none back
    assert val_of("e", 0, 0.0) == set()


def test_val_subjects(annotations: Path, tmp_path: Path) -> None:
    made = import_egtea(annotations, tmp_path, tmp_path / "out", val_subjects="P03, OP01-OP03", keep_missing=True)
    groups = read_manifest(made.path).split("val").table.column("group").to_pylist()
    assert set(groups) == {"P03", "OP01", "OP02", "OP03"}


def test_val_by_subject_and_by_fraction_exclude_each_other(annotations: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--val-fraction draws val clip by clip: give one"):
        import_egtea(annotations, tmp_path, tmp_path / "out", val_subjects="P03", val_fraction=0.1)


@pytest.mark.parametrize(
    ("subjects", "words"),
    [
        ("P20-P99", "P27, P28"),
        ("20", "'20' is neither a subject such as P20 nor a range such as P20-P26"),
        ("P20-OP22", "'P20-OP22' is neither a subject"),
        ("", "'' is neither a subject"),
        ("P26-P20", "P26-P20 not in the training file"),
    ],
)
def test_unknown_subjects_are_refused(annotations: Path, tmp_path: Path, subjects: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        import_egtea(annotations, tmp_path, tmp_path / "out", val_subjects=subjects, keep_missing=True)


# --- clips on disk -------------------------------------------------------------------------------------------------

SESSION = "P21-R04-ContinentalBreakfast"
NAME = "P21-R04-ContinentalBreakfast-291175-294945-F006979-F007088"  # val
FRAMES = "P04-R06-GreekSalad-682170-683940-F016368-F016419"  # test


def test_clips_and_frame_folders_are_found(annotations: Path, tmp_path: Path) -> None:
    clips = tmp_path / "cropped_clips"
    (clips / SESSION).mkdir(parents=True)
    (clips / SESSION / f"{NAME}.MKV").write_bytes(b"x")
    (clips / SESSION / "notes.txt").write_bytes(b"x")
    frames = clips / "P04-R06-GreekSalad" / FRAMES
    frames.mkdir(parents=True)
    for number in range(5):
        (frames / f"{number:06}.jpg").write_bytes(b"x")
    (frames / "Thumbs.db").write_bytes(b"x")
    (clips / "P04-R06-GreekSalad" / "P04-R06-GreekSalad-69970-77130-F001662-F001869").mkdir()  # without frames

    made = import_egtea(annotations, tmp_path, tmp_path / "out")
    manifest = read_manifest(made.path)
    assert len(manifest) == 2
    video, folder = (manifest.select([manifest.clip_ids.index(name)]).clip(0) for name in (NAME, FRAMES))
    assert (video.path, video.split) == (clips / SESSION / f"{NAME}.MKV", "val")
    assert (video.num_frames, video.fps) == (None, None)
    assert (folder.path, folder.split, folder.num_frames, folder.fps) == (frames, "test", 5, 24.0)
    assert made.notes[0].startswith("clips not on disk: 10319 (6372 train, 1926 val, 2021 test)")
    missing = (tmp_path / "out" / "missing_clips.txt").read_text().splitlines()
    assert len(missing) == 10319
    other = import_egtea(annotations, tmp_path, tmp_path / "other", fps=12.0)
    assert [fps for fps in read_manifest(other.path).table.column("fps").to_pylist() if fps] == [12.0]
    assert "test\tP04-R06-GreekSalad-69970-77130-F001662-F001869" in missing


def test_no_clip_at_all_is_refused_with_an_example(annotations: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of the 10321 annotated clips is below .*; --keep-missing"):
        import_egtea(annotations, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folders_that_are_not_there(annotations: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none is not a folder; it must be that of the videos"):
        import_egtea(annotations, tmp_path / "none", tmp_path / "out")
    with pytest.raises(UserError, match=r"--annotations: .*none is not a folder"):
        import_egtea(tmp_path / "none", tmp_path, tmp_path / "out")
    with pytest.raises(ManifestError) as caught:
        import_egtea(tmp_path, tmp_path, tmp_path / "out")
    assert [problem.file.name for problem in caught.value.problems] == [
        "action_idx.txt",
        "noun_idx.txt",
        "verb_idx.txt",
    ]


# --- bad files -----------------------------------------------------------------------------------------------------


def small(folder: Path, train: str, test: str = "") -> Path:
    """Write annotation files with two verbs, three nouns and four actions."""
    folder.mkdir(exist_ok=True)
    (folder / "verb_idx.txt").write_text("Inspect/Read 1\nMove Around 2\n")
    (folder / "noun_idx.txt").write_text("recipe 1\nfridge 2\ncup 3\n")
    (folder / "action_idx.txt").write_text("a 1\nb 2\nc 3\nd 4\n")
    (folder / "train_split1.txt").write_text(train)
    (folder / "test_split1.txt").write_text(test or "OP01-R01-Pizza-1-2-F000001-F000002 1 1 1\n")
    return folder


SOUND = "P20-R01-Pizza-10-20-F000001-F000009 4 2 1 3"


def problems_of(folder: Path, out: Path) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        import_egtea(folder, folder, out, val_subjects="P20", keep_missing=True)
    assert not out.exists()
    return [line.removeprefix(f"{folder}/") for line in str(caught.value).splitlines()]


def test_all_faults_are_said_at_once(tmp_path: Path) -> None:
    lines = [
        SOUND,
        "P20-R01-Pizza-10-20-F000001-F000009 4 2 1",
        "P20-R01-Pizza-11-20-F000001-F000009 5 3 4",
        "P20-R01-Pizza-12-20-F000001-F000009 1 0 1",
        "P20-R01-Pizza-13-20-F000001-F000009 1 1",
        "XP20-R01-Pizza-14-20-F000001-F000009 1 1 1",
        "P20-R01-Pizza-21-20-F000001-F000009 1 1 1",
        "P20-R01-Pizza-15-20-F000001-F000009 1 1 1 1",
        "P20-R01-Pizza-16-20-F000001-F000009 x 1 ²",
        "../../etc/passwd 1 1 1",
    ]
    folder = small(tmp_path / "a", "\n".join(lines), f"{SOUND}\n")
    again = "clip 'P20-R01-Pizza-10-20-F000001-F000009' is in train_split1.txt, line 1 already"
    form = "is not <subject>-<recipe>-<start>-<end>-F<frame>-F<frame>"
    assert problems_of(folder, tmp_path / "out") == [
        f"test_split1.txt, line 1: {again}",
        f"train_split1.txt, line 2: {again}",
        "train_split1.txt, line 3: action id '5' is not a whole number from 1 to 4",
        "train_split1.txt, line 3: verb id '3' is not a whole number from 1 to 2",
        "train_split1.txt, line 3: noun id '4' is not a whole number from 1 to 3",
        "train_split1.txt, line 4: verb id '0' is not a whole number from 1 to 2",
        "train_split1.txt, line 5: 2 ids after the clip name; it needs an action id, a verb id and one noun id or more",
        f"train_split1.txt, line 6: clip name 'XP20-R01-Pizza-14-20-F000001-F000009' {form}",
        "train_split1.txt, line 7: clip 'P20-R01-Pizza-21-20-F000001-F000009' does not start before it ends",
        "train_split1.txt, line 8: a noun occurs twice",
        "train_split1.txt, line 9: action id 'x' is not a whole number from 1 to 4",
        "train_split1.txt, line 9: noun id '²' is not a whole number from 1 to 3",
        f"train_split1.txt, line 10: clip name '../../etc/passwd' {form}",
    ]


def test_class_files_are_checked(tmp_path: Path) -> None:
    folder = small(tmp_path / "a", SOUND)
    (folder / "verb_idx.txt").write_text("Take 0\nPut 1\n")
    (folder / "noun_idx.txt").write_text("cup 1\ncup 2\nplate\n")
    (folder / "action_idx.txt").write_bytes(b"\xff 1\n")
    assert problems_of(folder, tmp_path / "out") == [
        "action_idx.txt, line 1: not UTF-8 text: byte 0xff at column 1",
        "noun_idx.txt, line 2: class 'cup' is on line 1 already",
        "noun_idx.txt, line 3: class id 3 must come here, got 'plate'; ids count up from 1",
        "noun_idx.txt, line 3: class name '' is empty or contains control characters",
        "verb_idx.txt, line 1: class id 1 must come here, got '0'; ids count up from 1",
        "verb_idx.txt, line 2: class id 2 must come here, got '1'; ids count up from 1",
    ]


def test_an_empty_split_file_is_said(tmp_path: Path) -> None:
    assert problems_of(small(tmp_path / "a", " \n"), tmp_path / "out") == ["train_split1.txt: the file is empty"]


def test_bom_crlf_and_empty_lines_are_let_pass(tmp_path: Path) -> None:
    folder = small(tmp_path / "a", "")
    (folder / "train_split1.txt").write_bytes(f"\ufeff{SOUND}\r\n\r\n".encode())
    (folder / "verb_idx.txt").write_bytes(b"\xef\xbb\xbfInspect/Read 1\r\nMove Around 2\r\n")
    manifest = read_manifest(import_egtea(folder, folder, tmp_path / "out", val_subjects="P20", keep_missing=True).path)
    assert manifest.tasks["verb"].classes.names == ("Inspect/Read", "Move Around")
    assert manifest.split("val").clip(0).labels == {"verb": 1, "noun": (0, 2)}


def test_mutated_files_never_escape_as_other_errors(annotations: Path, tmp_path: Path) -> None:
    """R15 in small: whatever is done to a split file, it is read or refused."""
    folder = tmp_path / "a"
    shutil.copytree(annotations, folder)
    sound = b"\n".join((folder / "train_split1.txt").read_bytes().splitlines()[:200])
    draw = random.Random(0)
    refused = 0
    for attempt in range(60):
        data = bytearray(sound)
        for _ in range(draw.randint(1, 6)):
            position = draw.randrange(len(data))
            replacement = bytes(draw.choices(b" \n\r\t\0-PF019\xff", k=draw.randint(0, 3)))
            data[position : position + draw.randint(0, 5)] = replacement
        (folder / "train_split1.txt").write_bytes(data)
        try:
            import_egtea(folder, tmp_path, tmp_path / str(attempt), val_fraction=0.1, keep_missing=True)
        except ManifestError as error:
            refused += error.total > 0
    assert refused > 30
