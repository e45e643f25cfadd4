"""A file is written whole or not at all, and is on disk when its writer returns."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from hoi_train.core.disk import whole_file, write_whole


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for content, found in (
        ("old", b"old"),
        ("né\n", "né\n".encode()),
        (b"\xff\r\n", b"\xff\r\n"),
        ("\ud800", b"\\ud800"),
    ):
        write_whole(path, content)
        assert path.read_bytes() == found
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_are_on_disk_before_the_name_and_the_name_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(file: int) -> None:
        steps.append(f"fsync {'folder' if stat.S_ISDIR(os.fstat(file).st_mode) else 'file'}")
        fsync(file)

    def note_replace(source: Path, target: Path) -> Path:
        steps.append(f"replace {target.name}")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_whole(tmp_path / "a", "text")
    assert steps == ["fsync file", "replace a", "fsync folder"]


def write_half(file: Path) -> None:
    file.write_bytes(b"half of it")
    raise ZeroDivisionError


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_whole(path, b"old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as waiting:
        write_half(waiting)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("named", [True, False])
def test_a_full_disk_names_the_file_that_was_asked_for(named: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.bin"

    def write(file: Path) -> None:
        file.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *([str(file)] if named else []))

    with pytest.raises(OSError, match=r"No space left on device: '.*/a\.bin'$") as caught, whole_file(path) as waiting:
        write(waiting)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert not list(tmp_path.iterdir())


def test_an_error_of_another_file_is_not_renamed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, whole_file(tmp_path / "a"):
        (tmp_path / "source").read_bytes()
    assert caught.value.filename == str(tmp_path / "source")


def test_a_missing_folder_is_said_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(tmp_path / "no" / "a.txt", "text")
    assert caught.value.filename == str(tmp_path / "no" / "a.txt")
