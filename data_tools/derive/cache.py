"""Make the frame cache of a manifest: all frames of its clips as JPEG at training size, in zip shards, and a manifest.

=================== =======================================================================================
manifest.parquet    the clips that were made, with labels, groups, splits, pairs and tracks; and dataset.json
shards/             00000.zip, 00001.zip …: stored zips, in each one stored zip per clip, in that a JPEG per frame
cache.json          size, quality and checksums, and what became of every clip that is not in the manifest
settings.json       what the folder was made with; other settings are refused
unpacked/           clips whose shard is not written yet
=================== =======================================================================================

Frame i of a cached clip is frame i of the clip. A clip that is made already is not made again unless its source, its
times or its place in the manifest changed. The same command goes on after a kill, and may run several times at once.
Exit code 1 if any clip is bad: it is listed in cache.json and left out.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from data_tools.console import progress
from data_tools.derive.mapping import ClipMapping
from data_tools.derive.pipeline import DerivedClip, DerivedForm, DeriveReport, Work, derive, source_at
from data_tools.derive.rates import rate_of
from data_tools.derive.shards import Cache
from data_tools.derive.source import ClipPlan, Facts, SourceClip, Writing, unreadable, with_keys
from data_tools.faults import Outcome, beyond_end, on_disk
from data_tools.jobs.local import Store, key_of
from data_tools.options import check_range
from hoi_train.core.records import Clip, ClipError
from hoi_train.data.manifest import Manifest
from hoi_train.data.opencv import decode_jpeg, encode_jpeg
from hoi_train.data.readers import Reader, open_clip
from hoi_train.data.readers.base import Image, clip_error
from hoi_train.data.readers.zip_reader import frame_name

VERSION = 1  # increased when the same source and settings give other frames
COMPARED = 8  # every eighth frame is decoded again, for the PSNR
LEAST_MSE = 1e-6  # identical images are reported as 108 dB


@dataclass(frozen=True)
class FrameSettings:
    """Settings of the cached frames.

    Args:
        short_side: shorter side of the frames in pixels; smaller sources keep their size.
        quality: JPEG quality, 1 to 100; cache.json has the PSNR.
        shard_clips: clips per shard.
    """

    short_side: int = 256
    quality: int = 70
    shard_clips: int = 64

    def to_json(self) -> Facts:
        """Return them as plain JSON."""
        return {"version": VERSION, **asdict(self)}


def make_cache(
    path: Path,
    out: Path,
    settings: FrameSettings,
    work: Work | None = None,
    *,
    dry_run: bool = False,
    console: Console | None = None,
) -> DeriveReport | None:
    """Make the frame cache of a manifest; see ``derive``.

    Args:
        path: the manifest; neither it nor its videos are changed.
        out: folder of the shards and their manifest.
        settings: of the frames.
        work: number of processes, timeout and engine.
        dry_run: only print how many clips there are to make.
        console: where progress is shown.

    Returns:
        The report; ``None`` for a dry run.
    """
    return derive(path, _FrameCache(path, out, settings), work or Work(), console or Console(), dry_run=dry_run)


class _FrameCache(DerivedForm):
    """The folder of a frame cache."""

    name, report = "cache", "cache.json"
    maker: _JpegMaker

    def __init__(self, path: Path, out: Path, settings: FrameSettings) -> None:
        noted = {**settings.to_json(), "manifest": str(path.resolve())}
        super().__init__(out, _JpegMaker(Cache(out.resolve(), key_of(noted)), settings))
        self.cache, self.options = self.maker.cache, settings
        self._shards, self._frames, self._source_bytes, self._errors = list[Facts](), 0, 0.0, list[float]()

    def check(self) -> None:
        check_range("--short-side", self.options.short_side, 16, 8192)
        check_range("--quality", self.options.quality, 1, 100)
        check_range("--shard-clips", self.options.shard_clips, 1, 10_000)

    def sweep(self) -> None:
        self.cache.sweep()

    def exclusive(self) -> AbstractContextManager[None]:
        return self.cache.exclusive()

    def finish(self, manifest: Manifest, bad: dict[str, Outcome], console: Console) -> dict[str, Outcome]:
        """Write the shards whose clips changed, and remove the unpacked files of packed clips."""
        with progress(console) as shown:
            bar = shown.add_task("pack", total=math.ceil(len(manifest) / self.options.shard_clips))
            for batch in self.batches(manifest):
                name = self.maker.shard(batch.start)
                found = self._found(manifest, batch, bad)
                if found and found != self.cache.packed(name):
                    self.cache.pack(name, found)
                shown.update(bar, advance=1)
        left_over = {*self.cache.clips.folder.glob("*/*.zip")}
        for clip_id in manifest.clip_ids if left_over else ():
            if self.cache.clips.path(clip_id) in left_over and clip_id not in bad:
                self.cache.forget(clip_id)
        return bad

    def batches(self, manifest: Manifest) -> Iterator[range]:
        size = self.options.shard_clips
        return (range(start, min(start + size, len(manifest))) for start in range(0, len(manifest), size))

    def derived(self, kept: Manifest, batch: range) -> list[DerivedClip]:
        name = self.maker.shard(batch.start)
        record = self.cache.shards.load(name)
        clips = record.facts["clips"]
        path = self.cache.shards.path(name).relative_to(self.out).as_posix()
        self._shards.append({"path": path, "clips": len(clips), "bytes": record.size, "sha256": record.sha256})
        found = []
        for clip_id in kept.clip_ids:
            facts = clips[clip_id]
            found.append(DerivedClip(ClipMapping.of(facts), self.cache.path(name, clip_id), facts["fps"]))
            self._frames += facts["count"]
            self._source_bytes += facts["source_bytes"]
            self._errors += [] if facts["mse"] is None else [facts["mse"]]
        return found

    def contents(self) -> dict[str, Any]:
        psnr = [10 * math.log10(255**2 / max(error, LEAST_MSE)) for error in self._errors]
        return {
            "frames": self._frames,
            "bytes": sum(shard["bytes"] for shard in self._shards),
            "source_bytes": round(self._source_bytes),  # of the videos, for the cached frames only
            "psnr": {"mean": sum(psnr) / len(psnr), "lowest": min(psnr)} if psnr else {},  # dB, over clips
            "shards": self._shards,
        }

    def lines(self, contents: Mapping[str, Any]) -> Iterator[str]:
        if not contents["shards"]:
            return
        source, psnr = contents["source_bytes"], contents["psnr"]
        ratio = f", {contents['bytes'] / source:.2f} times the source" if source else ""
        size = f"{contents['bytes'] / 2**20:.1f} MiB in {len(contents['shards'])} shards"
        yield f"{contents['frames']} frames, {size}{ratio}"
        yield f"PSNR of the JPEG: {psnr['mean']:.1f} dB, lowest clip {psnr['lowest']:.1f} dB"

    def _found(self, manifest: Manifest, batch: range, bad: dict[str, Outcome]) -> dict[str, Facts]:
        """Return the facts of a shard's finished clips by id; add the others to ``bad``."""
        found = dict[str, Facts]()
        clips = [with_keys(source_at(manifest, [row]), self.maker.settings).clips[0] for row in batch]
        for each, facts in zip(clips, self.maker.find(clips), strict=True):
            clip_id = each.clip.clip_id
            if facts and (fault := beyond_end(each.clip, each.labelled, facts["count"])):
                bad[clip_id] = Outcome(clip_id, False, *fault)  # its pairs changed after it was cached
            elif facts:
                found[clip_id] = facts
                bad.pop(clip_id, None)  # another run read it successfully
            else:
                text = "its source changed while the cache was made; give the same command again"
                bad.setdefault(clip_id, Outcome(clip_id, fault="unreadable", text=text))
        return found


class _Frame(NamedTuple):
    """An encoded frame; ``size`` and ``source_size`` are (width, height), ``mse`` is measured for some frames."""

    jpeg: bytes
    size: tuple[int, int]
    source_size: tuple[int, int]
    mse: float | None


@dataclass(frozen=True)
class _JpegMaker:
    """Make a zip of JPEGs per clip, packed into a shard later; implements ``ClipMaker``."""

    cache: Cache
    options: FrameSettings

    @property
    def store(self) -> Store:
        return self.cache.clips

    @property
    def settings(self) -> Facts:
        return self.options.to_json()

    def shard(self, row: int) -> str:
        """Return the name of the shard of a manifest row."""
        return f"{row // self.options.shard_clips:05}"

    def find(self, clips: Sequence[SourceClip]) -> list[Facts | None]:
        packed = {shard: self.cache.packed(shard) for shard in {self.shard(each.row) for each in clips}}
        return [self.cache.find(packed[self.shard(each.row)], each.clip.clip_id, each.key) for each in clips]

    def open(self, clips: Sequence[Clip]) -> Reader:
        # a single clip is opened as in training
        whole = replace(clips[0], start=None, end=None, num_frames=None, size=None)
        return open_clip(clips[0] if len(clips) == 1 else whole)

    def size(self, reader: Reader, num_clips: int) -> tuple[int, int] | None:
        # the reader of a single clip checks the size itself
        if num_clips == 1:
            return None
        height, width = reader.read([0]).shape[1:3]
        return width, height

    def plan(self, reader: Reader, clip: SourceClip, size: tuple[int, int] | None) -> ClipPlan | Outcome:
        try:
            window = _window(clip.clip, reader, size)
        except ClipError as error:
            return unreadable(clip.clip, error)
        if fault := beyond_end(clip.clip, clip.labelled, len(window)):
            return Outcome(clip.clip.clip_id, False, *fault)
        return ClipPlan(clip, np.arange(window.start, window.stop))

    def encode(self, image: Image, index: int) -> _Frame:
        # measures the error of JPEG in every eighth frame
        height, width = image.shape[:2]
        size = short_side_of((width, height), self.options.short_side)
        scaled = image if size == (width, height) else _scaled(image, size)
        jpeg = encode_jpeg(scaled, self.options.quality)
        compared = index % COMPARED == 0
        mse = float(np.square(decode_jpeg(jpeg).astype(np.float32) - scaled).mean()) if compared else None
        return _Frame(jpeg, size, (width, height), mse)

    def writing(self, plan: ClipPlan, reader: Reader) -> Writing:
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
    """Return a size (width, height) scaled down to a short side; smaller sizes are kept.

    >>> short_side_of((640, 480), 256), short_side_of((101, 300), 256)
    ((341, 256), (101, 300))
    """
    short = min(short_side, *size)
    width, height = (round(side * short / min(size)) for side in size)
    return width, height


def _window(clip: Clip, reader: Reader, size: tuple[int, ...] | None) -> range:
    """Return the clip's frames, with the checks of a reader of this clip alone.

    Args:
        clip: one of the clips of the source.
        reader: reads the whole source.
        size: width and height of the first frame; ``None`` if the reader is of this clip alone.

    Raises:
        ClipError: the file does not fit the clip.
    """
    source = reader.clip
    if clip is not source and not clip.path.is_file():
        open_clip(clip).close()  # raises if the clip has times but no rate
    if clip.num_frames is not None and len(reader.timestamps) < clip.num_frames:
        raise clip_error(clip, f"it has {len(reader.timestamps)} frames, the manifest says {clip.num_frames}")
    reader.clip = clip
    try:
        if size is not None and clip.size not in (None, size):
            reader.read([0])  # raises with both sizes
        return reader.window()
    finally:
        reader.clip = source


def _scaled(image: Image, size: tuple[int, int]) -> Image:
    import torch  # slow import, not needed in the parent process
    from torch.nn.functional import interpolate

    torch.set_num_threads(1)  # there is one worker per core
    picture = torch.from_numpy(image).permute(2, 0, 1)[None]
    smaller = interpolate(picture, size[::-1], mode="bilinear", antialias=True)
    scaled: Image = smaller[0].permute(1, 2, 0).contiguous().numpy()
    return scaled


def _bytes_of(path: Path) -> int:
    """Return the size in bytes of a video file or frame folder; 0 for a clip in a shard."""
    if path.is_dir():
        return sum(entry.stat().st_size for entry in os.scandir(path))
    return path.stat().st_size if path.is_file() else 0
