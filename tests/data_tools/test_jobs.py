"""Files that are made of clips: under names that are safe, found again if and only if they are what is wanted."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

import pytest
from rich.console import Console

from data_tools.console import progress
from data_tools.jobs.local import SETTINGS, Store, claim, key_of, run_jobs, safe_stem, state_of
from hoi_train.core.records import UserError
from tests.conftest import ROOT


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "made", ".bin")


def make(store: Store, clip_id: str, key: str, content: bytes = b"content") -> None:
    with store.unfinished() as file:
        file.write_bytes(content)
        store.keep(clip_id, key, file, {"frames": 3})


def test_a_file_is_found_again_by_its_key_only(store: Store) -> None:
    make(store, "a", "key")
    record = store.find("a", "key")
    assert record
    assert (record.facts, record.size) == ({"frames": 3}, 7)
    assert store.load("a") == record
    assert store.path("a").read_bytes() == b"content"
    assert store.find("a", "other") is None
    assert store.find("b", "key") is None
    assert not list((store.folder / "unfinished").iterdir())


def test_a_file_that_changed_is_not_found(store: Store) -> None:
    make(store, "a", "key")
    path = store.path("a")
    os.utime(path, (1, 1))
    assert store.find("a", "key"), "a copied file has another time but the same bytes"
    path.write_bytes(b"CONTENT")
    assert store.find("a", "key") is None
    path.write_bytes(b"cont")
    assert store.find("a", "key") is None
    path.unlink()
    assert store.find("a", "key") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"key": "key"}', "\x00\xff"])
def test_a_damaged_record_counts_as_none(store: Store, text: str) -> None:
    make(store, "a", "key")
    store.path("a").with_suffix(".json").write_text(text)
    assert store.find("a", "key") is None


def test_what_fails_leaves_nothing(store: Store) -> None:
    with pytest.raises(FileNotFoundError), store.unfinished():
        store.keep("a", "key", store.folder / "never written", {})
    assert not [path for path in store.folder.rglob("*") if path.is_file()]


@pytest.mark.process
def test_sweeping_removes_what_nobody_writes(store: Store) -> None:
    dead = store.folder / "unfinished" / "dead.bin"
    with store.unfinished() as alive:
        dead.write_bytes(b"left by a process that was killed")
        store.sweep()
        assert alive.exists()
        assert not dead.exists()
    code = (
        "import sys, time; from pathlib import Path; from data_tools.jobs.local import Store\n"
        "with Store(Path(sys.argv[1]), '.bin').unfinished() as file: print(file, flush=True); time.sleep(600)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, store.folder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert other.stdout
    theirs = Path(other.stdout.readline().strip())
    store.sweep()
    assert theirs.exists(), "another process still writes it"
    other.kill()
    other.communicate()
    store.sweep()
    assert not theirs.exists()


def hostile_names() -> Iterator[str]:
    """Yield 500 names that would leave a folder, clash, or not be a file's name."""
    bad = [
        "../",
        "..",
        "/etc/passwd",
        "~/x",
        "C:\\x",
        "a\x00b",
        "a\nb",
        "-rf",
        "con",
        "nul.txt",
        ".hidden",
        "",
        " ",
        "*",
    ]
    bad += [
        "x" * 5000,
        "é" * 300,
        "../" * 900,
        "a:b",
        "file:///x",
        "http://h/x",
        "$(x)",
        "`x`",
        "a|b",
        "%2e%2e%2f",
        "日本",
    ]
    bad += ["Cup", "cup", "CUP", "cup.", "cup ", "a/b", "a_b", "a//b", "é", "e\u0301"]
    yield from bad
    yield from (
        f"{one}{number}{other}" for number, (one, other) in enumerate(islice(product(bad, bad), 500 - len(bad)))
    )


def test_no_name_leaves_the_folder_or_takes_another_ones_file(store: Store) -> None:
    names = list(dict.fromkeys(hostile_names()))
    assert len(names) == 500
    stems = [safe_stem(name) for name in names]
    assert len({stem.lower() for stem in stems}) == len(names), "on a disk that ignores case, too"
    for stem in stems:
        folder, file = stem.split("/")
        assert (store.folder / stem).resolve().is_relative_to(store.folder.resolve())
        assert len(folder) == 2
        assert len(file) < 100
        assert not file.startswith(("-", "."))
        assert all(letter.isascii() and (letter.isalnum() or letter in "._-") for letter in file)
    for name in names[:60]:
        make(store, name, "key", name.encode())
    assert [store.path(name).read_bytes() for name in names[:60]] == [name.encode() for name in names[:60]]


def test_a_source_that_changed_has_another_state(tmp_path: Path) -> None:
    file = tmp_path / "x.mp4"
    file.write_bytes(b"1")
    before = state_of(file), key_of(state_of(tmp_path))
    file.write_bytes(b"12")
    os.utime(file, ns=(before[0][1], before[0][1]))
    after = state_of(file), key_of(state_of(tmp_path))
    assert before[0] != after[0]
    assert before[1] != after[1]
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1, "b": "2"})
    with pytest.raises(FileNotFoundError):
        state_of(tmp_path / "gone")


def test_a_folder_keeps_its_settings(tmp_path: Path) -> None:
    out = tmp_path / "out"
    claim(out, {"size": 256, "fps": None}, "made.txt", dry_run=True)
    assert not out.exists()
    claim(out, {"size": 256, "fps": None}, "made.txt")
    claim(out, {"size": 256, "fps": None}, "made.txt")
    with pytest.raises(
        UserError, match=r"made with other settings \(size 256, now 128\); give the same ones, or another"
    ):
        claim(out, {"size": 128, "fps": None}, "made.txt")
    with pytest.raises(UserError, match="of another version"):
        claim(out, {"size": 256, "fps": None, "new": 1}, "made.txt")
    assert json.loads((out / SETTINGS).read_text()) == {"size": 256, "fps": None}
    (out / SETTINGS).write_text("?")
    with pytest.raises(UserError, match="not the settings that this tool writes"):
        claim(out, {"size": 256, "fps": None}, "made.txt")


@pytest.mark.process
def test_work_is_done_in_processes_with_a_limit(tmp_path: Path) -> None:
    done = dict(run_jobs(bytearray, [10, 7 * 2**30], engine="local", workers=1, timeout=60))
    assert done[10] == bytearray(10)
    assert "MemoryError" in str(done[7 * 2**30]) or "crashed" in str(done[7 * 2**30])


def test_the_bar_shows_what_is_left() -> None:
    stream = io.StringIO()
    with progress(Console(file=stream, width=100)) as shown:
        shown.update(shown.add_task("making", total=4), advance=3)
    assert "3/4" in stream.getvalue()
    assert "left" in stream.getvalue()
