from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hoi_train.cli import main
from hoi_train.config import (
    Checkpoints,
    Data,
    Model,
    RunConfig,
    TaskConfig,
    Training,
    differences,
    load_config,
    parse_config,
)
from hoi_train.core.records import SPLITS, ClassList, Task
from hoi_train.core.schema import Strict
from hoi_train.core.strict_yaml import ConfigError
from hoi_train.data.manifest import write_manifest
from hoi_train.data.readers import READERS

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if "sweeps" not in path.parts)
DEMO = ROOT / "configs" / "demo" / "ce.yaml"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT / "configs")))
def test_every_config_is_sound_and_is_a_laboratory_note(path: Path) -> None:
    load_config(path)
    note = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert len(note) >= 2, "a config opens with what it is, its command, hardware, time and expected numbers"


def test_a_resolved_config_reads_back_as_itself() -> None:
    config = load_config(DEMO)
    again = parse_config(yaml.safe_load(yaml.safe_dump(config.plain())), Path("config.yaml"))
    assert again == config
    assert differences(config.plain(), again.plain()) == []


@pytest.mark.parametrize("override", ["loss={name: cdb_ce, tau: 1.5}", "--loss={name: cdb_ce, tau: 1.5}"])
def test_overrides_take_both_forms(override: str) -> None:
    config = load_config(DEMO, [override, "optimizer.lr=1e-2", "--training.epochs=3"])
    assert config.loss is not None
    assert config.loss.hyper_parameters()["tau"] == 1.5
    assert config.optimizer.hyper_parameters()["lr"] == 0.01
    assert config.training.epochs == 3


def test_an_override_goes_into_a_section_written_as_a_bare_name() -> None:
    config = load_config(DEMO, ["loss=focal", "loss.gamma=0.5"])
    assert config.loss is not None
    assert config.loss.hyper_parameters()["gamma"] == 0.5


def test_null_takes_out_what_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(
        DEMO, ["data.workers=null", "training.patience=null", "tasks.verb=null", "tasks.noun.loss=bce"]
    )
    assert (config.data.workers, config.training.patience, list(config.tasks)) == (2, None, ["noun"])
    for override, message in (
        ("training.epochs=null", "training.epochs: missing, it must be given"),
        ("training.epochz=null", "training.epochz: unknown key"),
        ("tasks={}", "tasks: must not be empty"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_config(DEMO, [override])


def test_extends_states_only_what_differs(tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text(f"extends: {DEMO}\nname: child\nloss: {{name: focal, gamma: 1.0}}\n")
    parent, config = load_config(DEMO), load_config(child)
    assert {line.partition(":")[0] for line in differences(parent.plain(), config.plain())} >= {"name", "loss.name"}
    assert config.data == parent.data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b", "repeated keys ['name']"),
        ("- a", "must be a mapping of keys to values, got list"),
        ("name: [", "not readable as YAML"),
        ("extends: bad.yaml", "extends itself"),
        ("extends: 3", "extends must be the path of a file"),
        ("extends: nowhere.yaml", "cannot be read"),
        (f"extends: {DEMO}\nloss: cdb", "loss: unknown name 'cdb'; allowed: cross_entropy"),
        (f"extends: {DEMO}\noptimiser: sgd", "did you mean 'optimizer'?"),
        (f"extends: {DEMO}\nname: ../x", "name: must be usable as the name of a folder, got '../x'"),
        (f"extends: {DEMO}\noptimizer: {{lr: .inf}}", "optimizer.lr: should be a valid number"),
        (f"extends: {DEMO}\nloss: null", "tasks.verb.loss: missing; give it, or a loss for all tasks as 'loss'"),
        (f"extends: {DEMO}\nloss: !!python/object/apply:os.system [ls]", "not readable as YAML"),
    ],
)
def test_a_bad_file_is_refused_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert message in str(caught.value)
    assert "bad.yaml" in str(caught.value) or "nowhere.yaml" in str(caught.value)


@pytest.mark.parametrize("override", ["loss.tau", "=3", "loss..tau=3"])
def test_a_malformed_override_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="not of the form key=value"):
        load_config(DEMO, [override])


@pytest.mark.parametrize("override", ["data.train.scale.0=0.5", "training.epochs.x=1"])
def test_an_override_into_what_has_no_keys_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="which has no keys; set it as a whole"):
        load_config(DEMO, [override])


@pytest.mark.parametrize("words", [["loss", "focal"], ["training.epochs:3"], ["seed", "7"]])
def test_words_that_set_nothing_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", str(DEMO), *words]) == 2
    assert words[0] in capsys.readouterr().err


def test_a_task_s_name_may_have_a_hyphen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", str(DEMO), "tasks.my-verb.weight=2", "--tasks.my-noun.weight=3"]) == 0
    tasks = yaml.safe_load(capsys.readouterr().out)["tasks"]
    assert [tasks[name]["weight"] for name in ("my-verb", "my-noun")] == [2, 3]


def test_every_misspelt_key_is_refused() -> None:
    plain = load_config(DEMO).plain()

    def misspelt(values: dict[str, object]) -> list[dict[str, object]]:
        found = []
        for key, value in values.items():
            found.append({k if k != key else f"{k}x": v for k, v in values.items()})
            if isinstance(value, dict):
                found += [{**values, key: inner} for inner in misspelt(value)]
        return found

    variants = misspelt(plain)
    assert len(variants) > 40
    tasks = sum("verbx" in str(variant) for variant in variants)
    refused = 0
    for variant in variants:
        try:
            parse_config(variant, DEMO)
        except ConfigError:
            refused += 1
    assert refused == len(variants) - tasks  # a task's name is free: the manifest refuses it


def test_free_keys_may_change_when_a_run_is_resumed() -> None:
    old, new = load_config(DEMO), load_config(DEMO, ["data.workers=1", "wandb.mode=disabled", "runs=elsewhere"])
    assert differences(old.plain(), new.plain()) == []


OFF = {"mode": "disabled"}


@pytest.mark.parametrize(
    ("written", "overrides", "trackers"),
    [
        ({}, [], {"wandb": "offline"}),
        ({"wandb": {"mode": "online"}}, [], {"wandb": "online"}),
        ({"wandb": OFF}, ["trackers.wandb.mode=online"], {"wandb": "online"}),
        ({"trackers": {"wandb": {"mode": "online"}}}, ["wandb.mode=disabled"], {"wandb": "disabled"}),
        ({"trackers": {"wandb": {}}}, ["--wandb.mode=disabled"], {"wandb": "disabled"}),
        ({"trackers": "tensorboard"}, [], {"tensorboard": None}),
        (
            {"trackers": ["wandb", {"name": "tensorboard"}]},
            ["wandb.mode=online"],
            {"wandb": "online", "tensorboard": None},
        ),
        ({"trackers": {"tensorboard": {}}, "wandb": OFF}, [], {"wandb": "disabled", "tensorboard": None}),
        ({"trackers": []}, [], {}),
        ({}, ["trackers={}"], {}),
        ({"trackers": {"wandb": {}, "tensorboard": {}}}, ["trackers.wandb=null"], {"tensorboard": None}),
    ],
)
def test_trackers_are_chosen_by_name(
    written: dict[str, Any], overrides: list[str], trackers: dict[str, str | None], tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"extends": str(DEMO), **written}))
    config = load_config(path, overrides)
    assert {name: each.get("mode") for name, each in config.trackers.settings().items()} == trackers
    assert parse_config(config.plain(), path) == config  # as a run directory records it
    assert config.plain()["trackers"].keys() == trackers.keys()


@pytest.mark.parametrize("written", ["tensorboard", ["tensorboard"]])
def test_a_list_of_trackers_replaces_those_of_the_extended_file(written: Any, tmp_path: Path) -> None:
    base, child = tmp_path / "base.yaml", tmp_path / "child.yaml"
    base.write_text(yaml.safe_dump({"extends": str(DEMO), "trackers": {"wandb": {"mode": "online"}}}))
    child.write_text(yaml.safe_dump({"extends": "base.yaml", "trackers": written}))
    assert load_config(child).trackers.settings().keys() == {"tensorboard"}
    child.write_text(yaml.safe_dump({"extends": "base.yaml", "trackers": ["wandb", "tensorboard"]}))
    assert load_config(child).trackers.settings()["wandb"]["mode"] == "online"


@pytest.mark.parametrize("section", [RunConfig, Data, Model, TaskConfig, Training, Checkpoints])
def test_each_key_of_a_section_is_documented(section: type[Strict]) -> None:
    text = inspect.getdoc(section)
    assert text is not None
    assert re.findall(r"^    (\w+): ", text, re.MULTILINE) == list(section.model_fields)


def test_a_run_that_recorded_the_old_key_is_the_same_run() -> None:
    config = load_config(DEMO)
    old = {key: value for key, value in config.plain().items() if key != "trackers"}
    old["wandb"] = {"mode": "disabled", "project": "hoi_train", "entity": None, "tags": [], "timeout": 15.0}
    assert parse_config(old, DEMO).trackers.settings()["wandb"]["mode"] == "disabled"
    assert differences(old, config.plain()) == []


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"trackers": {"tensorbord": {}}}, "trackers.tensorbord: unknown key; allowed here: wandb, tensorboard"),
        ({"trackers": ["tensorbord"]}, "did you mean 'tensorboard'?"),
        ({"trackers": [3]}, "trackers: an entry needs a name, of wandb, tensorboard, got 3"),
        ({"trackers": {"wandb": {"mode": "of"}}}, "trackers.wandb.mode: 'of' is not one of"),
        ({"wandb": {"modus": "offline"}}, "trackers.wandb.modus: unknown key"),
        ({"wandb": "offline"}, "trackers.wandb: must be keys and values, of mode, project"),
    ],
)
def test_a_tracker_that_there_is_not_is_refused(written: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"extends": str(DEMO), **written}))
    with pytest.raises(ConfigError) as refusal:
        load_config(path)
    assert message in str(refusal.value)


def test_the_mode_of_the_best_follows_from_the_monitored_metric() -> None:
    def mode(*overrides: str) -> str:
        return load_config(DEMO, overrides).checkpoints.mode

    assert (mode(), mode("checkpoints.monitor=verb/loss"), mode("checkpoints.monitor=verb/map_minority")) == (
        "max",
        "min",
        "max",
    )
    assert mode("checkpoints.monitor=verb/loss", "checkpoints.mode=max") == "max"  # refused once the data are known
    recorded = load_config(DEMO).plain()  # what run directories hold
    assert recorded["checkpoints"]["mode"] == "max"
    assert parse_config(recorded, DEMO).plain() == recorded


def test_the_schema_can_be_printed() -> None:
    schema = RunConfig.model_json_schema()
    assert "cdb_ce" in str(schema)
    data = schema["$defs"]["Data"]
    assert data["properties"]["reader"]["enum"] == list(READERS)
    assert set(data["required"]) == {"manifest", "train", "evaluation"}
    assert "default" not in data["properties"]["num_frames"]


def test_what_a_file_leaves_open_is_written_out_and_not_changed_by_reading_it_again() -> None:
    bare = ["data.num_frames=null", "data.train=augment", "data.evaluation=center_crop", "model.preprocessing=null"]
    config = load_config(DEMO, bare)
    plain = config.plain()
    assert (plain["data"]["num_frames"], plain["model"]["preprocessing"]) == (10, "kinetics_2020")
    assert plain["data"]["train"]["size"] == plain["data"]["evaluation"]["size"] == 112
    assert parse_config(plain, Path("config.yaml")) == config


def test_a_run_directory_from_before_a_key_was_there_differs_in_nothing() -> None:
    plain = load_config(DEMO).plain()
    old = {**plain, "model": {k: v for k, v in plain["model"].items() if k != "freeze_through"}}
    old["optimizer"] = {k: v for k, v in plain["optimizer"].items() if k not in ("head_factor", "layer_decay")}
    assert parse_config(old, Path("config.yaml")).plain() == plain


def _processor_seconds(*arguments: str) -> tuple[str, float]:
    """Run Python; what it printed, and the processor's time it took, which another's load changes little."""
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return said, used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def torch_seconds() -> float:
    """What torch takes by itself, in seconds: to be imported, and to import its compiler for the first optimizer."""
    return _processor_seconds("-c", "import torch; torch.optim.SGD([torch.zeros(1)])")[1]


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "share"), [(["--help"], 0.25), (["train", "--help"], 0.25), (["config", "check", str(DEMO)], 1.6)]
)
def test_answers_come_at_once(arguments: list[str], share: float, torch_seconds: float, tmp_path: Path) -> None:
    verb = Task("verb", ClassList(("put", "take")), "single")
    rows = [
        {"clip_id": f"{split}{name}", "path": "v.mp4", "split": split, "verb": name}
        for split in SPLITS
        for name in verb.classes
    ]
    path = write_manifest(tmp_path / "manifest.parquet", rows, [verb], tmp_path)
    if "check" in arguments:
        arguments = [*arguments, f"data.manifest={path}", "tasks.verb.groups.k=1"]
    said, seconds = _processor_seconds("-m", "hoi_train.cli", *arguments)
    assert "check" not in arguments or "it fits" in said
    assert seconds < share * torch_seconds


def test_a_tracker_named_by_an_override_has_keys() -> None:
    path = ROOT / "configs" / "demo" / "ce.yaml"
    config = load_config(path, ["trackers=[tensorboard, wandb]", "wandb.mode=disabled"])
    assert config.trackers.settings()["wandb"]["mode"] == "disabled"
    with pytest.raises(ConfigError, match="an entry needs a name"):
        load_config(path, ["trackers=[{mode: online}]"])


def test_a_value_that_holds_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "loop.yaml"
    path.write_text("data: &a {train: *a}\n")
    with pytest.raises(ConfigError, match=r"loop\.yaml: an anchor \(&\) is used inside its own value"):
        load_config(path)
