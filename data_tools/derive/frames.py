"""Make the frames of a clip into a zip of JPEGs; a frame that several clips show is encoded once."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_tools.derive.mapping import ClipMapping
from data_tools.derive.rates import rate_of
from data_tools.derive.shards import Cache
from data_tools.derive.source import ClipPlan, Facts, SourceClip, Writing, bad
from data_tools.faults import Outcome, beyond_end, on_disk
from data_tools.jobs.local import Store
from hoi_train.core.records import Clip, ClipError
from hoi_train.data.opencv import decode_jpeg, encode_jpeg
from hoi_train.data.readers import Reader, open_clip
from hoi_train.data.readers.base import Image, clip_error
from hoi_train.data.readers.zip_reader import frame_name

VERSION = 1  # of the frames that this tool makes from the same source and settings
COMPARED = 8  # of so many frames one is decoded again, for the PSNR


@dataclass(frozen=True)
class FrameSettings:
    """What the frames are made to be.

    Args:
        short_side: pixels; smaller sources keep their size.
        quality: of the JPEG, 1 to 100.
        shard_clips: clips in a shard.
    """

    short_side: int = 256
    quality: int = 70
    shard_clips: int = 64

    def to_json(self) -> Facts:
        """Return them as plain JSON."""
        return {"version": VERSION, **asdict(self)}


class _Frame(NamedTuple):
    """A frame as it is kept: ``size`` and ``source_size`` are width and height."""

    jpeg: bytes
    size: tuple[int, int]
    source_size: tuple[int, int]
    mse: float | None


@dataclass(frozen=True)
class JpegMaker:
    """Makes a zip of JPEGs of each clip, which is packed into a shard later; a ``ClipMaker``."""

    cache: Cache
    options: FrameSettings

    @property
    def store(self) -> Store:
        """See ``ClipMaker``."""
        return self.cache.clips

    @property
    def settings(self) -> Facts:
        """See ``ClipMaker``."""
        return self.options.to_json()

    def shard(self, row: int) -> str:
        """Return the name of the shard of a row of the manifest."""
        return f"{row // self.options.shard_clips:05}"

    def find(self, clips: Sequence[SourceClip]) -> list[Facts | None]:
        """See ``ClipMaker``."""
        packed = {shard: self.cache.packed(shard) for shard in {self.shard(each.row) for each in clips}}
        return [self.cache.find(packed[self.shard(each.row)], each.clip.clip_id, each.key) for each in clips]

    def open(self, clips: Sequence[Clip]) -> Reader:
        """See ``ClipMaker``; a single clip is opened as training opens it."""
        whole = replace(clips[0], start=None, end=None, num_frames=None, size=None)
        return open_clip(clips[0] if len(clips) == 1 else whole)

    def size(self, reader: Reader, num_clips: int) -> tuple[int, int] | None:
        """See ``ClipMaker``; the reader of a single clip checks the size itself."""
        if num_clips == 1:
            return None
        height, width = reader.read([0]).shape[1:3]
        return width, height

    def plan(self, reader: Reader, clip: SourceClip, size: tuple[int, int] | None) -> ClipPlan | Outcome:
        """See ``ClipMaker``."""
        try:
            window = _window(clip.clip, reader, size)
        except ClipError as error:
            return bad(clip.clip, error)
        if fault := beyond_end(clip.clip, clip.labelled, len(window)):
            return Outcome(clip.clip.clip_id, False, *fault)
        return ClipPlan(clip, np.arange(window.start, window.stop))

    def encode(self, image: Image, index: int) -> _Frame:
        """See ``ClipMaker``; also measures what JPEG changes, in some frames."""
        height, width = image.shape[:2]
        size = short_side_of((width, height), self.options.short_side)
        scaled = image if size == (width, height) else _scaled(image, size)
        jpeg = encode_jpeg(scaled, self.options.quality)
        compared = index % COMPARED == 0
        mse = float(np.square(decode_jpeg(jpeg).astype(np.float32) - scaled).mean()) if compared else None
        return _Frame(jpeg, size, (width, height), mse)

    def writing(self, plan: ClipPlan, reader: Reader) -> Writing:
        """See ``ClipMaker``."""
        clip, sizes, errors = plan.of.clip, set[tuple[tuple[int, int], tuple[int, int]]](), list[float]()
        with on_disk(self.store.folder), self.store.unfinished() as file:
            with zipfile.ZipFile(file, "w") as archive:
                for number in range(len(plan.frames)):
                    frame: _Frame = yield
                    sizes.add((frame.size, frame.source_size))
                    if len(sizes) > 1:
                        found = sorted(source for _, source in sizes)
                        raise clip_error(clip, f"its frames differ in size (width, height): {found}")
                    errors += [] if frame.mse is None else [frame.mse]
                    archive.writestr(zipfile.ZipInfo(frame_name(number)), frame.jpeg)
            ((size, source_size),) = sizes
            first, count, rate = int(plan.frames[0]), len(plan.frames), rate_of(reader.timestamps)
            known = clip.path.is_file() or clip.fps is not None
            facts = {
                **ClipMapping(rate, size, source_size, first, count, None).facts(),
                "fps": (clip.fps or float(rate)) if known else None,
                "mse": float(np.mean(errors)) if errors else None,
                "source_bytes": _bytes_of(clip.path) * count / len(reader.timestamps),
            }
            self.store.keep(clip.clip_id, plan.of.key, file, facts)


def short_side_of(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Return a size whose short side is as wanted, never longer than it was.

    >>> short_side_of((640, 480), 256), short_side_of((101, 300), 256)
    ((341, 256), (101, 300))
    """
    short = min(short_side, *size)
    width, height = (round(side * short / min(size)) for side in size)
    return width, height


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


def _scaled(image: Image, size: tuple[int, int]) -> Image:
    import torch  # takes seconds, which the process that hands out the work need not wait for
    from torch.nn.functional import interpolate

    torch.set_num_threads(1)  # every core has a worker
    picture = torch.from_numpy(image).permute(2, 0, 1)[None]
    smaller = interpolate(picture, size[::-1], mode="bilinear", antialias=True)
    scaled: Image = smaller[0].permute(1, 2, 0).contiguous().numpy()
    return scaled


def _bytes_of(path: Path) -> int:
    """Return the bytes of a video file or frame folder; 0 for a clip in a shard."""
    if path.is_dir():
        return sum(entry.stat().st_size for entry in os.scandir(path))
    return path.stat().st_size if path.is_file() else 0
