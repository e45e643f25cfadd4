"""The manifest: three formats, one table; everything wrong is said at once with file and row."""

from __future__ import annotations

import json
import os
import pickle
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from hoi_train.core.records import ClassCounts, ClassList, PairAnnotation, Task
from hoi_train.data.manifest import Manifest, ManifestError, read_manifest, write_manifest
from hoi_train.data.manifest.problems import LISTED

VERB = Task("verb", ClassList(("take", "put", "open")), "single")
NOUN = Task("noun", ClassList(("cup", "plate", "knife")), "multi")
PREDICATE = Task("predicate", ClassList(("hold", "next to")), "multi", of="pair")
PAIR = {
    "frame": 3,
    "person_id": 0,
    "object_id": 7,
    "person_box": [0.0, 0.0, 5.0, 9.5],
    "object_box": [1.0, 1.0, 3.0, 3.5],
    "object_class": "cup",
    "predicates": ["hold", "next to"],
}
ROWS: list[dict[str, Any]] = [
    {"clip_id": "a", "path": "v/a.mp4", "split": "train", "verb": "take", "noun": ["cup"], "group": "P01"},
    {"clip_id": "b", "path": "v/b.mp4", "split": "val", "verb": "put", "noun": [], "start": 1.5, "end": 2.0},
    {"clip_id": "c", "path": "v/c", "split": "train", "verb": "put", "noun": ["knife", "cup"], "fps": 24.0},
    {"clip_id": "d", "path": "v/d.mp4", "split": "test", "verb": "take", "noun": ["cup"], "num_frames": 9},
    {"clip_id": "ü", "path": "v/ü b.mp4", "split": "train", "verb": "put", "noun": ["cup"]},
]
FORMATS = (".parquet", ".csv", ".jsonl")


def written(folder: Path, suffix: str = ".jsonl", *tasks: Task) -> Path:
    return write_manifest(folder / f"m{suffix}", ROWS, tasks or [VERB, NOUN], folder)


def described(folder: Path, *tasks: Task) -> None:
    """Write the dataset.json of some tasks beside what a test writes by hand."""
    one = {"clip_id": "a", "path": "a", "split": "train", "verb": "take", "noun": []}
    tasks = tasks or (VERB, NOUN)
    write_manifest(folder / "any.jsonl", [{k: v for k, v in one.items() if k in _columns(tasks)}], tasks, folder)


def _columns(tasks: tuple[Task, ...]) -> set[str]:
    return {"clip_id", "path", "split", *(task.name for task in tasks)}


def problems_of(path: Path, text: str | bytes) -> list[str]:
    """Return the lines of the error that reading the text gives, without the file's name."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    return [
        line.removeprefix(str(path)).removeprefix(", ").removeprefix(": ") for line in str(caught.value).splitlines()
    ]


# --- round trips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_rows_back(tmp_path: Path, suffix: str) -> None:
    manifest = read_manifest(written(tmp_path, suffix))
    assert len(manifest) == 5
    assert manifest.clip_ids == ("a", "b", "c", "d", "ü")
    assert list(manifest.tasks.values()) == [VERB, NOUN]
    assert manifest.root == tmp_path
    clips = [manifest.clip(row) for row in range(5)]
    assert [clip.labels for clip in clips] == [
        {"verb": 0, "noun": (0,)},
        {"verb": 1, "noun": ()},
        {"verb": 1, "noun": (0, 2)},
        {"verb": 0, "noun": (0,)},
        {"verb": 1, "noun": (0,)},
    ]
    assert clips[4].path == tmp_path / "v" / "ü b.mp4"
    assert (clips[1].start, clips[1].end, clips[0].start, clips[0].end) == (1.5, 2.0, None, None)
    assert [clip.group for clip in clips] == ["P01", None, None, None, None]
    assert [clip.num_frames for clip in clips] == [None, None, None, 9, None]
    assert [clip.fps for clip in clips] == [None, None, 24.0, None, None]
    assert manifest.warnings == ()


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_pairs_go_through_both_formats_that_hold_them(tmp_path: Path, suffix: str) -> None:
    rows = [{**ROWS[0], "pairs": [PAIR, {**PAIR, "frame": 4, "predicates": []}]}, {**ROWS[1], "pairs": []}, ROWS[2]]
    manifest = read_manifest(write_manifest(tmp_path / f"m{suffix}", rows, [VERB, NOUN, PREDICATE], tmp_path))
    first, second = manifest.pairs(0)
    assert first == PairAnnotation(3, 0, 7, (0.0, 0.0, 5.0, 9.5), (1.0, 1.0, 3.0, 3.5), "cup", ("hold", "next to"))
    assert second.predicates == ()
    assert manifest.pairs(1) == manifest.pairs(2) == ()
    assert manifest.counts("predicate") == ClassCounts.multi([1, 1], 2)
    assert "predicate" not in manifest.clip(0).labels


def test_a_table_of_class_ids_is_written_as_names(tmp_path: Path) -> None:
    manifest = read_manifest(written(tmp_path, ".parquet"))
    part = manifest.split("train")
    again = read_manifest(write_manifest(tmp_path / "n" / "m.csv", part.table, [VERB, NOUN], manifest.root))
    assert again.clip_ids == ("a", "c", "ü")
    assert [again.clip(k) for k in range(3)] == [part.clip(k) for k in range(3)]


def test_rows_may_come_from_a_generator(tmp_path: Path) -> None:
    def rows() -> Iterator[Mapping[str, Any]]:
        for k in range(20_000):  # more than one batch
            yield {**ROWS[0], "clip_id": str(k), "path": Path("v") / f"{k}.mp4", "num_frames": np.int64(k + 1)}

    manifest = read_manifest(write_manifest(tmp_path / "m.parquet", rows(), [VERB, NOUN], tmp_path))
    assert len(manifest) == 20_000
    assert manifest.clip(19_999).num_frames == 20_000


def test_csv_of_a_spreadsheet_on_windows(tmp_path: Path) -> None:
    described(tmp_path)
    lines = [
        "\ufeffclip_id,path,split,verb,noun,start",
        'a,"v,1.mp4",train,take,cup|knife,',
        "",
        'b,"v""2.mp4",val,take,,1',
        "",
    ]
    text = "\r\n".join(lines)
    (tmp_path / "m.csv").write_bytes(text.encode())
    manifest = read_manifest(tmp_path / "m.csv")
    assert [manifest.clip(k).path.name for k in range(2)] == ["v,1.mp4", 'v"2.mp4']
    assert manifest.clip(0).labels == {"verb": 0, "noun": (0, 2)}
    assert manifest.clip(1).labels == {"verb": 0, "noun": ()}


def test_jsonl_with_bom_crlf_and_blank_lines(tmp_path: Path) -> None:
    described(tmp_path)
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    (tmp_path / "m.jsonl").write_bytes(("\ufeff" + "\r\n\r\n".join(lines)).encode())
    assert len(read_manifest(tmp_path / "m.jsonl")) == 5


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=8),
            st.sampled_from(VERB.classes.names),
            st.sets(st.sampled_from(NOUN.classes.names)),
        ),
        min_size=1,
        unique_by=lambda row: row[0],
    ),
    st.sampled_from(FORMATS),
)
def test_any_names_survive_any_format(tmp_path: Path, rows: list[Any], suffix: str) -> None:
    given_rows = [
        {"clip_id": name, "path": "v/" + name.replace("..", "-"), "split": "train", "verb": verb, "noun": sorted(nouns)}
        for name, verb, nouns in rows
        if not name.startswith("\ufeff")
    ]
    if not given_rows:
        return
    manifest = read_manifest(write_manifest(tmp_path / f"m{suffix}", given_rows, [VERB, NOUN], tmp_path))
    assert list(manifest.clip_ids) == [row["clip_id"] for row in given_rows]
    for k, row in enumerate(given_rows):
        clip = manifest.clip(k)
        assert clip.path == tmp_path / row["path"]
        assert clip.labels["verb"] == VERB.classes.index(row["verb"])
        assert clip.labels["noun"] == tuple(sorted(NOUN.classes.index(noun) for noun in row["noun"]))


# --- views ---------------------------------------------------------------------------------------------------------


def test_views_keep_the_order_of_the_file_and_count_their_own_rows(tmp_path: Path) -> None:
    manifest = read_manifest(written(tmp_path))
    train = manifest.split("train")
    assert train.clip_ids == ("a", "c", "ü")
    assert train.counts("verb") == ClassCounts.single([1, 2, 0])
    assert train.counts("noun") == ClassCounts.multi([3, 0, 1], 3)
    assert manifest.counts("verb") == ClassCounts.single([2, 3, 0])
    assert manifest.select([3, 0]).clip_ids == ("d", "a")
    assert len(manifest.select([])) == 0
    assert manifest.select([]).counts("noun") == ClassCounts.multi([0, 0, 0], 0)


def test_a_pickled_view_carries_only_its_rows(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "clip_id": str(k)} for k in range(50_000)]
    manifest = read_manifest(write_manifest(tmp_path / "m.parquet", rows, [VERB, NOUN], tmp_path))
    view = manifest.select(range(10, 15))
    sent = pickle.dumps(view)
    assert len(sent) < 10_000
    again: Manifest = pickle.loads(sent)
    assert again.clip_ids == view.clip_ids
    assert again.clip(2) == view.clip(2)
    assert again.counts("noun") == view.counts("noun")


def test_names_of_splits_and_tasks_are_checked(tmp_path: Path) -> None:
    manifest = read_manifest(written(tmp_path))
    with pytest.raises(ValueError, match=r"split 'vall' is not one of train, val, test; did you mean 'val'\?"):
        manifest.split("vall")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no task 'verbs' in .*m\.jsonl; did you mean 'verb'\?"):
        manifest.counts("verbs")


def test_a_class_that_training_never_has_is_a_warning(tmp_path: Path) -> None:
    rows = [ROWS[0], {**ROWS[1], "verb": "open", "noun": ["plate", "cup"]}]
    manifest = read_manifest(write_manifest(tmp_path / "m.csv", rows, [VERB, NOUN], tmp_path))
    assert manifest.warnings == (
        f"{tmp_path / 'm.csv'}: verb: split val has classes that train never has: open",
        f"{tmp_path / 'm.csv'}: noun: split val has classes that train never has: plate",
    )


def test_many_rows_open_quickly(tmp_path: Path) -> None:
    num_rows = 300_000
    table = pa.table(
        {
            "clip_id": [f"clip{k}" for k in range(num_rows)],
            "path": [f"videos/{k}.mp4" for k in range(num_rows)],
            "split": ["train"] * num_rows,
            "verb": ["put"] * num_rows,
            "noun": [["cup", "knife"]] * num_rows,
        }
    )
    path = write_manifest(tmp_path / "m.parquet", table, [VERB, NOUN], tmp_path)
    started = time.process_time()
    manifest = read_manifest(path)
    assert manifest.counts("noun").positives == (num_rows, 0, num_rows)
    assert time.process_time() - started < 4.0  # 0.4 s on one core of 2024; 1.5 million rows in about 2 s


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_column_of_older_manifests_is_passed_over(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, suffix)
    expected = read_manifest(path).table
    if suffix == ".csv":
        head, *lines = path.read_text().splitlines()
        path.write_text("\n".join([f"{head},seekable", *(f"{line},true" for line in lines)]))
    elif suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("\n".join(json.dumps({**row, "seekable": True}) for row in rows))
    else:
        table = parquet.read_table(path)
        parquet.write_table(table.append_column("seekable", pa.array([True] * len(table))), path)
    assert read_manifest(path).table == expected


def test_a_folder_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"b\xffd")
    root.mkdir()
    here = {**ROWS[0], "path": "v/a.mp4"}
    assert read_manifest(write_manifest(root / "m.jsonl", [here], [VERB, NOUN], root)).root == root
    path = write_manifest(tmp_path / "m.jsonl", [here], [VERB, NOUN], root)
    assert read_manifest(path).clip(0).path == root / "v" / "a.mp4"
    (tmp_path / "dataset.json").unlink()
    elsewhere = write_manifest(tmp_path / "other" / "m.jsonl", [here], [VERB, NOUN], root)
    assert read_manifest(elsewhere).root == root


# --- what is refused -----------------------------------------------------------------------------------------------

CSV_FAULTS = """clip_id,path,split,verb,noun,start,end,num_frames,seekable
a,v/a.mp4,train,take,cup,,,,
a,v/b.mp4,train,take,cup,,,,
,v/c.mp4,train,take,cup,,,,
d,../d.mp4,train,take,cup,,,,
e,/etc/passwd,train,take,cup,,,,
f,v/f.mp4,tran,take,cup,,,,
g,v/g.mp4,train,,cup,,,,
h,v/h.mp4,train,tkae,cup,,,,
i,v/i.mp4,train,take,cup|forkk|knife,,,,
j,v/j.mp4,train,take,cup|cup,,,,
k,v/k.mp4,train,take,cup,3,2,,
l,v/l.mp4,train,take,cup,-1,,,
m,v/m.mp4,train,take,cup,nan,,,
n,v/n.mp4,train,take,cup,one,,,
o,v/o.mp4,train,take
p,v/p.mp4,train,take,cup,,,0,
q,v/q.mp4,train,take,cup,,,1.5,maybe
r,"v/r.mp4,train,take,cup,,,,
s,,train,take,cup,2,2,,
t,v/t.mp4,,take,cup,,inf,,
"""


def test_csv_faults_are_all_said_with_their_lines(tmp_path: Path) -> None:
    described(tmp_path)
    assert problems_of(tmp_path / "m.csv", CSV_FAULTS) == [
        "line 3: clip_id 'a' is taken by line 2; ids must be unique",
        "line 4: clip_id is empty",
        f"line 5: path '../d.mp4' leaves the data root {tmp_path}",
        f"line 6: path '/etc/passwd' leaves the data root {tmp_path}",
        "line 7: split 'tran' is not one of train, val, test; did you mean 'train'?",
        "line 8: verb is empty",
        "line 9: verb: unknown class 'tkae'; did you mean 'take'?",
        "line 10: noun: unknown class 'forkk'",
        "line 11: noun names 'cup' twice",
        "line 12: start 3.0 is not before end 2.0",
        "line 13: start must be seconds >= 0, got -1.0",
        "line 14: start must be seconds >= 0, got nan",
        "line 15: start must be a number, got 'one'",
        "line 16: 4 cells where the header has 9: 'o,v/o.mp4,train,take'",
        "line 17: num_frames must be 1 to 2147483647, got 0",
        "line 18: num_frames must be a whole number, got '1.5'",
        "line 19: a quote is not closed on its line",
        "line 20: path is empty",
        "line 20: start 2.0 is not before end 2.0",
        "line 21: split is empty",
        "line 21: end must be seconds >= 0, got inf",
    ]


def test_jsonl_faults_are_all_said_with_their_lines(tmp_path: Path) -> None:
    described(tmp_path)
    sound = {"clip_id": "a", "path": "v/a.mp4", "split": "train", "verb": "take", "noun": ["cup"]}
    lines = [
        sound,
        '{"clip_id": "b" "path"}',
        "[1, 2]",
        {**sound, "clip_id": 5},
        {**sound, "clip_id": "c", "start": "1"},
        {**sound, "clip_id": "d", "start": True},
        {**sound, "clip_id": "e", "noun": "cup"},
        {**sound, "clip_id": "f", "noun": None},
        {**sound, "clip_id": "g", "verbb": "take"},
        {**sound, "clip_id": "h", "num_frames": 2.5},
        '{"clip_id": "i", "clip_id": "j"}',
        '{"clip_id": "k", "path": "p\\u0000q", "split": "train", "verb": "take", "noun": []}',
        '{"clip_id": "\\ud800", "path": "p", "split": "train", "verb": "take", "noun": []}',
        "[" * 100_000,
        {**sound, "clip_id": "l", "end": 10**400},
    ]
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    assert problems_of(tmp_path / "m.jsonl", text) == [
        "line 2: not JSON: Expecting ',' delimiter, column 17",
        'line 3: must be a JSON object such as {"clip_id": …}, got [1, 2]',
        "line 4: clip_id must be text, got 5",
        "line 5: start must be a number, got '1'",
        "line 6: start must be a number, got True",
        "line 7: noun must be a list of class names, got 'cup'",
        "line 8: noun is empty; write an empty list for none",
        "line 9: unknown column 'verbb'; did you mean 'verb'? "
        "(known: clip_id, path, start, end, split, group, num_frames, fps, "
        "width, height, verb, noun, pairs, tracks)",
        "line 10: num_frames must be a whole number, got 2.5",
        "line 11: not JSON: key 'clip_id' occurs twice in an object",
        "line 12: path 'p\\x00q' contains control characters",
        "line 13: clip_id must be text, got '\\ud800'",
        "line 14: not JSON: nested too deeply",
        f"line 15: end must be a number, got {'1' + 79 * '0'}",
    ]


def test_parquet_faults_are_said_with_their_rows(tmp_path: Path) -> None:
    described(tmp_path)
    table = pa.Table.from_pylist([{**row, "start": "x"} for row in [ROWS[0], ROWS[0]]])
    table = table.set_column(table.column_names.index("split"), "split", pa.array([1.5, 2.5])).drop_columns("group")
    parquet.write_table(table, tmp_path / "m.parquet")
    with pytest.raises(ManifestError) as caught:
        read_manifest(tmp_path / "m.parquet")
    assert str(caught.value).replace(str(tmp_path / "m.parquet"), "m.parquet").splitlines() == [
        "m.parquet: column 'start' holds string, it must hold a number",
        "m.parquet: column 'split' holds double, it must hold text",
        "m.parquet: column 'split' is missing; every clip needs it",
        "m.parquet, row 2: clip_id 'a' is taken by row 1; ids must be unique",
    ]


def test_pair_faults_are_said(tmp_path: Path) -> None:
    described(tmp_path, PREDICATE)
    faults: list[Any] = [
        [{**PAIR, "predicates": ["hold", "nextto"]}],
        [{**PAIR, "person_box": [0, 0, 5]}],
        [PAIR, {**PAIR, "frame": 4, "object_box": [5, 0, 5, 1]}],
        [{**PAIR, "frame": -1}],
        [{name: value for name, value in PAIR.items() if name != "object_class"}],
        [None],
        [{**PAIR, "object_id": "x"}],
        5,
        [{**PAIR, "object_box": [0, 0, None, float("nan")]}],
        [{**PAIR, "predicates": ["next to", "hold", "next to"]}],
        [PAIR, {**PAIR, "frame": 4}, {**PAIR, "predicates": []}],
        [PAIR, {**PAIR, "frame": 4}, {**PAIR, "person_id": 1}, {**PAIR, "object_id": 8}],
    ]
    lines = [
        json.dumps({"clip_id": str(k), "path": "p", "split": "train", "pairs": fault}) for k, fault in enumerate(faults)
    ]
    found = problems_of(tmp_path / "m.jsonl", "\n".join(lines))
    fields = "frame, person_id, object_id, person_box, object_box, object_class, predicates"
    form = f"pairs must be a list of pairs, each with {fields}, got"
    assert found == [
        "line 1: pairs: unknown class 'nextto'; did you mean 'next to'?",
        "line 2: person_box of a pair is not [x0, y0, x1, y1] with x0 < x1, y0 < y1",
        "line 3: object_box of a pair is not [x0, y0, x1, y1] with x0 < x1, y0 < y1",
        "line 4: a pair has a negative frame",
        "line 5: a pair lacks object_class",
        f"line 6: {form} [None]",
        f"line 7: {form} {str(faults[6])[:80]}",
        f"line 8: {form} 5",
        "line 9: not JSON: NaN is not a JSON number; write null or leave it out",
        "line 10: a pair names 'next to' twice",
        "line 11: a pair occurs twice in its frame; give it once",
    ]


def test_pairs_need_a_task_and_a_format_that_holds_them(tmp_path: Path) -> None:
    rows = [{**ROWS[0], "pairs": [PAIR]}]
    with pytest.raises(ManifestError, match='column \'pairs\' needs a task with "of": "pair"'):
        write_manifest(tmp_path / "m.jsonl", rows, [VERB, NOUN], tmp_path)
    with pytest.raises(ManifestError, match=r"column 'pairs' cannot be held by csv; use \.parquet or \.jsonl"):
        write_manifest(tmp_path / "m.csv", rows, [VERB, NOUN, PREDICATE], tmp_path)
    described(tmp_path, VERB, PREDICATE)
    assert problems_of(tmp_path / "m.csv", "clip_id,path,split,verb,pairs\na,a,train,take,[]\n") == [
        "line 1: column 'pairs' cannot be held by csv; use .parquet or .jsonl"
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no clips: the file is empty or has only a header"),
        ("\n\n", "no clips: the file is empty or has only a header"),
        ("clip_id,path,split,verb,noun\n", "no clips: the file is empty or has only a header"),
        ("clip_id,path,split,noun\na,a,train,cup\n", "column 'verb' is missing; every clip needs it"),
        ("clip_id,path,split,verb\na,a,train,take\n", "column 'noun' is missing; every clip needs it"),
        ("clip_id,path,split,verb,noun,verb\na,a,train,take,cup,put\n", "line 1: column 'verb' occurs twice"),
        (
            "clip_id,path,split,verb,noun,gruop\na,a,train,take,cup,P\n",
            "line 1: unknown column 'gruop'; did you mean 'group'?",
        ),
        (
            b"clip_id,path,split,verb,noun\na,\xff.mp4,train,take,cup\n",
            "line 2: not UTF-8 text: byte 0xff at column 3; save the file",
        ),
        (
            "clip_id;path;split;verb;noun\na;a;train;take;cup\n",
            "line 1: cells are separated by ';'; a csv manifest needs commas",
        ),
    ],
)
def test_csv_headers_and_empty_files(tmp_path: Path, text: str | bytes, words: str) -> None:
    described(tmp_path)
    assert any(line.startswith(words) for line in problems_of(tmp_path / "m.csv", text))


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_empty_files_of_the_other_formats(tmp_path: Path, suffix: str) -> None:
    described(tmp_path)
    expected = "not a readable Parquet file" if suffix == ".parquet" else "no clips: the file is empty"
    assert problems_of(tmp_path / f"m{suffix}", b"")[0].startswith(expected)


def test_a_long_list_is_cut_and_counted(tmp_path: Path) -> None:
    described(tmp_path)
    lines = "".join(f"{k},a,train,tak,cup\n" for k in range(200))
    found = problems_of(tmp_path / "m.csv", "clip_id,path,split,verb,noun\n" + lines)
    assert len(found) == LISTED + 1
    assert found[0] == "line 2: verb: unknown class 'tak'; did you mean 'take'?"
    assert found[-1] == f"… and {200 - LISTED} more"


@pytest.mark.parametrize(
    "name",
    [
        "..",
        "../x",
        "a/../../x",
        "a/..",
        "/",
        "/etc/passwd",
        "a\0b",
        "a\nb",
        "\x1b[2J",
        "a\x7f",
        "",
        "//etc",
        "/tmp/../etc",
    ],
)
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_hostile_paths_are_refused(tmp_path: Path, name: str, suffix: str) -> None:
    with pytest.raises(ManifestError, match="path"):
        write_manifest(tmp_path / f"m{suffix}", [{**ROWS[0], "path": name}], [VERB, NOUN], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_absolute_paths_inside_the_root_are_allowed_also_through_a_link(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "v").mkdir(parents=True)
    (tmp_path / "link").symlink_to(root)
    rows = [
        {**ROWS[0], "path": str(root / "v" / "a.mp4")},
        {**ROWS[1], "path": str(tmp_path / "link" / "v" / "b.mp4")},
        {**ROWS[2], "path": "http://host/c.mp4"},  # a file name like any other below the root
    ]
    manifest = read_manifest(write_manifest(tmp_path / "m.csv", rows, [VERB, NOUN], tmp_path / "link"))
    assert manifest.root == root
    assert manifest.clip(0).path == root / "v" / "a.mp4"
    assert manifest.clip(1).path == root / "v" / "b.mp4"
    assert manifest.clip(2).path == root / "http:" / "host" / "c.mp4"


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_path_is_one_however_it_is_spelt_and_no_group_is_none(tmp_path: Path, suffix: str) -> None:
    elsewhere = tmp_path.with_name(f"{tmp_path.name}_link")
    elsewhere.symlink_to(tmp_path)
    spellings = [
        *("v/a.mp4", "./v/a.mp4", "v/./a.mp4", "v//a.mp4", "v/a.mp4/"),
        *(f"{tmp_path}/v/a.mp4", f"{tmp_path}//v/./a.mp4", f"{tmp_path}/./v/a.mp4", f"{elsewhere}/v/a.mp4"),
    ]
    rows = [{**ROWS[0], "clip_id": str(k), "path": path, "group": ""} for k, path in enumerate(spellings)]
    path = tmp_path / f"m{suffix}"
    written(tmp_path)  # for its dataset.json
    if suffix == ".csv":
        columns = list(rows[0])
        path.write_text("\n".join([",".join(columns), *(",".join(map(_cell, row.values())) for row in rows)]))
    elif suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        parquet.write_table(pa.Table.from_pylist(rows), path)
    for manifest in (read_manifest(path), read_manifest(write_manifest(path, rows, [VERB, NOUN], tmp_path))):
        assert manifest.table.column("path").to_pylist() == ["v/a.mp4"] * len(rows)
        assert manifest.table.column("group").null_count == len(rows)


def _cell(value: Any) -> str:
    return "|".join(value) if isinstance(value, list) else str(value)


def test_numbers_that_no_file_has_are_refused(tmp_path: Path) -> None:
    described(tmp_path)
    changes = [{"num_frames": 2**60 + 1}, {"width": 2**60 + 1, "height": 2**31}]
    rows = [{**_plain_row(str(k)), **change} for k, change in enumerate(changes)]
    assert problems_of(tmp_path / "m.jsonl", "\n".join(map(json.dumps, rows))) == [
        "line 1: num_frames must be 1 to 2147483647, got 1152921504606846977",
        "line 2: width must be pixels, 1 to 2147483647, got 1152921504606846977",
        "line 2: height must be pixels, 1 to 2147483647, got 2147483648",
    ]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_whole_number_of_seconds_is_rounded_where_it_must_be(tmp_path: Path, suffix: str) -> None:
    row = {**_plain_row("a"), "noun": ["cup"], "end": 2**53 + 1}
    described(tmp_path)
    path = tmp_path / f"m{suffix}"
    if suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist([row]), path)
    else:
        cells = ",".join(map(_cell, row.values()))
        path.write_text(json.dumps(row) if suffix == ".jsonl" else f"{','.join(row)}\n{cells}\n")
    assert read_manifest(path).clip(0).end == 2.0**53


def test_absolute_paths_that_cannot_be_followed_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    described(root)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    paths = [f"{tmp_path}/a\0b/c.mp4", f"{tmp_path}/loop/c.mp4", f"{tmp_path}/{300 * 'x'}/c.mp4"]
    rows = [{**_plain_row(str(k)), "path": path} for k, path in enumerate(paths)]
    assert problems_of(root / "m.jsonl", "\n".join(map(json.dumps, rows))) == [
        f"line 1: path {paths[0]!r:.80} contains control characters",
        f"line 2: path {paths[1]!r:.80} leaves the data root {root}",
        f"line 3: path {paths[2]!r:.80} leaves the data root {root}",
    ]


def test_a_link_to_a_name_that_no_manifest_holds_is_left_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a\nb").mkdir(parents=True)
    (tmp_path / "link").symlink_to(root / "a\nb")
    path = str(tmp_path / "link" / "a.mp4")
    manifest = read_manifest(write_manifest(root / "m.csv", [{**ROWS[0], "path": path}], [VERB, NOUN], root))
    assert manifest.clip(0).path == Path(path)


def _plain_row(clip_id: str) -> dict[str, Any]:
    return {"clip_id": clip_id, "path": "v/a.mp4", "split": "train", "verb": "take", "noun": []}


def test_mutated_lines_never_escape_as_other_errors(tmp_path: Path) -> None:
    """R15 in small: whatever is done to a file, it is read or refused with a ManifestError."""
    draw = random.Random(0)
    for suffix in (".csv", ".jsonl"):
        sound = written(tmp_path, suffix).read_bytes()
        for _ in range(400):
            data = bytearray(sound)
            for _ in range(draw.randint(1, 4)):
                position = draw.randrange(len(data))
                replacement = bytes(draw.choices(b'",|\n\r\0{}[]x:\xff\\', k=draw.randint(0, 3)))
                data[position : position + draw.randint(0, 5)] = replacement
            (tmp_path / f"x{suffix}").write_bytes(data)
            try:
                rows = len(read_manifest(tmp_path / f"x{suffix}"))
            except ManifestError as error:
                rows = error.total
            assert 0 < rows < 60


# --- dataset.json --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not JSON: Expecting value"),
        ("[]", "must hold an object such as {"),
        ('{"tasks": {}}', "tasks: must not be empty"),
        ('{"task": {}}', "task: unknown key; allowed here: root, tasks, object_classes; did you mean 'tasks'?"),
        (
            '{"root": 5, "tasks": {"a": {"labels": "single", "classes": ["x"]}}}',
            "root must be the path of a folder, got 5",
        ),
        (
            '{"root": "", "tasks": {"a": {"labels": "single", "classes": ["x"]}}}',
            "root must be the path",
        ),
        ('{"root": "none", "tasks": {"a": {"labels": "single", "classes": ["x"]}}}', "is not a folder"),
        (
            '{"tasks": {"a": {"labels": "many", "classes": ["x"]}}}',
            "labels: 'many' is not one of 'single' or 'multi'",
        ),
        (
            '{"tasks": {"a": {"labels": "multi", "class": ["x"]}}}',
            "tasks.a.class: unknown key; allowed here: labels,",
        ),
        (
            '{"tasks": {"a": {"labels": "multi", "classes": "xy"}}}',
            "tasks.a.classes: should be a valid list",
        ),
        ('{"tasks": {"a": {"labels": "multi", "classes": ["x", "x"]}}}', "class names must be unique, repeated: ['x']"),
        ('{"tasks": {"a": {"labels": "multi", "classes": []}}}', "a class list needs at least one class"),
        ('{"tasks": {"a": 1, "a": 2}}', "key 'a' occurs twice"),
        ('{"tasks": {"a": {"labels": "multi", "classes": ["\\u001b[2J"]}}}', "contains control characters"),
        ('{"tasks": {"path": {"labels": "multi", "classes": ["x"]}}}', "a task cannot be called 'path'"),
        ('{"tasks": {"a/b": {"labels": "multi", "classes": ["x"]}}}', "task name 'a/b' must begin with a letter"),
        (
            '{"tasks": {"a": {"labels": "multi", "of": "clips", "classes": ["x"]}}}',
            "of: 'clips' is not one of 'clip'",
        ),
        (
            '{"tasks": {"a": {"labels": "multi", "classes": ["x", "y"], "mirrored": [["x", "z"]]}}}',
            "tasks.a: mirrored must be pairs of its classes, each class once",
        ),
        ('{"tasks": {"a": {"labels": "single", "of": "pair", "classes": ["x"]}}}', "a task of pairs is multi-label"),
    ],
)
def test_dataset_json_is_checked_as_strictly(tmp_path: Path, content: str, words: str) -> None:
    path = written(tmp_path)
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert words in str(caught.value)
    assert str(tmp_path / "dataset.json") in str(caught.value)


def test_missing_files_and_unknown_formats(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"m\.csv: no such file"):
        read_manifest(tmp_path / "m.csv")
    with pytest.raises(ManifestError, match=r"a manifest's name ends in \.parquet, \.csv, \.jsonl, not in '\.txt'"):
        read_manifest(tmp_path / "m.txt")
    path = written(tmp_path)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(ManifestError, match=r"dataset\.json: no such file; it says where the videos are"):
        read_manifest(path)


def test_another_root_can_be_given(tmp_path: Path) -> None:
    path = written(tmp_path / "a")
    (tmp_path / "elsewhere").mkdir()
    assert read_manifest(path, tmp_path / "elsewhere").clip(0).path == tmp_path / "elsewhere" / "v" / "a.mp4"


# --- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_refused_writing_leaves_the_old_files(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, suffix)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ManifestError, match="row 2: verb: unknown class 'lift'"):
        write_manifest(path, [ROWS[0], {**ROWS[1], "verb": "lift"}], [VERB, NOUN], tmp_path)

    def breaks() -> Iterator[Mapping[str, Any]]:
        yield ROWS[0]
        raise OSError("the disk")

    with pytest.raises(OSError, match="the disk"):
        write_manifest(path, breaks(), [VERB, NOUN], tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_root_is_written_relative_if_it_moves_along(tmp_path: Path) -> None:
    def root_of(folder: Path, root: Path) -> Any:
        write_manifest(folder / "m.csv", ROWS, [VERB, NOUN], root)
        return json.loads((folder / "dataset.json").read_text())["root"]

    assert root_of(tmp_path, tmp_path) == "."
    assert root_of(tmp_path, tmp_path / "videos") == "videos"
    assert root_of(tmp_path / "out", tmp_path) == str(tmp_path)


def test_tasks_that_no_manifest_can_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a task cannot be called 'split'"):
        write_manifest(tmp_path / "m.csv", ROWS, [Task("split", VERB.classes, "single")], tmp_path)
    with pytest.raises(ValueError, match="task 'verb' occurs twice"):
        write_manifest(tmp_path / "m.csv", ROWS, [VERB, VERB], tmp_path)
    with pytest.raises(ValueError, match="at least one task"):
        write_manifest(tmp_path / "m.csv", ROWS, [], tmp_path)
    odd = Task("noun", ClassList(("a|b",)), "multi")
    with pytest.raises(ManifestError, match=r"csv joins class names by '\|', which is part of 'a\|b'"):
        write_manifest(tmp_path / "m.csv", [{**ROWS[0], "noun": ["a|b"]}], [VERB, odd], tmp_path)


@pytest.mark.parametrize("name", ["mine.csv", "mine.jsonl", "mine.parquet"])
def test_what_describes_another_manifest_is_not_written_over(tmp_path: Path, name: str) -> None:
    write_manifest(tmp_path / name, ROWS, [VERB, NOUN], tmp_path)
    (tmp_path / "results.csv").write_text("clip_id,score\na,1\n")
    (tmp_path / "broken.parquet").write_text("x")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    more = Task("verb", ClassList((*VERB.classes, "cut")), "single")
    for tasks, root in (([more, NOUN], tmp_path), ([VERB, NOUN], tmp_path.parent)):
        with pytest.raises(ManifestError, match=f"dataset.json: describes {name}; m.parquet has another root or other"):
            write_manifest(tmp_path / "m.parquet", ROWS, tasks, root)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    write_manifest(tmp_path / "m.parquet", ROWS, [VERB, NOUN], tmp_path)  # which both can share
    for file in (name, "m.parquet"):
        assert len(read_manifest(tmp_path / file)) == 5
    (tmp_path / name).unlink()
    write_manifest(tmp_path / "m.parquet", ROWS, [more, NOUN], tmp_path)


def test_a_description_that_cannot_be_read_is_not_written_over(tmp_path: Path) -> None:
    described(tmp_path)
    (tmp_path / "dataset.json").write_text('{"tasks": {')
    with pytest.raises(ManifestError, match=r"describes any\.jsonl; m\.csv has another root or other classes"):
        written(tmp_path, ".csv")
    assert (tmp_path / "dataset.json").read_text() == '{"tasks": {'
