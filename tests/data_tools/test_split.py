"""``hoi-data split``: groups stay whole, classes keep their shares, and what cannot be had is said."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from data_tools.cli import main
from data_tools.split.command import split_manifest
from data_tools.split.report import SplitReport, mean_deviation
from data_tools.split.search import Wanted, _Search
from data_tools.split.units import columns_of, units_of
from hoi_train.core.records import ClassList, Task, UserError
from hoi_train.data.manifest import Manifest, read_manifest, write_manifest
from hoi_train.data.manifest.quarantine import quarantine_json
from tests.data_tools.importing import import_with

VERB = Task("verb", ClassList(("put", "take", "lick", "never")), "single")
NOUN = Task("noun", ClassList(("cup", "plate")), "multi")
PREDICATE = Task("predicate", ClassList(("hold", "next to", "hug")), "multi", of="pair")


@pytest.fixture(autouse=True)
def short_search(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "test_data" not in request.fixturenames:
        monkeypatch.setattr("data_tools.split.search.STEPS", 300)


def row(number: int, group: str | None, verb: str = "put", nouns: Sequence[str] = (), **more: Any) -> dict[str, Any]:
    path = more.pop("path", f"{number}.mp4")
    return {"clip_id": f"c{number:04}", "path": path, "split": "train", "group": group, "verb": verb,
            "noun": list(nouns), **more}  # fmt: skip


def pair(*predicates: str) -> dict[str, Any]:
    return {"frame": 0, "person_id": 0, "object_id": 1, "person_box": [0, 0, 1, 1], "object_box": [0, 0, 1, 1],
            "object_class": "cup", "predicates": list(predicates)}  # fmt: skip


def written(folder: Path, rows: Sequence[dict[str, Any]], *tasks: Task, name: str = "m.jsonl") -> Path:
    return write_manifest(folder / "in" / name, rows, tasks or (VERB, NOUN), folder)


def divided(path: Path, out: Path, **asked: Any) -> tuple[SplitReport, Manifest]:
    report = split_manifest(path, out, console=Console(file=io.StringIO(), width=100), **asked)
    return report, read_manifest(out / path.name)


def many(groups: int = 40, clips: int = 12) -> list[dict[str, Any]]:
    random = np.random.RandomState(0)
    verbs = random.choice(["put", "take", "lick"], size=groups * clips, p=[0.7, 0.25, 0.05])
    nouns = [[name for name in NOUN.classes if random.rand() < 0.3] for _ in verbs]
    return [row(k, f"P{k // clips:02}", str(verb), nouns[k]) for k, verb in enumerate(verbs)]


def groups_by_split(manifest: Manifest, column: str = "group") -> list[set[str]]:
    return [set(manifest.split(split).table.column(column).to_pylist()) for split in ("train", "val", "test")]


def disjoint(sets: Sequence[set[str]]) -> bool:
    return sum(map(len, sets)) == len(set().union(*sets))


def test_groups_stay_whole_sizes_and_shares_hold_and_nothing_else_changes(tmp_path: Path) -> None:
    path = written(tmp_path, many())
    before = path.read_bytes()
    report, manifest = divided(path, tmp_path / "out", val=0.2, test=0.1)
    assert path.read_bytes() == before
    groups = groups_by_split(manifest)
    assert all(groups)
    assert disjoint(groups)
    assert [size.wanted for size in report.sizes] == pytest.approx([0.7, 0.2, 0.1])
    assert all(abs(size.share - size.wanted) < 0.03 for size in report.sizes)
    assert max(report.deviations.values()) < 3
    old = read_manifest(path)
    assert manifest.table.drop_columns(["split"]).equals(old.table.drop_columns(["split"]))
    assert (manifest.tasks, manifest.root) == (old.tasks, old.root)
    content = json.loads((tmp_path / "out" / "split.json").read_text())
    assert content["tasks"]["verb"][1] == {"name": "take", "counts": list(report.tasks["verb"][1].counts)}
    assert sum(report.tasks["verb"][1].counts) == old.counts("verb").positives[1]


def test_the_same_seed_gives_the_same_whatever_the_order_of_the_rows(tmp_path: Path) -> None:
    rows = many(groups=15)
    found = []
    for number, (order, seed) in enumerate(((rows, 0), (rows[::-1], 0), (rows, 1))):
        path = written(tmp_path / str(number), order)
        _, manifest = divided(path, tmp_path / str(number) / "out", seed=seed)
        found.append(dict(zip(manifest.clip_ids, manifest.table.column("split").to_pylist(), strict=True)))
    assert found[0] == found[1] != found[2]


def test_clips_in_quarantine_are_left_out(tmp_path: Path) -> None:
    path = written(tmp_path, many())
    old = read_manifest(path)
    bad = dict.fromkeys(old.clip_ids[5:50:9], "unreadable: no video")
    listed = tmp_path / "quarantine.json"
    listed.write_text(quarantine_json(old, bad))
    report, manifest = divided(path, tmp_path / "out", quarantine=listed)
    assert set(manifest.clip_ids) == set(old.clip_ids) - set(bad)
    assert sum(size.clips for size in report.sizes) == len(old) - 5
    assert report.notes[0] == f"left out, listed in {listed}: 5 of {len(old)} clips"
    with pytest.raises(UserError, match="whose clips are not those of"):
        split_manifest(tmp_path / "out" / path.name, tmp_path / "again", quarantine=listed)
    listed.write_text(quarantine_json(old, dict.fromkeys(old.clip_ids, "unreadable")))
    with pytest.raises(UserError, match=r"lists every clip of .*nothing is left to divide"):
        split_manifest(path, tmp_path / "again", quarantine=listed)
    assert not (tmp_path / "again").exists()


def test_reasons_of_what_cannot_be_had(tmp_path: Path) -> None:
    rows = [{**each, "verb": "put"} if each["verb"] == "lick" else each for each in many()]
    rows[90]["verb"] = rows[91]["verb"] = rows[92]["verb"] = "lick"
    report, _ = divided(written(tmp_path, rows), tmp_path / "out", min_per_class=1)
    assert report.failed
    assert {(one.name, one.split, one.samples) for one in report.unmet} == {
        ("lick", "val", 0), ("lick", "test", 0), ("never", "train", 0), ("never", "val", 0), ("never", "test", 0),
    }  # fmt: skip
    reasons = {one.name: one.reason for one in report.unmet}
    assert reasons["lick"] == "all 3 clips of class lick are of one group, 'P07' (3)"
    assert reasons["never"] == "no clip has class never"


@pytest.mark.parametrize(
    ("groups", "minimum", "reason"),
    [
        (["P01"], 1, "class lick has 1 clip, 3 splits of at least 1 need 3"),
        (
            ["P01", "P01", "P01", "P02"],
            1,
            "the 4 clips of class lick are of 2 groups: 'P01' (3), 'P02' (1); 3 splits need as many",
        ),
        (
            ["P01"] * 4 + ["P02", "P03"],
            2,
            "the 6 clips of class lick are of 3 groups: 'P01' (4), 'P02' (1), 'P03' (1); no division was found that "
            "gives every split 2",
        ),
    ],
)
def test_a_class_of_few_clips_is_in_train_first(tmp_path: Path, groups: list[str], minimum: int, reason: str) -> None:
    rows = [row(k, f"P{k % 12:02}", nouns=["cup", "plate"]) for k in range(120)]
    rows += [row(500 + k, group, "lick", ["cup", "plate"]) for k, group in enumerate(groups)]
    report, manifest = divided(written(tmp_path, rows), tmp_path / "out", min_per_class=minimum)
    assert {one.reason for one in report.unmet if one.name == "lick"} == {reason}
    assert manifest.split("train").counts("verb").positives[2] >= min(minimum, len(groups))


def test_a_demanded_minimum_goes_before_the_sizes(tmp_path: Path) -> None:
    rows = [row(k, f"P{k:02}", "put" if k % 4 else "take", ["cup", "plate"]) for k in range(24)]
    verb = Task("verb", ClassList(("put", "take")), "single")
    wished, _ = divided(written(tmp_path, rows, verb, NOUN), tmp_path / "a", val=0.1, test=0.1)
    demanded, _ = divided(written(tmp_path, rows, verb, NOUN), tmp_path / "b", val=0.1, test=0.1, min_per_class=2)
    assert min(demanded.tasks["verb"][1].counts) == 2
    assert not demanded.failed
    assert min(wished.tasks["verb"][1].counts) < 2
    assert not wished.failed


def test_pairs_of_a_video_are_counted_and_stay_together(tmp_path: Path) -> None:
    random = np.random.RandomState(1)
    rows = []
    for number in range(60):
        names = [name for name, often in (("hold", 0.6), ("next to", 0.5), ("hug", 0.15)) if random.rand() < often]
        pairs = [{**pair(*names), "frame": frame} for frame in range(random.randint(1, 6))]
        rows.append(row(number, f"v{number}", pairs=pairs))
    rows.append(row(60, "empty", pairs=None))
    path = written(tmp_path, rows, VERB, NOUN, PREDICATE)
    manifest = read_manifest(path)
    units = units_of(manifest, "group")
    columns = columns_of(list(manifest.tasks.values()))["predicate"]
    assert units.totals[columns.start : columns.stop].tolist() == list(manifest.counts("predicate").positives)
    report, made = divided(path, tmp_path / "out")
    assert report.deviations["predicate"] < 5
    assert made.pairs(0) == manifest.pairs(0)


def test_what_stays_whole(tmp_path: Path) -> None:
    """Two clips a file; three groups do not know of the files."""
    rows = [row(k, None, path=f"{k // 2}.mp4", nouns=["cup"]) for k in range(60)]
    path = written(tmp_path, rows)
    report, manifest = divided(path, tmp_path / "out")
    assert disjoint(groups_by_split(manifest, "path"))
    assert report.notes == ("no clip has a group; clips of the same file were kept together",)
    report, manifest = divided(path, tmp_path / "none", group_by="none")
    assert not disjoint(groups_by_split(manifest, "path"))
    assert "one by one" in report.notes[0]
    rows = [{**each, "group": f"P{k % 3}" if k % 2 else None} for k, each in enumerate(rows)]
    report, manifest = divided(written(tmp_path, rows), tmp_path / "mixed")
    assert disjoint(groups_by_split(manifest, "path"))
    assert "30 clips have no group" in report.notes[0]
    _, manifest = divided(written(tmp_path, rows), tmp_path / "path", group_by="path")
    assert disjoint(groups_by_split(manifest, "path"))
    assert not disjoint([groups - {None} for groups in groups_by_split(manifest)])


def test_a_source_is_one_however_it_is_written(tmp_path: Path) -> None:
    spelt = ("{k}.mp4", "./{k}.mp4", "{root}/{k}.mp4", "{root}//{k}.mp4")
    rows = [row(k, "", nouns=["cup"], path=spelt[k % 4].format(k=k // 4, root=tmp_path)) for k in range(120)]
    path = written(tmp_path, rows)
    path.write_text("\n".join(map(json.dumps, rows)))
    report, manifest = divided(path, tmp_path / "out")
    assert len(set(manifest.table.column("path").to_pylist())) == 30
    assert disjoint(groups_by_split(manifest, "path"))
    assert report.notes == ("no clip has a group; clips of the same file were kept together",)


def test_a_group_larger_than_a_split_is_named(tmp_path: Path) -> None:
    rows = [row(k, "big" if k < 60 else f"P{k}", nouns=["cup"]) for k in range(100)]
    report, manifest = divided(written(tmp_path, rows), tmp_path / "out", val=0.2, test=0.2)
    assert "group 'big' has 60.0% of the clips, more than split val should have (20.0%)" in report.notes
    assert [size.clips for size in report.sizes] == [60, 20, 20]
    assert "big" in groups_by_split(manifest)[0]


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"val": 0.6, "test": 0.4}, "--val 0.6 and --test 0.4 leave nothing for train; their sum must be below 1"),
        ({"val": 0.0, "test": 0.0}, "both 0: there is nothing to divide"),
        ({"val": float("nan")}, "--val must be a fraction from 0 to below 1, got nan"),
        ({"test": -0.1}, "--test must be a fraction from 0 to below 1, got -0.1"),
        ({"test": 1.0}, "--test must be a fraction from 0 to below 1, got 1"),
        ({"min_per_class": 0}, "--min-per-class must be at least 1, got 0"),
        ({}, "1 group for 3 splits (P01); each split needs one of its own; --group path or --group none"),
    ],
)
def test_what_cannot_be_asked_is_said_and_nothing_is_written(tmp_path: Path, asked: dict[str, Any], text: str) -> None:
    path = written(tmp_path, [row(k, "P01") for k in range(5)])
    with pytest.raises(UserError) as caught:
        split_manifest(path, tmp_path / "out", **asked)
    assert text in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_input_is_never_written_over(tmp_path: Path) -> None:
    path = written(tmp_path, many(groups=5))
    (tmp_path / "link").symlink_to(path.parent)
    for out in (path.parent, tmp_path / "link"):
        with pytest.raises(UserError, match="is the folder of the manifest, which would be overwritten"):
            split_manifest(path, out)


def test_a_loop_of_links_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, many(groups=5))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert main(["split", str(path), "--out", str(tmp_path / "loop" / "z")]) == 2
    assert f"--out {tmp_path / 'loop' / 'z'}: leads nowhere: Symlink loop" in capsys.readouterr().err
    assert main(["split", str(tmp_path / "loop" / "m.csv"), "--out", str(tmp_path / "out")]) == 2
    assert "m.csv: no such file" in capsys.readouterr().err


def test_command_and_its_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, many(groups=10), name="m.csv")
    out = tmp_path / "out"
    assert main(["split", str(path), "--out", str(out), "--dry-run", "--test", "0"]) == 0
    assert "dry run: nothing was written" in capsys.readouterr().out
    assert not out.exists()
    assert main(["split", str(path), "--out", str(out), "--test", "0"]) == 0
    shown = capsys.readouterr().out
    assert "verb never: at least 1 wanted, train has 0, val has 0: no clip has class never" in shown
    assert not len(read_manifest(out / "m.csv").split("test"))
    assert main(["split", str(path), "--out", str(out), "--min-per-class", "1"]) == 1
    assert len(read_manifest(out / "m.csv").split("test"))
    assert main(["split", str(path), "--out", str(out), "--val", "1"]) == 2
    assert main(["split", str(tmp_path / "none.csv"), "--out", str(out)]) == 2
    assert sorted(each.name for each in out.iterdir()) == ["dataset.json", "m.csv", "split.json"]


def test_without_the_library_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "iterstrat.ml_stratifiers", None)
    with pytest.raises(UserError, match=r"needs iterative-stratification: pip install 'hoi_train\[split\]'"):
        divided(written(tmp_path, many(groups=5)), tmp_path / "out")


def test_gains_of_moves_are_differences_of_costs(tmp_path: Path) -> None:
    units = units_of(read_manifest(written(tmp_path, many(groups=8))), "group")
    search = _Search(units, Wanted(np.array([0.5, 0.3, 0.2]), 3, True))
    places = np.random.RandomState(0).randint(3, size=8)

    def cost(of: Any) -> float:
        return float(search._cost(units.count(of, 3), slice(None), slice(None)).sum())

    counts = units.count(places, 3)
    gains = search._moves(places, counts, search._cost(counts, slice(None), slice(None)))
    for unit in range(8):
        for split in set(range(3)) - {int(places[unit])}:
            moved = places.copy()
            moved[unit] = split
            assert gains[unit, split] == pytest.approx(cost(moved) - cost(places), rel=1e-9, abs=1e-6)


def test_egtea_is_divided_better_than_by_chance(test_data: Path, tmp_path: Path) -> None:
    annotations = test_data / "egtea" / "action_annotation"
    made = import_with("egtea", tmp_path, tmp_path / "in", annotations=annotations, keep_missing=True)
    report, manifest = divided(made.path, tmp_path / "out", min_per_class=5)
    assert disjoint(groups_by_split(manifest))
    assert not report.failed
    assert min(min(of.counts) for of in report.tasks["verb"] + report.tasks["noun"]) >= 5
    units = units_of(manifest, "group")
    sizes = np.bincount(units.of_row) / len(manifest)
    random = np.random.RandomState(0)
    chance: dict[str, list[float]] = {"verb": [], "noun": []}
    for _ in range(100):
        order = random.permutation(len(sizes))
        places = np.empty(len(sizes), np.int64)
        places[order] = np.searchsorted([0.7, 0.85], np.cumsum(sizes[order]) - sizes[order] / 2)
        counts = units.count(places, 3)
        for task, columns in columns_of(list(manifest.tasks.values())).items():
            chance[task].append(mean_deviation(counts[:, columns.start : columns.stop], [0.7, 0.15, 0.15]))
    for task, found in chance.items():
        assert report.deviations[task] < 0.75 * float(np.median(found))
        assert report.deviations[task] < min(found) * 1.1
