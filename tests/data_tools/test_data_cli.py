"""The command line: quick help, exit codes, errors as sentences."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from data_tools.cli import main
from data_tools.commands import COMMANDS, IMPORT
from hoi_train.data.manifest import read_manifest
from tests.videos import encode

ROOT = Path(__file__).resolve().parents[2]


def hoi_data(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "data_tools.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=120)


@pytest.mark.process
@pytest.mark.parametrize("arguments", [(), *((command,) for command in (*COMMANDS, IMPORT))])
def test_help_answers_at_once(arguments: tuple[str, ...]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = hoi_data(*arguments, "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: hoi-data")
    # Seconds of the processor: other work on the machine is not what is measured. Importing torch takes three.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


@pytest.mark.process
def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from data_tools.cli import parser_of; parser_of([]); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    for heavy in ("torch", "numpy", "pyarrow", "av", "rich", "matplotlib"):
        assert f"'{heavy}'" not in done.stdout


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["stats"], ["folder", "x"], ["egtea", "--split", "4"]])
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: hoi-data" in capsys.readouterr().err


def test_bad_input_is_2_and_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", str(tmp_path / "none.csv")]) == 2
    assert capsys.readouterr().err == f"hoi-data: {tmp_path / 'none.csv'}: no such file\n"
    (tmp_path / "file").touch()
    (tmp_path / "v" / "a").mkdir(parents=True)
    (tmp_path / "v" / "a" / "1.mp4").touch()
    assert main(["folder", str(tmp_path / "v"), "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"hoi-data: {tmp_path / 'file'}: File exists\n"


def test_a_fault_of_the_program_is_not_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("data_tools.stats.command.read_manifest", broken)
    with pytest.raises(KeyError, match="a bug"):
        main(["stats", str(tmp_path / "m.csv")])


def test_only_a_closed_output_ends_a_command_without_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("data_tools.stats.command.read_manifest", broken)
    assert main(["stats", str(tmp_path / "m.csv")]) == 2
    assert capfd.readouterr().err == "hoi-data: Broken pipe\n"


def test_a_full_disk_names_the_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("put", "take"):
        (tmp_path / "v" / name).mkdir(parents=True)
        (tmp_path / "v" / name / "1.mp4").touch()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # dataset.json is smaller
    try:
        assert main(["folder", str(tmp_path / "v"), "--out", str(tmp_path / "out"), "--val-fraction", "0"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr().err
    assert said.startswith(f"hoi-data: {tmp_path / 'out' / 'manifest.parquet'}: ")
    assert f"[errno {errno.EFBIG}]" in said
    assert not list((tmp_path / "out").iterdir())


def test_from_videos_to_a_verified_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("take/1", "take/2", "put/1"):
        (tmp_path / "v" / name).parent.mkdir(parents=True, exist_ok=True)
        encode(tmp_path / "v" / f"{name}.mp4", 12)
    before = sorted((tmp_path / "v").rglob("*"))
    out = tmp_path / "out"
    assert main(["folder", str(tmp_path / "v"), "--out", str(out), "--task", "verb", "--val-fraction", "0.5"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        f"{out / 'manifest.parquet'}: 3 clips (2 train, 1 val, 0 test); tasks: verb (2 classes)\n"
    )
    assert "note: no val was given: 1 of train were drawn for val" in printed
    assert len(read_manifest(out / "manifest.parquet")) == 3

    assert main(["stats", str(out / "manifest.parquet"), "--out", str(out)]) == 0
    assert (out / "class_counts_verb.png").is_file()
    assert main(["verify", str(out / "manifest.parquet"), "--out", str(out), "--workers", "1"]) == 0
    (tmp_path / "v" / "put" / "1.mp4").write_text("no longer a video")
    assert main(["verify", str(out / "manifest.parquet"), "--out", str(out), "--workers", "1"]) == 1
    assert "3 clips, 1 bad (1 unreadable)" in capsys.readouterr().out
    assert sorted((tmp_path / "v").rglob("*")) == before


def test_the_lists_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("1.mp4", "2.mp4", "3.mp4"):
        (tmp_path / name).touch()
    for name, text in (("t.txt", "1.mp4 0\n"), ("v.txt", "2.mp4 0\n"), ("e.txt", "3.mp4 1\n"), ("c.txt", "a\nb\n")):
        (tmp_path / name).write_text(text)
    options = ["--list", "t.txt", "--val-list", "v.txt", "--test-list", "e.txt", "--classes", "c.txt"]
    paths = [word if word.startswith("--") else str(tmp_path / word) for word in options]
    assert main(["folder", str(tmp_path), *paths, "--out", str(tmp_path / "out")]) == 0
    assert "3 clips (1 train, 1 val, 1 test); tasks: label (2 classes)" in capsys.readouterr().out


def test_the_official_annotation(test_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "egtea",
        "--annotations",
        str(test_data / "egtea"),
        "--clips",
        str(tmp_path),
        "--out",
        str(tmp_path / "o"),
    ]
    assert main(command) == 2
    assert "none of the 10321 annotated clips is below" in capsys.readouterr().err
    assert main([*command, "--keep-missing"]) == 0
    printed = capsys.readouterr().out
    assert "10321 clips (6372 train, 1927 val, 2022 test); tasks: verb (19 classes), noun (53 classes)" in printed
    assert "note: clips not on disk: 10321 (6372 train, 1927 val, 2022 test)" in printed


@pytest.mark.process
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.mp4").touch()
    assert main(["folder", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    shell = f"{sys.executable} -m data_tools.cli stats {tmp_path / 'out' / 'manifest.parquet'} | head -1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, cwd=ROOT, check=True, timeout=60)
    assert done.stderr == ""
