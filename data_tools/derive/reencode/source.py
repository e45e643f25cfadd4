"""Encode the clips of one source file anew: it is decoded once, and each clip is finished with its last frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from data_tools.derive.derived import InexactError, Made, inexact
from data_tools.derive.rates import Indices, frames_at, rate_of
from data_tools.encoding import X264, Mp4Writer
from data_tools.faults import Outcome, OutputError, beyond_end, fault_of, on_disk, too_short, without_place
from data_tools.jobs.local import Record, Store, key_of, state_of
from hoi_train.core.records import Clip, ClipError, UserError
from hoi_train.data.readers import Reader, open_clip
from hoi_train.data.readers.base import Image

VERSION = 1  # of the files that this tool makes from the same source and settings
MAX_SIDE = 8192  # pixels; more is not played
BITS, LONG_GOP = 0.5, 0.6  # measured: bits a pixel of a real clip at crf 21, and what is left of them at GOP 12


@dataclass(frozen=True)
class Settings:
    """What the clips are made to be.

    Args:
        short_side: pixels, even; smaller sources keep their size.
        fps: frames a second, as a fraction; ``None`` for that of each source.
        gop: frames from one key frame to the next; 1 makes every frame a key frame.
        crf: x264's quality, 0 to 51; less is better.
    """

    short_side: int = 256
    fps: str | None = None
    gop: int = 1
    crf: int = 21

    @property
    def x264(self) -> dict[str, str]:
        """The encoder's options."""
        return {**X264, "g": str(self.gop), "crf": str(self.crf)}

    def to_json(self) -> dict[str, Any]:
        """Return them as plain JSON."""
        return {"version": VERSION, **asdict(self)}


@dataclass(frozen=True)
class Source:
    """A video file or frame folder, and its clips.

    Args:
        path: absolute.
        name: the path as the manifest has it.
        clips: at least one.
        labelled: by clip id, the frames of the clip that pairs are of.
    """

    path: Path
    name: str
    clips: tuple[Clip, ...]
    labelled: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Plan:
    clip: Clip
    key: str
    made: Made
    frames: Indices


_Writing: TypeAlias = "Generator[None, Image, None]"


def keys_of(source: Source, settings: Settings) -> dict[str, str]:
    """Return by clip id what stands for all that a clip is made from; raises ``OSError`` if the source is gone."""
    state = state_of(source.path)
    return {
        clip.clip_id: key_of(
            settings.to_json(), source.name, state, clip.start, clip.end, clip.fps, clip.num_frames, clip.size
        )
        for clip in source.clips
    }


def done_of(source: Source, store: Store, settings: Settings) -> dict[str, Record]:
    """Return by clip id the records of the clips that are made already."""
    try:
        keys = keys_of(source, settings)
    except OSError:
        return {}
    found = ((clip_id, store.find(clip_id, key)) for clip_id, key in keys.items())
    return {clip_id: record for clip_id, record in found if record is not None}


def reencode_source(source: Source, *, store: Store, settings: Settings) -> list[Outcome] | UserError:
    """Make the clips of a source that are not made yet.

    Returns:
        What became of each clip, or why the whole work must stop: labels that cannot be kept, a full disk.
    """
    if not store.folder.is_dir():
        return OutputError(f"{store.folder} is not there; it must be on a disk that all workers share")
    done = done_of(source, store, settings)
    clips = {clip.clip_id: clip for clip in source.clips}
    outcomes = {clip_id: _made_before(source, clips[clip_id], record) for clip_id, record in done.items()}
    try:
        todo = [clip for clip in source.clips if clip.clip_id not in done]
        if todo:
            for outcome in _encode(replace(source, clips=tuple(todo)), store, settings):
                outcomes[outcome.clip_id] = outcome
    except (OutputError, InexactError) as error:
        return error
    except Exception as error:  # whatever a decoder raises is said of its clips, and the next source is read
        fault, text = fault_of(source.path, error)
        for clip in source.clips:
            outcomes.setdefault(clip.clip_id, Outcome(clip.clip_id, fault=fault, text=text))
    return list(outcomes.values())


def _made_before(source: Source, clip: Clip, record: Record) -> Outcome:
    """Return what became of a clip that is made already; its pairs may have changed since."""
    fault = beyond_end(clip, source.labelled.get(clip.clip_id, ()), record.facts["count"])
    return Outcome(clip.clip_id, False, *(fault or ()))


def _encode(source: Source, store: Store, settings: Settings) -> Iterator[Outcome]:
    keys = keys_of(source, settings)
    with _opened(source) as reader:
        plans = []
        for clip, made in _plans(source, reader, settings):
            if isinstance(made, Outcome):
                yield made
            else:
                _check_labels(clip, made, source.labelled.get(clip.clip_id, ()))
                plans.append(_Plan(clip, keys[clip.clip_id], made, made.sources))
        for clip_id in _write(plans, reader, store, settings):
            yield Outcome(clip_id, made=True)


def bytes_of(source: Source, *, settings: Settings) -> int | None:
    """Return about how many bytes the clips of a source will have; ``None`` if it cannot be read."""
    bits = BITS * 2 ** ((21 - settings.crf) / 8) * (1 if settings.gop == 1 else LONG_GOP)
    try:
        with _opened(source) as reader:
            plans = [made for _, made in _plans(source, reader, settings) if isinstance(made, Made)]
    except (UserError, ValueError, OSError):
        return None
    return int(sum(each.num_frames * each.size[0] * each.size[1] for each in plans) * bits / 8)


def _opened(source: Source) -> Reader:
    folder = source.path.is_dir()
    if folder and source.clips[0].fps is None:
        raise ValueError("a frame folder without a rate; fill the column fps")
    whole = replace(source.clips[0], start=None, end=None, num_frames=None, size=None)
    return open_clip(whole, "frames" if folder else "pyav")


def _plans(source: Source, reader: Reader, settings: Settings) -> Iterator[tuple[Clip, Made | Outcome]]:
    whole = reader.clip
    height, width = reader.read([0]).shape[1:3]
    for clip in source.clips:
        reader.clip = clip  # of which the reader gives the window, and checks the size
        try:
            fault = too_short(reader, clip.num_frames, source.labelled.get(clip.clip_id, ()))
            if clip.size not in (None, (width, height)):
                reader.read([0])
            bad = Outcome(clip.clip_id, False, *fault) if fault else None
            yield clip, bad or _plan(clip, reader, (width, height), settings)
        except (ClipError, ValueError) as error:
            yield clip, Outcome(clip.clip_id, fault="unreadable", text=without_place(source.path, error))
        finally:
            reader.clip = whole


def _plan(clip: Clip, reader: Reader, size: tuple[int, int], settings: Settings) -> Made:
    """Return how a clip will be made; raises ``ValueError`` at a limit of this tool."""
    times, window = reader.timestamps, reader.window()
    rate = rate_of(times) if settings.fps is None else Fraction(settings.fps)
    new = even_size(size, settings.short_side)
    if max(new) > MAX_SIDE:
        raise ValueError(f"{new[0]}×{new[1]} pixels; at most {MAX_SIDE} a side")
    frames = frames_at(times, window, clip.end, rate)
    return Made(rate, new, size, window.start, len(window), frames)


def even_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Return a width and height like a given one, even, its short side as wanted and never longer than it was.

    >>> even_size((640, 480), 256), even_size((101, 300), 256)
    ((342, 256), (100, 298))

    Raises:
        ValueError: less than two pixels wide or high.
    """
    short = min(short_side, *size) // 2 * 2
    if not short:
        raise ValueError(f"{size[0]}×{size[1]} pixels: no even size fits in")
    width, height = (min(round(side * short / min(size) / 2) * 2, side // 2 * 2) for side in size)
    return width, height


def _check_labels(clip: Clip, made: Made, labelled: Sequence[int]) -> None:
    """Raise if labels are of frames that the result will not have, before the work is done."""
    try:
        made.places(labelled)
    except InexactError as error:
        raise inexact(clip, error) from None


def _write(plans: Sequence[_Plan], reader: Reader, store: Store, settings: Settings) -> Iterator[str]:
    """Decode each frame that any clip shows once, in order; yield each clip's id when it is finished."""
    wanted = np.unique(np.concatenate([np.empty(0, np.int64), *(plan.frames for plan in plans)]))
    waiting = deque(sorted(plans, key=lambda plan: int(plan.frames[0])))
    active: list[tuple[_Plan, _Writing]] = []
    images = reader.read_each([wanted[k : k + 1] for k in range(len(wanted))])
    try:
        for number, image in zip(wanted.tolist(), images, strict=True):
            while waiting and waiting[0].frames[0] == number:
                plan = waiting.popleft()
                active.append((plan, _writing(plan, store, settings)))
                next(active[-1][1])
            for plan, writing in list(active):
                if not _feed(writing, image[0], np.searchsorted(plan.frames, [number, number + 1])):
                    active.remove((plan, writing))
                    yield plan.clip.clip_id
    finally:
        for _, writing in active:
            writing.close()


def _feed(writing: _Writing, image: Image, span: Any) -> bool:
    """Give a clip a frame as often as it shows it; return whether it wants more."""
    try:
        for _ in range(*span):
            writing.send(image)
    except StopIteration:
        return False
    return True


def _writing(plan: _Plan, store: Store, settings: Settings) -> _Writing:
    """Take the frames of a clip one by one; with the last one its file is in place."""
    made = plan.made
    with on_disk(store.folder), store.unfinished() as file:
        with Mp4Writer(file, made.rate, size=made.size, x264=settings.x264, faststart=True) as writer:
            for _ in plan.frames:
                image = yield
                if (image.shape[1], image.shape[0]) != made.source_size:
                    raise ClipError("its frames differ in size")
                writer.write(image)
        store.keep(plan.clip.clip_id, plan.key, file, made.facts())
