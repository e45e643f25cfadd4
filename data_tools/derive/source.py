"""Make all clips of a source file in one decoding pass; each clip is finished at its last frame."""

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
        clip: as in the manifest.
        row: its row in the manifest, from 0.
        labelled: frames of the clip with annotated pairs.
        key: digest of all inputs of the result; empty if the source cannot be read.
    """

    clip: Clip
    row: int
    labelled: tuple[int, ...] = ()
    key: str = ""


@dataclass(frozen=True)
class Source:
    """A video file or frame folder with its clips.

    Args:
        path: absolute.
        name: the path as in the manifest.
        clips: at least one.
    """

    path: Path
    name: str
    clips: tuple[SourceClip, ...]

    def exists(self) -> bool:
        """Return whether the file, or the shard that contains the path, exists."""
        return source_of(self.path).exists()


@dataclass(frozen=True)
class ClipPlan:
    """The frames from which a clip will be made.

    Args:
        of: the clip.
        frames: source frame of each frame of the result, ascending, int64 ``[K]``.
        mapping: the same with sizes and rate, if these are known before decoding.
    """

    of: SourceClip
    frames: Indices
    mapping: ClipMapping | None = None


class ClipMaker(Protocol):
    """Make the file of a clip in one output format; pickled and sent to the worker processes."""

    @property
    def store(self) -> Store:
        """Store of the finished clips."""

    @property
    def settings(self) -> Facts:
        """Settings common to all clips, as plain JSON."""

    def find(self, clips: Sequence[SourceClip]) -> list[Facts | None]:
        """Return the stored facts of each clip that is made already with its key, else ``None``."""

    def open(self, clips: Sequence[Clip]) -> Reader:
        """Open the source of the clips; raises ``ClipError`` or ``ValueError``."""

    def size(self, reader: Reader, num_clips: int) -> tuple[int, int] | None:
        """Return width and height of the first frame, read once for all clips; ``None`` if plans do not need it."""

    def plan(self, reader: Reader, clip: SourceClip, size: tuple[int, int] | None) -> ClipPlan | Outcome:
        """Return the plan of a clip, or the outcome that says why it cannot be made."""

    def encode(self, image: Image, index: int) -> Any:
        """Encode a source frame once for all clips that contain it."""

    def writing(self, plan: ClipPlan, reader: Reader) -> Writing:
        """Receive the encoded frames of a clip one by one; after the last one its file is in the store."""


def with_keys(source: Source, settings: Facts) -> Source:
    """Return a source with the keys of its clips set; they stay empty if it does not exist."""
    try:
        state = state_of(source_of(source.path))
    except OSError:
        return source

    def key(clip: Clip) -> str:
        return key_of(settings, source.name, state, clip.start, clip.end, clip.fps, clip.num_frames, clip.size)

    return replace(source, clips=tuple(replace(each, key=key(each.clip)) for each in source.clips))


def found_of(source: Source, maker: ClipMaker) -> list[tuple[SourceClip, Facts | None]]:
    """Return each clip of a source, with its key, and its facts if it is made already, else ``None``."""
    clips = with_keys(source, maker.settings).clips
    return list(zip(clips, maker.find(clips), strict=True))


def make_clips(source: Source, *, maker: ClipMaker) -> list[Outcome] | UserError:
    """Make the clips of a source that are not made yet.

    Returns:
        The outcome of each clip, or the error that must stop all work: labels that cannot be kept, a full disk.
    """
    if not maker.store.folder.is_dir():
        return OutputError(f"{maker.store.folder} is not there; it must be on a disk that all workers share")
    outcomes, todo = list[Outcome](), list[SourceClip]()
    for each, facts in found_of(source, maker):
        if facts is None:
            todo.append(each)
        else:  # its pairs may have changed after it was made
            fault = beyond_end(each.clip, each.labelled, facts["count"])
            outcomes.append(Outcome(each.clip.clip_id, False, *(fault or ())))
    try:
        return outcomes + list(_make(todo, maker))
    except (OutputError, InexactError) as error:
        return error


def _make(todo: Sequence[SourceClip], maker: ClipMaker) -> Iterator[Outcome]:
    """Make clips of one source in one pass; if it fails, make the remaining ones one by one."""
    if not todo:
        return
    done = set()
    try:
        for outcome in _make_in_one_pass(todo, maker):
            done.add(outcome.clip_id)
            yield outcome
    except (OutputError, InexactError):
        raise
    except Exception as error:  # any decoder error is reported for its clip only
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
    """Decode each frame that any clip needs once, in order; yield each clip's id when it is finished."""
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
    """Send a frame to a clip as often as it occurs in it; return whether the clip needs more frames."""
    try:
        for _ in range(*span):
            writing.send(encoded)
    except StopIteration:
        return False
    return True
