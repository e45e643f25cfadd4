"""Predictions of a video: the numbers of evaluation, without the data; what is refused; the film."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from hoi_train.config import load_config
from hoi_train.core.records import ClipError, UserError
from hoi_train.data.manifest import Manifest, read_manifest
from hoi_train.engine import checkpoint
from hoi_train.engine.evaluation import network_rows
from hoi_train.engine.experiment import assemble, rebuild
from hoi_train.engine.run import chosen_checkpoint, write_thresholds
from hoi_train.engine.train import launch, load_network
from hoi_train.inference.drawing import OBJECT, PERSON
from hoi_train.inference.predict import predict
from hoi_train.methods import METHODS
from tests.engine.processes import run
from tests.engine.test_pair_runs import pair_config
from tests.pairs import KEY_FRAMES, make_pair_data
from tests.small import make_config, make_data

TWO_TASKS = {"noun": {"loss": "bce", "groups": {"name": "top_k", "k": 1}}}
TOLERANCE = 2e-6  # of the six digits that are written, and of a batch of one clip


class Trained:
    """A run that has come to its end: its configuration, its directory and the manifest of its data."""

    def __init__(self, config: Path, manifest: Path) -> None:
        self.config, self.manifest = config, manifest
        self.folder = config.parent / "small-seed3"
        log = config.parent / "log"
        assert run(["train", str(config)], log) == 0, log.read_text()

    @property
    def clips(self) -> Manifest:
        return read_manifest(self.manifest).split("test")

    def evaluated(self) -> dict[str, Tensor]:
        """Return the logits of the test split, by task, by the parts that ``evaluate`` uses."""
        config = load_config(self.config)
        experiment = assemble(config)
        load_network(experiment.model, checkpoint.load(chosen_checkpoint(self.folder, config, "best")))
        data, fabric = experiment.data, launch(config.training)
        rows = network_rows(fabric, experiment.model, data.loaders["test"].evaluation(), data.tasks, "test")
        return {task: logits for task, (logits, _) in rows.items()}

    def elsewhere(self, folder: Path) -> Path:
        """Return a copy of the run directory under another name, whose configuration names data that are not there."""
        copy = shutil.copytree(self.folder, folder / "copy")
        text = (copy / "config.yaml").read_text()
        assert str(self.manifest) in text
        (copy / "config.yaml").write_text(text.replace(str(self.manifest), "/nowhere/manifest.parquet"))
        return copy


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As in the processes that train; more would wait for one another on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pair_run(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("pairs")
    manifest = make_pair_data(folder)
    return Trained(pair_config(folder, manifest, training={"epochs": 2}, data={"reader": "pyav"}), manifest)


@pytest.fixture(scope="module")
def clip_run(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two tasks, single- and multi-label, by a method that changes the heads, evaluated from six views."""
    folder = tmp_path_factory.mktemp("clips")
    manifest = make_data(folder)
    data = {"reader": "pyav", "views": {"frames": 2, "crops": 3}}
    changes: dict[str, Any] = {"method": {"name": "lws", "epochs": 1}, "data": data, "tasks": TWO_TASKS}
    return Trained(make_config(folder, manifest, **changes, loss="cross_entropy"), manifest)


def boxes_of(clips: Manifest, row: int, **changes: Any) -> dict[str, Any]:
    """Return a clip's tracks as a boxes file has them; in these data track 0 is the person, 1 a cup and 2 a plate."""
    tracks = [
        {
            "track_id": track.track_id,
            "class": ("person", "cup", "plate")[track.track_id],
            "start_frame": track.start_frame,
            "boxes": track.boxes.tolist(),
        }
        for track in clips.tracks(row)
    ]
    return {"tracks": tracks, **changes}


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def leaves(content: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is in lists and dicts by its place."""
    if isinstance(content, (list, dict)):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from leaves(value, f"{place}/{key}")
    else:
        yield place, content


def test_clips_get_the_numbers_of_evaluation_without_their_data(clip_run: Trained, tmp_path: Path) -> None:
    logits, folder, clips = clip_run.evaluated(), clip_run.elsewhere(tmp_path), clip_run.clips
    for row in range(3):
        out = tmp_path / f"{row}.jsonl"
        predict(folder, clips.clip(row).path, out=out, top=9)
        (line,) = lines_of(out)
        assert (line["start"], line["end"]) == (0, 1)
        for task, values in (("verb", logits["verb"][row].softmax(0)), ("noun", logits["noun"][row].sigmoid())):
            wanted = dict(zip(clips.tasks[task].classes, values.tolist(), strict=True))
            assert line["tasks"][task]["scores"] == pytest.approx(wanted, abs=TOLERANCE)
            shown = list(line["tasks"][task]["scores"].values())
            assert shown == sorted(shown, reverse=True)
        assert line["tasks"]["verb"]["predicted"] == [
            clips.tasks["verb"].classes.names[int(logits["verb"][row].argmax())]
        ]


def test_pairs_get_the_numbers_of_evaluation_without_their_data(pair_run: Trained, tmp_path: Path) -> None:
    scores, folder, clips = pair_run.evaluated()["predicate"].sigmoid(), pair_run.elsewhere(tmp_path), pair_run.clips
    names, wanted, found = clips.tasks["predicate"].classes, [], []
    for row in range(len(clips)):
        boxes, out = written(tmp_path / "boxes.json", boxes_of(clips, row)), tmp_path / "out.jsonl"
        predict(folder, clips.clip(row).path, boxes=boxes, out=out, every=1, top=9)
        lines = lines_of(out)
        assert [line["frame"] for line in lines] == list(range(8))
        pairs = [(key, pair) for key in KEY_FRAMES for pair in lines[key]["pairs"] if clips.pairs(row)]
        wanted += [(f"{row}@{a.frame}", a.object_id, a.object_class) for a in clips.pairs(row)]
        found += [((f"{row}@{key}", pair["object_id"], pair["object_class"]), pair["tasks"]) for key, pair in pairs]
    assert sorted(wanted) == sorted(place for place, _ in found)
    by_place = dict(found)
    for place, row_scores in zip(wanted, scores.tolist(), strict=True):
        assert by_place[place]["predicate"]["scores"] == pytest.approx(
            dict(zip(names, row_scores, strict=True)), abs=TOLERANCE
        )


def test_windows_of_a_stretch(clip_run: Trained, tmp_path: Path) -> None:
    video, out = clip_run.clips.clip(0).path, tmp_path / "out.jsonl"
    predict(clip_run.folder, video, out=out, start=0.25, end=0.875, every=2, top=1)
    lines = lines_of(out)
    assert [(line["start"], line["end"]) for line in lines] == [(0.25, 0.5), (0.5, 0.75), (0.75, 0.875)]
    assert all(len(line["tasks"]["verb"]["scores"]) == 1 for line in lines)
    predict(clip_run.folder, video, out=out, start=0.5, end=0.75, top=1)
    assert lines_of(out) == [lines[1]]


@pytest.mark.parametrize("kind", ["clips", "pairs"])
def test_several_at_a_time_get_the_scores_of_one_at_a_time(
    kind: str, clip_run: Trained, pair_run: Trained, tmp_path: Path
) -> None:
    trained = clip_run if kind == "clips" else pair_run
    boxes = None if kind == "clips" else boxes_of(trained.clips, 1)
    if boxes is not None:  # frames 0 and 4 have no pair, 1 to 3 two, the others one
        boxes["tracks"][1] |= {"start_frame": 1, "boxes": boxes["tracks"][1]["boxes"][1:4]}
        boxes["tracks"][2] |= {"start_frame": 1, "boxes": boxes["tracks"][2]["boxes"][1:]}
        boxes["tracks"][0] |= {"boxes": boxes["tracks"][0]["boxes"][:4]}
        boxes["tracks"].append({**boxes["tracks"][0], "track_id": 3, "start_frame": 5, "boxes": [[1, 2, 9, 9]] * 3})
    given = None if boxes is None else written(tmp_path / "b.json", boxes)
    results = []
    for size in (1, 3, 8):
        folder = trained.elsewhere(tmp_path)
        text = (folder / "config.yaml").read_text()
        assert "  batch_size: 4\n" in text
        (folder / "config.yaml").write_text(text.replace("  batch_size: 4\n", f"  batch_size: {size}\n"))
        predict(folder, trained.clips.clip(1).path, boxes=given, out=tmp_path / "out", every=1, top=9)
        results.append(lines_of(tmp_path / "out"))
        shutil.rmtree(folder)
    if boxes is not None:
        assert [len(line["pairs"]) for line in results[0]] == [0, 2, 2, 2, 0, 1, 1, 1]
    wanted = dict(leaves(results[0]))
    assert len(results[0]) == 8
    for result in results[1:]:
        assert dict(leaves(result)) == pytest.approx(wanted, abs=TOLERANCE)


def test_a_pair_needs_both_in_the_key_frame(
    pair_run: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips, content = pair_run.clips, boxes_of(pair_run.clips, 1)
    content["tracks"][1] |= {"start_frame": 3, "boxes": content["tracks"][1]["boxes"][3:5], "score": 0.5}
    content["tracks"][2]["class"] = "person"
    content["persons"] = [1]
    predict(pair_run.folder, clips.clip(1).path, boxes=written(tmp_path / "b.json", content), every=3)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ids = [[(pair["person_id"], pair["object_id"]) for pair in line["pairs"]] for line in lines]
    assert ids == [[], [(0, 1), (2, 1)], []]  # of another person the run has no class
    assert lines[1]["pairs"][0]["object_score"] == 0.5
    predict(pair_run.folder, clips.clip(1).path, boxes=tmp_path / "b.json")
    assert len(capsys.readouterr().out.splitlines()) == 1  # one a second, and there is one second


def test_thresholds_of_the_checkpoint_decide(pair_run: Trained, tmp_path: Path) -> None:
    folder, clips = pair_run.elsewhere(tmp_path), pair_run.clips
    chosen = chosen_checkpoint(folder, load_config(pair_run.config), "best")
    thresholds = {"predicate": torch.tensor([0.0, 0.999, 0.0, 0.999], dtype=torch.float64)}
    boxes, out = written(tmp_path / "b.json", boxes_of(clips, 1)), tmp_path / "out.jsonl"
    results = []
    for fitted in (False, True):
        if fitted:
            write_thresholds(folder, chosen, clips.tasks, thresholds)
        predict(folder, clips.clip(1).path, boxes=boxes, out=out, top=1)
        results.append(lines_of(out)[0]["pairs"][0]["tasks"]["predicate"])
    before, after = results
    assert set(before["predicted"]) == {name for name, score in before["scores"].items() if score > 0.5}
    assert sorted(after["predicted"]) == ["left_of", "moves"]
    assert set(after["scores"]) >= set(after["predicted"])


def test_the_film_shows_the_boxes_where_they_are(pair_run: Trained, tmp_path: Path) -> None:
    clips, film, log = pair_run.clips, tmp_path / "film.mp4", tmp_path / "log"
    boxes = written(tmp_path / "b.json", boxes_of(clips, 2))
    arguments = [str(pair_run.folder), str(clips.clip(2).path), "--boxes", str(boxes), "--video-out", str(film)]
    assert run(["predict", *arguments, "--out", str(tmp_path / "out.jsonl")], log) == 0, log.read_text()
    with av.open(str(film)) as container:
        assert container.streams.video[0].average_rate == 8
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert (len(frames), frames[0].shape) == (8, (240, 240, 3))  # five times as large
    for number in (0, 7):
        for track, colour in ((0, PERSON), (1, OBJECT)):
            x0, y0, x1, y1 = (round(5 * value) for value in clips.tracks(2)[track].boxes[number].tolist())
            edge = np.concatenate([frames[number][y0 + 1, x0:x1], frames[number][y0:y1, x0 + 1]])
            near = np.abs(edge.astype(int) - colour).max(1) < 60
            assert near.mean() > 0.4, (number, track)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.json", "film.mp4", "log", "out.jsonl"]


TRACK: dict[str, Any] = {"track_id": 0, "class": "person", "start_frame": 0, "boxes": [[1, 2, 30, 40]]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "{file}, line 1: not JSON: Expecting property name"),
        ({"track": []}, "{file}: tracks: missing, it must be given"),
        (
            '{"tracks": [{"track_id": 0, "class": "person", "start_frame": 0, "boxes": [], "boxes": [[1, 2, 3, 4]]}]}',
            "{file}: not JSON: key 'boxes' occurs twice in an object; the file must look like {",
        ),
        ({"tracks": [{**TRACK, "clas": 1}]}, "{file}: tracks.0.clas: unknown key; allowed here: track_id, class, "),
        ({"tracks": [{**TRACK, "boxes": [[1, 2, 3]]}]}, "{file}: tracks.0.boxes.0.3: missing"),
        ({"tracks": [TRACK, TRACK]}, "{file}: track 0: the track_id occurs 2 times"),
        ({"tracks": [TRACK], "persons": [4]}, "{file}: persons: 4 is not the track_id of a track"),
        (
            {"tracks": [{**TRACK, "class": "cop"}]},
            "track 0: class: the run knows no 'cop'; did you mean 'cup'?; allowed",
        ),
        ({"tracks": [{**TRACK, "class": "cup"}]}, "{file}: no track is a person: give persons the class 'person'"),
        (
            {"tracks": [{**TRACK, "start_frame": 8}]},
            "track 0: boxes: the last one is of frame 8, the video has frames 0 to 7",
        ),
        (
            {"tracks": [{**TRACK, "boxes": [[1, 2, 30, 2]]}]},
            "track 0: boxes.0: [1.0, 2.0, 30.0, 2.0] is not finite x0 < x1, y0",
        ),
        (  # infinite as float32
            {"tracks": [{**TRACK, "boxes": [[1, 2, 30, 40], [1, 2, 1e39, 40]]}]},
            "track 0: boxes.1: [1.0, 2.0, 1e+39, 40.0] is not finite x0 < x1, y0 < y1",
        ),
        (
            {"tracks": [{**TRACK, "boxes": [[1, 48, 50, 90], [-9, 2, 0, 40]]}]},
            "track 0: boxes: all 2 lie outside the frame of 48×48 pixels; they must be in pixels of this video",
        ),
    ],
)
def test_boxes_that_cannot_be_used_are_named(content: Any, message: str, pair_run: Trained, tmp_path: Path) -> None:
    file = written(tmp_path / "boxes.json", content)
    with pytest.raises(UserError) as error:
        predict(pair_run.folder, pair_run.clips.clip(1).path, boxes=file)
    assert message.replace("{file}", str(file)) in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": "nothing"}, "not a run directory"),
        ({"folder": "untrained"}, "no valid checkpoint; train the run first"),
        ({"folder": "old"}, "events.jsonl: does not record the run's tasks and classes; train the run again"),
        ({"video": "nothing.mp4"}, "nothing.mp4: no such video file"),
        ({"boxes": "nothing.json"}, "nothing.json: cannot be read: No such file"),
        ({"boxes": None}, 'labels pairs and needs their boxes, a JSON file such as {"tracks"'),
        ({"start": 9.0, "end": None}, "no frame from 9.0 s until the end"),
        ({"start": 1.0, "end": 1.0}, "--end: 1.0 s is not after the start"),
        ({"start": float("nan")}, "--start: must be seconds >= 0"),
        ({"every": 0}, "--every: must be at least 1, got 0"),
        ({"top": 0}, "--top: must be at least 1, got 0"),
        ({"film": "film.avi"}, "film.avi: its name must end in .mp4"),
        ({"out": "boxes.json"}, "boxes.json is the file of boxes itself; choose another name"),
        ({"out": "film.mp4", "film": "film.mp4"}, "film.mp4 is already that of --out; choose another name"),
    ],
)
def test_what_cannot_be_predicted_is_refused(
    changes: dict[str, Any], message: str, pair_run: Trained, tmp_path: Path
) -> None:
    shutil.rmtree(pair_run.elsewhere(tmp_path).rename(tmp_path / "untrained") / "checkpoints")
    old = pair_run.elsewhere(tmp_path).rename(tmp_path / "old") / "events.jsonl"
    old.write_text(old.read_text().replace('"labels"', '"label"'))
    boxes = written(tmp_path / "boxes.json", boxes_of(pair_run.clips, 1))
    given = {"folder": pair_run.folder, "video": pair_run.clips.clip(1).path, "boxes": boxes}
    given |= {key: tmp_path / value if isinstance(value, str) else value for key, value in changes.items()}
    with pytest.raises(UserError) as error:
        predict(given.pop("folder"), given.pop("video"), **given)
    assert message in str(error.value)


def test_the_video_is_not_written_over(clip_run: Trained, tmp_path: Path) -> None:
    video = tmp_path / "video.mp4"
    shutil.copy(clip_run.clips.clip(1).path, video)
    before = video.read_bytes()
    for option in ("out", "film"):
        with pytest.raises(UserError, match=r"video\.mp4 is the video itself; choose another name"):
            predict(clip_run.folder, video, **{option: video})
    assert video.read_bytes() == before


def test_a_video_that_does_not_decode_leaves_nothing(clip_run: Trained, tmp_path: Path) -> None:
    broken, out = tmp_path / "broken.mp4", tmp_path / "out.jsonl"
    whole = clip_run.clips.clip(0).path.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ClipError, match=r"broken\.mp4"):
        predict(clip_run.folder, broken, out=out)
    with pytest.raises(UserError, match="labels whole clips; leave it out"):
        predict(clip_run.folder, clip_run.clips.clip(0).path, boxes=tmp_path / "boxes.json")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.mp4"]


@pytest.mark.parametrize("method", METHODS)
def test_the_network_of_every_method_is_rebuilt(method: str, clip_run: Trained, tmp_path: Path) -> None:
    config = load_config(make_config(tmp_path, clip_run.manifest, method=method, training={"epochs": 99}))
    experiment = assemble(config)
    rebuild(config, experiment.data.tasks, None).load_state_dict(experiment.model.state_dict())
