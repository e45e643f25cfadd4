"""Change one operator, comparison or number at a time in a copy of the tree, and see whether the tests notice.

    python -m tests.mutants --per-room 20            # the fast tests of the mutated module's room
    python -m tests.mutants --per-room 20 --all      # and, for what they let live, all tests of the room

A campaign of many minutes, not a test. Each mutant runs in a process forked from this one, which has imported
the libraries but not the project.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.changes import Change, changes_in

ROOT = Path(__file__).resolve().parents[2]
FAST = "not process and not slow and not campaign"
SAMPLING = ("class_sampling", "samplers", "sampling", "mixing", "dataset", "loader")
ROOMS: dict[str, tuple[list[str], list[str]]] = {  # the modules, and the tests that are asked, the quickest first
    "losses": (["hoi_train/losses/*.py"], ["tests/test_defaults.py", "tests/losses"]),
    "metrics": (["hoi_train/metrics/*.py"], ["tests/metrics"]),
    "sampling": (
        [f"hoi_train/data/{name}.py" for name in ("class_sampling", "samplers", "sampling", "mixing")],
        ["tests/test_defaults.py", *(f"tests/data/test_{of}.py" for of in SAMPLING)],
    ),
    "checkpoint": (
        [f"hoi_train/engine/{name}.py" for name in ("checkpoint", "checkpoint_manifest", "lock")],
        [f"tests/engine/test_{of}.py" for of in ("checkpoint", "lock", "train", "resume")],
    ),
}
LIMIT = 900  # seconds of one mutant's tests; what hangs is noticed
NO_TESTS = 70  # exit code


def chosen(room: str, count: int, seed: int) -> list[Change]:
    """Draw changes of a room's modules, at most one per line."""
    found = [
        change
        for pattern in ROOMS[room][0]
        for path in sorted(ROOT.glob(pattern))
        for change in changes_in(path.relative_to(ROOT), path.read_text())
    ]
    random.Random(f"{room} {seed}").shuffle(found)
    lines = {(change.path, change.line): change for change in reversed(found)}
    return list(lines.values())[::-1][:count]


def killed(change: Change, tree: Path, tests: list[str], marks: str) -> bool:
    """Return whether tests notice one change of a tree."""
    path = tree / change.path
    whole = path.read_text()
    path.write_text(change.applied(whole))
    try:
        return not passed(tree, tests, marks)
    finally:
        path.write_text(whole)


def passed(tree: Path, tests: list[str], marks: str) -> bool:
    """Run tests on a tree in a forked process; return whether all pass within the limit."""
    child = os.fork()
    if child == 0:
        code = NO_TESTS
        try:
            code = _tests(tree, tests, marks)
        finally:
            os._exit(code)
    began = time.monotonic()
    while time.monotonic() - began < LIMIT:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            if code == NO_TESTS:
                raise SystemExit(f"pytest did not run; see {tree.with_suffix('.log')}")
            return code == 0
        time.sleep(0.1)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def _tests(tree: Path, tests: list[str], marks: str) -> int:
    import pytest

    os.setsid()
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "hoi_train", "data_tools", "scripts")]:
        del sys.modules[name]
    os.environ["PYTHONPATH"] = str(tree)
    quiet = ["-x", "-q", "-p", "no:cacheprovider", "--basetemp", str(tree.with_suffix(".tmp")), "-m", marks]
    with (tree.with_suffix(".log")).open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        return int(pytest.main([*quiet, *tests]))


def main() -> None:
    """Print each change with its fate, and write all of them as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("--per-room", type=int, default=20)
    parser.add_argument("--rooms", nargs="+", choices=ROOMS, default=list(ROOMS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="ask all tests where the fast ones notice nothing")
    parser.add_argument("--out", type=Path, default=Path("mutants.json"))
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for library in ("sklearn.metrics", "torch._dynamo", "torchmetrics", "torchvision.transforms.v2"):
        importlib.import_module(library)
    sys.dont_write_bytecode = True
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", "runs", "site", ".*_cache", ".hypothesis")
        shutil.copytree(ROOT, tree, ignore=ignored)
        for room in given.rooms:
            if not passed(tree, ROOMS[room][1], "not campaign" if given.all else FAST):
                raise SystemExit(f"the tests of {room} fail without any change; see {tree.with_suffix('.log')}")
            for change in chosen(room, given.per_room, given.seed):
                by = "fast" if killed(change, tree, ROOMS[room][1], FAST) else None
                if by is None and given.all and killed(change, tree, ROOMS[room][1], "not campaign"):
                    by = "all"
                rows.append({"room": room, "change": str(change), "killed_by": by})
                print(f"{by or 'LIVES':5} {change}", flush=True)
                given.out.write_text(json.dumps(rows, indent=1))
    for room in given.rooms:
        fates = [row["killed_by"] for row in rows if row["room"] == room]
        alive, fast = fates.count(None), fates.count("fast")
        print(f"{room}: {len(fates)} mutants, the fast tests kill {fast}, all tests {len(fates) - alive}")


if __name__ == "__main__":
    main()
