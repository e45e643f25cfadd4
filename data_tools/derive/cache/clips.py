"""Make the frames of a source file's clips into a zip of JPEG a clip: each frame is decoded and encoded once."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_tools.derive.cache.shards import Cache
from data_tools.derive.derived import Made
from data_tools.derive.rates import rate_of
from data_tools.faults import Outcome, OutputError, beyond_end, fault_of, on_disk
from data_tools.jobs.killable import Lost
from data_tools.jobs.local import key_of, state_of
from hoi_train.core.records import Clip, ClipError, UserError
from hoi_train.data.opencv import decode_jpeg, encode_jpeg
from hoi_train.data.readers import Reader, open_clip, source_of
from hoi_train.data.readers.base import Image, clip_error
from hoi_train.data.readers.zip_reader import frame_name

VERSION = 1  # of the frames that this tool makes from the same source and settings
COMPARED = 8  # of so many frames one is decoded again, for the PSNR


@dataclass(frozen=True)
class Settings:
    """What the frames are made to be.

    Args:
        short_side: pixels; smaller sources keep their size.
        quality: of the JPEG, 1 to 100.
        shard_clips: clips in a shard.
    """

    short_side: int = 256
    quality: int = 70
    shard_clips: int = 64

    def to_json(self) -> dict[str, Any]:
        """Return them as plain JSON."""
        return {"version": VERSION, **asdict(self)}


@dataclass(frozen=True)
class Job:
    """Clips of one source file.

    Args:
        clips: at least one.
        shards: of each clip, the name of the shard that it will be in.
        labelled: of each clip, the last frame that its pairs are of; 0 without pairs.
    """

    clips: tuple[Clip, ...]
    shards: tuple[str, ...]
    labelled: tuple[int, ...]

    def exists(self) -> bool:
        """Return whether the source is there."""
        return source_of(self.clips[0].path).exists()

    def facts(self, cache: Cache, settings: Settings) -> list[dict[str, Any] | None]:
        """Return the facts of each clip that is made, ``None`` for the others."""
        packed = {shard: cache.packed(shard) for shard in {*self.shards}}
        found: list[dict[str, Any] | None] = []
        for clip, shard in zip(self.clips, self.shards, strict=True):
            try:
                found.append(cache.find(packed[shard], clip.clip_id, key_of_clip(clip, settings)))
            except OSError:
                found.append(None)
        return found

    def after(self, lost: Lost, cache: Cache, settings: Settings) -> list[Outcome]:
        """Return what became of the clips when their process was lost: some may have been finished."""
        return [
            Outcome(clip.clip_id, made=True) if facts else Outcome(clip.clip_id, fault=lost.why, text=lost.text)
            for clip, facts in zip(self.clips, self.facts(cache, settings), strict=True)
        ]


def key_of_clip(clip: Clip, settings: Settings) -> str:
    """Return what stands for all that a clip's frames are made from; raises ``OSError`` if its source is gone."""
    state = state_of(source_of(clip.path))
    return key_of(settings.to_json(), str(clip.path), state, clip.start, clip.end, clip.fps, clip.num_frames, clip.size)


def cache_source(job: Job, *, cache: Cache, settings: Settings) -> list[Outcome] | UserError:
    """Make the clips of a source that are not made yet.

    Returns:
        What became of each clip, or why the whole work must stop: the disk is full.
    """
    outcomes, todo = list[Outcome](), list[_Todo]()
    for clip, labelled, facts in zip(job.clips, job.labelled, job.facts(cache, settings), strict=True):
        try:
            todo += [] if facts else [_Todo(clip, key_of_clip(clip, settings), labelled)]
            outcomes += [Outcome(clip.clip_id)] if facts else []
        except OSError as error:
            outcomes.append(_bad(clip, error))
    try:
        return outcomes + list(_make(todo, cache, settings))
    except OutputError as error:
        return error


def short_side_of(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Return a size whose short side is as wanted, never longer than it was.

    >>> short_side_of((640, 480), 256), short_side_of((101, 300), 256)
    ((341, 256), (101, 300))
    """
    short = min(short_side, *size)
    width, height = (round(side * short / min(size)) for side in size)
    return width, height


class _Todo(NamedTuple):
    clip: Clip
    key: str
    labelled: int


def _make(todo: Sequence[_Todo], cache: Cache, settings: Settings) -> Iterator[Outcome]:
    """Make clips of one source in one pass; if that fails, those that are left one by one."""
    if not todo:
        return
    done = set()
    try:
        for outcome in _encode(todo, cache, settings):
            done.add(outcome.clip_id)
            yield outcome
    except OutputError:
        raise
    except Exception as error:  # whatever a decoder raises is said of its clip, and the next one is read
        if len(todo) == 1:
            yield _bad(todo[0].clip, error)
            return
        for each in todo:
            if each.clip.clip_id not in done:
                yield from _make([each], cache, settings)


def _bad(clip: Clip, error: Exception) -> Outcome:
    fault, text = fault_of(clip.path, error)
    return Outcome(clip.clip_id, fault=fault, text=text)


class _Frame(NamedTuple):
    """A frame as it is kept: ``size`` and ``source_size`` are width and height."""

    jpeg: bytes
    size: tuple[int, int]
    source_size: tuple[int, int]
    mse: float | None


def _encode(todo: Sequence[_Todo], cache: Cache, settings: Settings) -> Iterator[Outcome]:
    """Decode each frame that any of the clips shows once, in order; a clip is finished with its last frame."""
    with _opened([each.clip for each in todo]) as reader, ExitStack() as unfinished:
        plans, active = [], list[_ClipZip]()
        size = reader.read([0]).shape[2:0:-1] if len(todo) > 1 else None
        for clip, key, labelled in todo:
            try:
                window = _window(clip, reader, size)
            except ClipError as error:
                yield _bad(clip, error)
                continue
            if fault := beyond_end(clip, [labelled], len(window)):
                yield Outcome(clip.clip_id, False, *fault)
            else:
                plans.append((window, clip, key))
        plans.sort(key=lambda plan: -plan[0].start)
        wanted = np.unique([index for window, _, _ in plans for index in window])
        images = reader.read_each([wanted[k : k + 1] for k in range(len(wanted))])
        for index, (image,) in zip(wanted.tolist(), images, strict=True):
            while plans and plans[-1][0].start == index:
                active.append(unfinished.enter_context(_ClipZip(*plans.pop(), cache)))
            frame = _jpeg(image, settings, compared=index % COMPARED == 0)
            for each in [*active]:
                each.add(frame)
                if index == each.window.stop - 1:
                    each.keep(reader)
                    active.remove(each)
                    yield Outcome(each.clip.clip_id, made=True)


def _opened(clips: Sequence[Clip]) -> Reader:
    """Open one clip, or what several have in common."""
    whole = replace(clips[0], start=None, end=None, num_frames=None, size=None)
    return open_clip(clips[0] if len(clips) == 1 else whole)


def _window(clip: Clip, reader: Reader, size: tuple[int, ...] | None) -> range:
    """Return the clip's frames, refusing what a reader of this clip alone would.

    Args:
        clip: one of those that are read.
        reader: of all of them.
        size: width and height of the first frame; ``None`` if the reader is of this clip alone.
    """
    source = reader.clip
    if clip is not source and not clip.path.is_file():
        open_clip(clip).close()  # refuses times where there is no rate
    if clip.num_frames is not None and len(reader.timestamps) < clip.num_frames:
        raise clip_error(clip, f"it has {len(reader.timestamps)} frames, the manifest says {clip.num_frames}")
    reader.clip = clip
    try:
        if size is not None and clip.size not in (None, size):
            reader.read([0])  # which says so
        return reader.window()
    finally:
        reader.clip = source


def _jpeg(image: Image, settings: Settings, *, compared: bool) -> _Frame:
    """Scale and encode a picture ``[H, W, 3]``; measure what JPEG changes if wanted."""
    height, width = image.shape[:2]
    size = short_side_of((width, height), settings.short_side)
    scaled = image if size == (width, height) else _scaled(image, size)
    jpeg = encode_jpeg(scaled, settings.quality)
    mse = float(np.square(decode_jpeg(jpeg).astype(np.float32) - scaled).mean()) if compared else None
    return _Frame(jpeg, size, (width, height), mse)


def _scaled(image: Image, size: tuple[int, int]) -> Image:
    import torch  # takes seconds, which the process that hands out the work need not wait for
    from torch.nn.functional import interpolate

    torch.set_num_threads(1)  # every core has a worker
    picture = torch.from_numpy(image).permute(2, 0, 1)[None]
    smaller = interpolate(picture, size[::-1], mode="bilinear", antialias=True)
    scaled: Image = smaller[0].permute(1, 2, 0).contiguous().numpy()
    return scaled


class _ClipZip:
    """The zip of a clip while it is written; gone unless it is kept."""

    def __init__(self, window: range, clip: Clip, key: str, cache: Cache) -> None:
        self.window, self.clip, self._key, self._store = window, clip, key, cache.clips
        self._sizes: set[tuple[tuple[int, int], tuple[int, int]]] = set()
        self._errors: list[float] = []

    def __enter__(self) -> _ClipZip:
        with ExitStack() as opened, on_disk(self._store.folder):
            self._path = opened.enter_context(self._store.unfinished())
            self._zip = opened.enter_context(zipfile.ZipFile(self._path, "w"))
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def add(self, frame: _Frame) -> None:
        """Append a frame."""
        self._sizes.add((frame.size, frame.source_size))
        if len(self._sizes) > 1:
            raise clip_error(
                self.clip, f"its frames differ in size (width, height): {sorted(s for _, s in self._sizes)}"
            )
        self._errors += [] if frame.mse is None else [frame.mse]
        with on_disk(self._store.folder):
            self._zip.writestr(zipfile.ZipInfo(frame_name(len(self._zip.filelist))), frame.jpeg)

    def keep(self, reader: Reader) -> None:
        """Move the zip into place."""
        ((size, source_size),) = self._sizes
        rate = rate_of(reader.timestamps)
        known = self.clip.path.is_file() or self.clip.fps is not None
        facts = {
            **Made(rate, size, source_size, self.window.start, len(self.window), None).facts(),
            "fps": (self.clip.fps or float(rate)) if known else None,
            "mse": float(np.mean(self._errors)) if self._errors else None,
            "source_bytes": _bytes_of(self.clip.path) * len(self.window) / len(reader.timestamps),
        }
        with on_disk(self._store.folder):
            self._zip.close()
            self._store.keep(self.clip.clip_id, self._key, self._path, facts)


def _bytes_of(path: Path) -> int:
    """Return the bytes of a video file or frame folder; 0 for a clip in a shard."""
    if path.is_dir():
        return sum(entry.stat().st_size for entry in os.scandir(path))
    return path.stat().st_size if path.is_file() else 0
