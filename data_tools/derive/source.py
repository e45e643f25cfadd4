"""Make the clips of one source file: it is decoded once, and each clip is finished with its last frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from data_tools.derive.mapping import ClipMapping, InexactError
from data_tools.derive.rates import Indices
from data_tools.faults import Outcome, OutputError, beyond_end, fault_of
from data_tools.jobs.local import Store, key_of, state_of
from hoi_train.core.records import Clip, UserError
from hoi_train.data.readers import Reader, source_of
from hoi_train.data.readers.base import Image

Facts: TypeAlias = "dict[str, Any]"
Writing: TypeAlias = "Generator[None, Any, None]"


@dataclass(frozen=True)
class SourceClip:
    """A clip of a source.

    Args:
        clip: as the manifest has it.
        row: its position in the manifest.
        labelled: the frames of the clip that its pairs are of.
        key: stands for all that the result is made from; empty if the source cannot be read.
    """

    clip: Clip
    row: int
    labelled: tuple[int, ...] = ()
    key: str = ""


@dataclass(frozen=True)
class Source:
    """A video file or frame folder, and clips of it.

    Args:
        path: absolute.
        name: the path as the manifest has it.
        clips: at least one.
    """

    path: Path
    name: str
    clips: tuple[SourceClip, ...]

    def exists(self) -> bool:
        """Return whether the file, or the shard that the path leads into, is there."""
        return source_of(self.path).exists()


@dataclass(frozen=True)
class ClipPlan:
    """How a clip will be made.

    Args:
        of: the clip.
        frames: int64 ``[K]``, which of the source's frames each of the result shows, ascending.
        mapping: the same with sizes and rate, where these are known before the frames are decoded.
    """

    of: SourceClip
    frames: Indices
    mapping: ClipMapping | None = None


class ClipMaker(Protocol):
    """What differs between the derived forms of a clip; it is sent to the processes that do the work."""

    @property
    def store(self) -> Store:
        """Where a finished clip lies."""

    @property
    def settings(self) -> Facts:
        """What every clip is made with, as plain JSON."""

    def find(self, clips: Sequence[SourceClip]) -> list[Facts | None]:
        """Return the facts kept of each clip that is made already from what its key stands for, else ``None``."""

    def open(self, clips: Sequence[Clip]) -> Reader:
        """Open the source of clips; raises ``ClipError`` or ``ValueError``."""

    def size(self, reader: Reader, num_clips: int) -> tuple[int, int] | None:
        """Return width and height of the first frame, read once for all clips; ``None`` where plans need none."""

    def plan(self, reader: Reader, clip: SourceClip, size: tuple[int, int] | None) -> ClipPlan | Outcome:
        """Return how a clip will be made, or why it cannot be."""

    def encode(self, image: Image, index: int) -> Any:
        """Return what every clip that shows a frame of the source is given of it."""

    def writing(self, plan: ClipPlan, reader: Reader) -> Writing:
        """Take the encoded frames of a clip one by one; with the last one its file is in the store."""


def with_keys(source: Source, settings: Facts) -> Source:
    """Return a source whose clips have their keys; they stay empty if it is gone."""
    try:
        state = state_of(source_of(source.path))
    except OSError:
        return source

    def key(clip: Clip) -> str:
        return key_of(settings, source.name, state, clip.start, clip.end, clip.fps, clip.num_frames, clip.size)

    return replace(source, clips=tuple(replace(each, key=key(each.clip)) for each in source.clips))


def found_of(source: Source, maker: ClipMaker) -> list[tuple[SourceClip, Facts | None]]:
    """Return each clip of a source, with its key, and the facts of those that are made already."""
    clips = with_keys(source, maker.settings).clips
    return list(zip(clips, maker.find(clips), strict=True))


def make_clips(source: Source, *, maker: ClipMaker) -> list[Outcome] | UserError:
    """Make the clips of a source that are not made yet.

    Returns:
        What became of each clip, or why the whole work must stop: labels that cannot be kept, a full disk.
    """
    if not maker.store.folder.is_dir():
        return OutputError(f"{maker.store.folder} is not there; it must be on a disk that all workers share")
    outcomes, todo = list[Outcome](), list[SourceClip]()
    for each, facts in found_of(source, maker):
        if facts is None:
            todo.append(each)
        else:  # its pairs may have changed since it was made
            fault = beyond_end(each.clip, each.labelled, facts["count"])
            outcomes.append(Outcome(each.clip.clip_id, False, *(fault or ())))
    try:
        return outcomes + list(_make(todo, maker))
    except (OutputError, InexactError) as error:
        return error


def _make(todo: Sequence[SourceClip], maker: ClipMaker) -> Iterator[Outcome]:
    """Make clips of one source in one pass; if that fails, those that are left one by one."""
    if not todo:
        return
    done = set()
    try:
        for outcome in _make_in_one_pass(todo, maker):
            done.add(outcome.clip_id)
            yield outcome
    except (OutputError, InexactError):
        raise
    except Exception as error:  # any decoder error is reported for its clip, and the next one is read
        if len(todo) == 1:
            yield unreadable(todo[0].clip, error)
            return
        for each in todo:
            if each.clip.clip_id not in done:
                yield from _make([each], maker)


def unreadable(clip: Clip, error: Exception) -> Outcome:
    """Return the outcome of a clip whose source raised an error."""
    return Outcome(clip.clip_id, False, *fault_of(clip.path, error))


def _make_in_one_pass(todo: Sequence[SourceClip], maker: ClipMaker) -> Iterator[Outcome]:
    with maker.open([each.clip for each in todo]) as reader:
        plans, size = [], maker.size(reader, len(todo))
        for each in todo:
            plan = maker.plan(reader, each, size)
            if isinstance(plan, Outcome):
                yield plan
            else:
                plans.append(plan)
        for clip_id in _write(plans, reader, maker):
            yield Outcome(clip_id, made=True)


def _write(plans: Sequence[ClipPlan], reader: Reader, maker: ClipMaker) -> Iterator[str]:
    """Decode each frame that any clip shows once, in order; yield each clip's id when it is finished."""
    wanted = np.unique(np.concatenate([np.empty(0, np.int64), *(plan.frames for plan in plans)]))
    waiting = deque(sorted(plans, key=lambda plan: int(plan.frames[0])))
    active: list[tuple[ClipPlan, Writing]] = []
    images = reader.read_each([wanted[k : k + 1] for k in range(len(wanted))])
    try:
        for index, (image,) in zip(wanted.tolist(), images, strict=True):
            while waiting and waiting[0].frames[0] == index:
                plan = waiting.popleft()
                active.append((plan, maker.writing(plan, reader)))
                next(active[-1][1])
            encoded = maker.encode(image, index)
            for plan, writing in list(active):
                if not _feed(writing, encoded, np.searchsorted(plan.frames, [index, index + 1])):
                    active.remove((plan, writing))
                    yield plan.of.clip.clip_id
    finally:
        for _, writing in active:
            writing.close()


def _feed(writing: Writing, encoded: Any, span: Any) -> bool:
    """Give a clip a frame as often as it shows it; return whether it wants more."""
    try:
        for _ in range(*span):
            writing.send(encoded)
    except StopIteration:
        return False
    return True
