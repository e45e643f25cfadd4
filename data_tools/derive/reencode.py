"""Encode all clips of a manifest anew, so that reading random frames of them is cheap, and write their manifest.

Each clip becomes an mp4 file of its own: trimmed, upright, at a constant frame rate, scaled, without sound, every frame
a key frame. Below the output folder:

=================== =======================================================================================
manifest.parquet    the clips that were made, with labels, groups, splits, pairs and tracks; and dataset.json
clips/              the files, each with the record of what it was made from
SHA256SUMS          their checksums: ``sha256sum -c SHA256SUMS``
reencode.json       what became of every clip that is not in the manifest
settings.json       what the folder was made with; other settings are refused
=================== =======================================================================================

A clip that is made already is not made again unless its source, its times or its settings changed. The same command
goes on after a kill, and may run several times at once. Exit code 1 if any clip is bad: it is listed in reencode.json
and left out. With ``--engine ray`` the work is done on the cluster that RAY_ADDRESS names, whose machines share the
videos and the output folder.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from data_tools.derive.mapping import ClipMapping, InexactError, inexact
from data_tools.derive.pipeline import DerivedClip, DerivedForm, DeriveReport, Work, derive, sample_of
from data_tools.derive.rates import MAX_RATE, frames_at, rate_of
from data_tools.derive.source import ClipPlan, Facts, Source, SourceClip, Writing
from data_tools.encoding import X264, Mp4Writer
from data_tools.faults import Outcome, on_disk, too_short, without_place
from data_tools.jobs.killable import run_killable
from data_tools.jobs.local import Store
from data_tools.options import check_range
from hoi_train.core.records import Clip, ClipError, UserError
from hoi_train.data.manifest import Manifest
from hoi_train.data.readers import Reader, open_clip
from hoi_train.data.readers.base import Image

VERSION = 1  # increased when the same source and settings give other files
CLIPS, CHECKSUMS = "clips", "SHA256SUMS"
MAX_SIDE = 8192  # pixels; players do not support larger frames
BITS, LONG_GOP = 0.5, 0.6  # measured: bits per pixel of a real clip at crf 21, and their ratio at GOP 12
SAMPLE = 20  # sources that a dry run opens
BATCH = 1024  # manifest rows mapped at a time


@dataclass(frozen=True)
class ReencodeSettings:
    """Settings of the re-encoded clips.

    Args:
        short_side: shorter side of the frames in pixels, even; smaller sources keep their size.
        fps: frames per second, such as 25, 12.5 or 30000/1001; by default the rate of each source.
        gop: frames from one key frame to the next; 1 makes every frame a key frame, 12 takes about 0.6 times the bytes.
        crf: x264's constant rate factor, 0 to 51; lower is better and larger.

    Raises:
        UserError: ``fps`` is no number.
    """

    short_side: int = 256
    fps: str | None = None
    gop: int = 1
    crf: int = 21

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "fps", None if self.fps is None else str(Fraction(self.fps)))
        except (ValueError, ZeroDivisionError):
            text = f"must be a number or a fraction such as 30000/1001, got {self.fps!r}"
            raise UserError(f"--fps: {text}") from None

    @property
    def x264(self) -> dict[str, str]:
        """The encoder's options."""
        return {**X264, "g": str(self.gop), "crf": str(self.crf)}


def reencode(
    path: Path,
    out: Path,
    settings: ReencodeSettings,
    work: Work | None = None,
    *,
    dry_run: bool = False,
    console: Console | None = None,
) -> DeriveReport | None:
    """Re-encode the clips of a manifest; see ``derive``.

    Args:
        path: the manifest; neither it nor its videos are changed.
        out: folder of the clips and their manifest.
        settings: of the clips.
        work: number of processes, timeout and engine.
        dry_run: only print how many clips there are to make, and their estimated size.
        console: where progress is shown.

    Returns:
        The report; ``None`` for a dry run.
    """
    return derive(path, _ClipFiles(out, settings), work or Work(), console or Console(), dry_run=dry_run)


@dataclass(frozen=True)
class _VideoMaker:
    """Make an mp4 file per clip; implements ``ClipMaker``."""

    store: Store
    options: ReencodeSettings

    @property
    def settings(self) -> Facts:
        return {"version": VERSION, **asdict(self.options)}

    def find(self, clips: Sequence[SourceClip]) -> list[Facts | None]:
        records = (self.store.find(each.clip.clip_id, each.key) for each in clips)
        return [record.facts if record else None for record in records]

    def open(self, clips: Sequence[Clip]) -> Reader:
        folder = clips[0].path.is_dir()
        if folder and clips[0].fps is None:
            raise ValueError("a frame folder without a rate; fill the column fps")
        whole = replace(clips[0], start=None, end=None, num_frames=None, size=None)
        return open_clip(whole, "frames" if folder else "pyav")

    def size(self, reader: Reader, num_clips: int) -> tuple[int, int] | None:
        return size_of(reader)

    def plan(self, reader: Reader, clip: SourceClip, size: tuple[int, int] | None) -> ClipPlan | Outcome:
        # raises ``InexactError`` for labels of frames that will not be in the result
        assert size is not None
        mapping = self.mapping(reader, clip, size)
        if isinstance(mapping, Outcome):
            return mapping
        try:
            mapping.places(clip.labelled)
        except InexactError as error:
            raise inexact(clip.clip, error) from None
        return ClipPlan(clip, mapping.sources, mapping)

    def mapping(self, reader: Reader, clip: SourceClip, size: tuple[int, int]) -> ClipMapping | Outcome:
        """Return the mapping of a clip, or the outcome that says why it cannot be made."""
        whole, source, options = reader.clip, clip.clip, self.options
        reader.clip = source  # the reader then gives this clip's window and checks its size
        try:
            fault = too_short(reader, source.num_frames, clip.labelled)
            if source.size not in (None, size):
                reader.read([0])
            if fault:
                return Outcome(source.clip_id, False, *fault)
            times, window = reader.timestamps, reader.window()
            rate = rate_of(times) if options.fps is None else Fraction(options.fps)
            new = even_size(size, options.short_side)
            if max(new) > MAX_SIDE:
                raise ValueError(f"{new[0]}×{new[1]} pixels; at most {MAX_SIDE} a side")
            frames = frames_at(times, window, source.end, rate)
            return ClipMapping(rate, new, size, window.start, len(window), frames)
        except (ClipError, ValueError) as error:
            return Outcome(source.clip_id, fault="unreadable", text=without_place(source.path, error))
        finally:
            reader.clip = whole

    def encode(self, image: Image, index: int) -> Image:
        return image

    def writing(self, plan: ClipPlan, reader: Reader) -> Writing:
        mapping = plan.mapping
        assert mapping is not None
        with on_disk(self.store.folder), self.store.unfinished() as file:
            with Mp4Writer(file, mapping.rate, size=mapping.size, x264=self.options.x264, faststart=True) as writer:
                for _ in plan.frames:
                    image = yield
                    if (image.shape[1], image.shape[0]) != mapping.source_size:
                        raise ClipError("its frames differ in size")
                    writer.write(image)
            self.store.keep(plan.of.clip.clip_id, plan.of.key, file, mapping.facts())


class _ClipFiles(DerivedForm):
    """The folder of re-encoded clips."""

    name, report = "reencode", "reencode.json"
    maker: _VideoMaker

    def __init__(self, out: Path, settings: ReencodeSettings) -> None:
        super().__init__(out, _VideoMaker(Store(out.resolve() / CLIPS, ".mp4"), settings))
        self._sums, self._bytes = list[str](), 0

    def check(self) -> None:
        options = self.maker.options
        check_range("--short-side", options.short_side, 2, MAX_SIDE)
        check_range("--gop", options.gop, 1, 1000)
        check_range("--crf", options.crf, 0, 51)
        if options.short_side % 2:
            raise UserError(f"--short-side must be even, got {options.short_side}")
        if options.fps is not None and not 0 < Fraction(options.fps) <= MAX_RATE:
            raise UserError(f"--fps must be above 0 and at most {MAX_RATE}, got {options.fps}")

    def batches(self, manifest: Manifest) -> Iterator[range]:
        return (range(start, min(start + BATCH, len(manifest))) for start in range(0, len(manifest), BATCH))

    def derived(self, kept: Manifest, batch: range) -> list[DerivedClip]:
        found, store = [], self.maker.store
        for clip_id in kept.clip_ids:
            record, path = store.load(clip_id), store.path(clip_id).relative_to(store.folder.parent).as_posix()
            mapping = ClipMapping.of(record.facts)
            found.append(DerivedClip(mapping, path, float(mapping.rate)))
            self._sums.append(f"{record.sha256}  {path}\n")
            self._bytes += record.size
        return found

    def sidecars(self) -> dict[str, str]:
        return {CHECKSUMS: "".join(self._sums)}

    def contents(self) -> dict[str, Any]:
        return {"bytes": self._bytes}

    def lines(self, contents: Mapping[str, Any]) -> Iterator[str]:
        if contents["bytes"]:
            yield f"{contents['bytes'] / 2**20:.1f} MiB"

    def estimate(self, sources: Sequence[Source], clips: int, timeout: float) -> str:
        work = partial(bytes_of, maker=self.maker)
        survey = run_killable(work, sample_of(sources, SAMPLE), workers=1, timeout=timeout)
        sizes = [size / len(source.clips) for source, size in survey if isinstance(size, int)]
        return f", about {statistics.mean(sizes) * clips / 2**20:.0f} MiB" if sizes else ", of unknown size"


def bytes_of(source: Source, *, maker: _VideoMaker) -> int | None:
    """Estimate the total bytes of the clips of a source; ``None`` if it cannot be read."""
    options = maker.options
    bits = BITS * 2 ** ((21 - options.crf) / 8) * (1 if options.gop == 1 else LONG_GOP)
    try:
        with maker.open([each.clip for each in source.clips]) as reader:
            size = size_of(reader)
            found = [maker.mapping(reader, each, size) for each in source.clips]
    except (UserError, ValueError, OSError):
        return None
    made = (each for each in found if isinstance(each, ClipMapping))
    return int(sum(each.num_frames * each.size[0] * each.size[1] for each in made) * bits / 8)


def size_of(reader: Reader) -> tuple[int, int]:
    """Return width and height of the first frame."""
    height, width = reader.read([0]).shape[1:3]
    return width, height


def even_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """Return an even size (width, height) scaled down to a short side, never larger than the source.

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
