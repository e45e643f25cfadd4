"""Predict a video: JSON lines, and a film that shows them.

The frames and the transform are those of evaluation, so the numbers are too. A run of clip tasks takes the whole
stretch as one clip, or consecutive windows of it; a run of pair tasks takes key frames and a file of boxes, and
labels every person with every other track in the key frame.
"""

from __future__ import annotations

import bisect
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch

from hoi_train.core.disk import whole_file
from hoi_train.core.records import ClassList, Clip, UserError
from hoi_train.data.boxes_file import EXAMPLE, Actor, read_boxes
from hoi_train.data.pair_dataset import PairSample
from hoi_train.data.readers import open_clip
from hoi_train.data.readers.base import Image, Reader
from hoi_train.inference.drawing import Box, Link, draw
from hoi_train.inference.film import write_video
from hoi_train.inference.predictor import Predictor, Scores, load_predictor

SHOWN = 3  # classes that the film names, of a task or a pair


@dataclass(frozen=True)
class WindowPrediction:
    """The scores of frames ``first`` … of the file, shown from ``start`` until ``end`` in seconds, by task."""

    first: int
    start: float
    end: float
    tasks: dict[str, Scores]

    def to_json(self, top: int) -> dict[str, Any]:
        """Return plain values, with the ``top`` best classes."""
        tasks = {name: scores.to_json(top) for name, scores in self.tasks.items()}
        return {"start": round(self.start, 6), "end": round(self.end, 6), "tasks": tasks}

    def draw(self, frame: Image, number: int, actors: Sequence[Actor]) -> Image:
        """Draw the best classes into a corner of frame ``number``."""
        best = [item for scores in self.tasks.values() for item in list(scores.ranked.items())[:SHOWN]]
        return draw(frame, corner=[f"{name} {score:.2f}" for name, score in best])


@dataclass(frozen=True)
class PairPrediction:
    """The scores of a person and an object, by task."""

    person: Actor
    target: Actor
    tasks: dict[str, Scores]

    def words(self) -> tuple[str, ...]:
        """Return the two track ids and the predicted classes, for the film; empty if none is predicted."""
        found = [name for scores in self.tasks.values() for name in scores.predicted]
        if not found:
            return ()
        more = [f"+ {len(found) - SHOWN}"] if len(found) > SHOWN else []
        return (f"{self.person.track.track_id} → {self.target.track.track_id}", *found[:SHOWN], *more)


@dataclass(frozen=True)
class KeyFramePrediction:
    """The pairs of frame ``first`` of the file, shown at ``time`` in seconds."""

    first: int
    time: float
    pairs: tuple[PairPrediction, ...]

    def to_json(self, top: int) -> dict[str, Any]:
        """Return plain values, with the ``top`` best classes of each pair."""
        return {
            "frame": self.first,
            "time": round(self.time, 6),
            "pairs": [self._pair(pair, top) for pair in self.pairs],
        }

    def draw(self, frame: Image, number: int, actors: Sequence[Actor]) -> Image:
        """Draw the present actors and the predicted pairs into frame ``number``."""
        present = [actor for actor in actors if actor.present(number)]
        boxes = [Box(each.box(number), f"{each.name} {each.track.track_id}", each.is_person) for each in present]
        links = [
            Link(pair.person.box(number), pair.target.box(number), words)
            for pair in self.pairs
            if pair.person.present(number) and pair.target.present(number) and (words := pair.words())
        ]
        return draw(frame, boxes, links)

    def _pair(self, pair: PairPrediction, top: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, actor in (("person", pair.person), ("object", pair.target)):
            found |= {f"{name}_id": actor.track.track_id, f"{name}_box": [round(v, 2) for v in actor.box(self.first)]}
            found |= {} if actor.score is None else {f"{name}_score": actor.score}
        tasks = {name: scores.to_json(top) for name, scores in pair.tasks.items()}
        return {**found, "object_class": pair.target.name, "tasks": tasks}


Prediction = WindowPrediction | KeyFramePrediction


def predict(
    folder: Path,
    video: Path,
    *,
    boxes: Path | None = None,
    out: Path | None = None,
    film: Path | None = None,
    which: str = "best",
    start: float | None = None,
    end: float | None = None,
    every: int | None = None,
    top: int = 5,
) -> int:
    """Print, or write to ``out``, a JSON line for each window or key frame of a video; return the exit code.

    Args:
        folder: the run directory.
        video: the video file.
        boxes: where its persons and objects are, for a run of pair tasks; see ``boxes_file``.
        out: file of the JSON lines.
        film: mp4 file of the frames with what was found, each time held until the next.
        which: ``best`` or ``last`` checkpoint.
        start: seconds; the video's own if not given.
        end: seconds, exclusive; the video's own if not given.
        every: frames from one key frame to the next, about a second if not given; or of a window of clip tasks, all of
            the stretch if not given.
        top: classes to list for each task; what is predicted is listed beside.

    Raises:
        UserError: what was given cannot be used.
    """
    _check(video, start, end, every, top)
    _check_outputs({"--out": out, "--video-out": film}, {"the video": video, "the file of boxes": boxes})
    predictor = load_predictor(folder, which)
    if predictor.of_pairs and boxes is None:
        raise UserError(f"--boxes: {folder} labels pairs and needs their boxes, a JSON file such as {EXAMPLE}")
    if not predictor.of_pairs and boxes is not None:
        raise UserError(f"--boxes: {folder} labels whole clips; leave it out")
    clip = Clip(video.name, video, "test", {}, start=start, end=end)
    with open_clip(clip) as reader:
        actors = () if boxes is None else _actors(boxes, reader, predictor.objects)
        if predictor.of_pairs:
            predictions: Iterator[Prediction] = key_frames(predictor, reader, actors, every)
        else:
            predictions = windows(predictor, reader, every)
        made = []
        with _output(out) as lines:
            for prediction in predictions:
                made.append(prediction)
                print(json.dumps({"video": str(video), **prediction.to_json(top)}, ensure_ascii=False), file=lines)
        if film is not None:
            times = reader.timestamps[reader.window()]
            write_video(film, _pictures(reader, made, actors), (times - times[0]).tolist())
    return 0


def windows(predictor: Predictor, reader: Reader, every: int | None) -> Iterator[WindowPrediction]:
    """Yield the predictions of consecutive windows of ``every`` frames, the last one perhaps shorter."""
    window, times = reader.window(), _times(reader)
    length = every or len(window)
    parts = [window[k : k + length] for k in range(0, len(window), length)]
    views = [(part, view) for part in parts for view in range(predictor.num_views)]
    plans = [part.start + frames for part in parts for frames in predictor.frames(len(part))]
    samples = (
        predictor.clip(f"{reader.clip.path}@{part.start}", torch.from_numpy(frames), view)
        for (part, view), frames in zip(views, reader.read_each(plans), strict=True)
    )
    for part, (scores,) in zip(parts, predictor.scores(samples), strict=True):
        yield WindowPrediction(part.start, times[part.start], times[part.stop], scores)


def key_frames(
    predictor: Predictor, reader: Reader, actors: Sequence[Actor], every: int | None
) -> Iterator[KeyFramePrediction]:
    """Yield the predictions of every ``every``-th frame, also of those without a pair."""
    window, times = reader.window(), _times(reader)
    second = max(1, round(1 / float(np.median(np.diff(times)))))
    found = {frame: _pairs(predictor, actors, frame) for frame in window[:: every or second]}
    scores = predictor.scores(_samples(predictor, reader, {frame: pairs for frame, pairs in found.items() if pairs}))
    for frame, pairs in found.items():
        of_pairs = next(scores) if pairs else []
        labelled = tuple(PairPrediction(*pair, tasks) for pair, tasks in zip(pairs, of_pairs, strict=True))
        yield KeyFramePrediction(frame, times[frame], labelled)


def _samples(
    predictor: Predictor, reader: Reader, found: Mapping[int, Sequence[tuple[Actor, Actor]]]
) -> Iterator[PairSample]:
    """Yield the views of key frames with their pairs."""
    window = reader.window()
    views = [(frame, view) for frame in found for view in range(predictor.num_views)]
    plans = [window.start + frames for frame in found for frames in predictor.frames(len(window), frame - window.start)]
    for (frame, view), plan, frames in zip(views, plans, reader.read_each(plans), strict=True):
        pairs = found[frame]
        indices = torch.from_numpy(plan)
        boxes = torch.stack([actor.track.boxes_at(indices) for pair in pairs for actor in pair])
        yield predictor.key_frame(
            f"{reader.clip.path}@{frame}",
            torch.from_numpy(frames),
            boxes.view(-1, 2, *boxes.shape[1:]),
            torch.tensor([predictor.objects.index(target.name) for _, target in pairs]),
            int((indices - frame).abs().argmin()),
            view,
        )


def _pairs(predictor: Predictor, actors: Sequence[Actor], frame: int) -> list[tuple[Actor, Actor]]:
    """Return every person of a frame with every other track of a known object class."""
    present = [actor for actor in actors if actor.present(frame)]
    targets = [actor for actor in present if actor.name in predictor.objects.names]
    return [(person, target) for person in present if person.is_person for target in targets if target is not person]


def _actors(boxes: Path, reader: Reader, object_classes: ClassList) -> tuple[Actor, ...]:
    height, width = reader.read([reader.window().start]).shape[1:3]
    return read_boxes(boxes, object_classes, len(reader.timestamps), (width, height))


def _times(reader: Reader) -> list[float]:
    """Return when each frame of the file is shown and, last, when the file ends, in seconds."""
    times = reader.timestamps
    last = float(np.median(np.diff(times))) if len(times) > 1 else 1.0  # a single picture: a second
    return [*times.tolist(), float(times[-1]) + last]


def _pictures(reader: Reader, predictions: Sequence[Prediction], actors: Sequence[Actor]) -> Iterator[Image]:
    firsts = [prediction.first for prediction in predictions]
    window = reader.window()
    for number, (frame,) in zip(window, reader.read_each([np.array([k]) for k in window]), strict=True):
        yield predictions[bisect.bisect_right(firsts, number) - 1].draw(frame, number, actors)


@contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """Open the standard output, or a file that appears when it is complete."""
    if path is None:
        yield sys.stdout
        return
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        yield file


def _check(video: Path, start: float | None, end: float | None, every: int | None, top: int) -> None:
    """Refuse arguments out of range."""
    if not video.is_file():
        raise UserError(f"{video}: {'a folder, not a video file' if video.is_dir() else 'no such video file'}")
    for name, number in (("every", every), ("top", top)):
        if number is not None and number < 1:
            raise UserError(f"--{name}: must be at least 1, got {number}")
    for name, seconds in (("start", start), ("end", end)):
        if seconds is not None and not (math.isfinite(seconds) and seconds >= 0):
            raise UserError(f"--{name}: must be seconds >= 0, got {seconds}")
    if end is not None and (start or 0.0) >= end:
        raise UserError(f"--end: {end} s is not after the start, {start or 0.0} s")


def _check_outputs(outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None]) -> None:
    """Refuse to overwrite an input, or to write two results into one file."""
    taken = {path.resolve(): f"{name} itself" for name, path in inputs.items() if path is not None}
    for option, path in outputs.items():
        if path is None:
            continue
        if option == "--video-out" and path.suffix != ".mp4":
            raise UserError(f"{option}: {path}: its name must end in .mp4")
        if path.resolve() in taken:
            raise UserError(f"{option}: {path} is {taken[path.resolve()]}; choose another name")
        taken[path.resolve()] = f"already that of {option}"
