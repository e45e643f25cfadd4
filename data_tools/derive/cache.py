"""Make the frame cache of a manifest: all frames of its clips as JPEG at training size, in zip shards, and a manifest.

=================== =======================================================================================
manifest.parquet    the clips that were made, with labels, groups, splits, pairs and tracks; and dataset.json
shards/             00000.zip, 00001.zip …: stored zips, in each one stored zip per clip, in that a JPEG per frame
cache.json          size, quality and checksums, and what became of every clip that is not in the manifest
settings.json       what the folder was made with; other settings are refused
unpacked/           clips whose shard is not written yet
=================== =======================================================================================

Frame i of a cached clip is frame i of the clip. A clip that is made already is not made again unless its source, its
times or its place in the manifest changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from rich.console import Console

from data_tools.console import progress
from data_tools.derive.frames import FrameSettings, JpegMaker
from data_tools.derive.mapping import ClipMapping
from data_tools.derive.pipeline import DerivedClip, DerivedForm, DeriveReport, Work, derive, plan, source_at
from data_tools.derive.shards import Cache
from data_tools.derive.source import Facts, with_keys
from data_tools.faults import Outcome, beyond_end
from data_tools.jobs.local import key_of
from data_tools.options import check_range
from hoi_train.data.manifest import Manifest

LEAST_MSE = 1e-6  # equal pictures are said to have 108 dB


def make_cache(
    path: Path, out: Path, settings: FrameSettings, work: Work | None = None, *, console: Console | None = None
) -> DeriveReport:
    """Make the frame cache of a manifest in ``out``; see ``derive``."""
    return derive(path, _FrameCache(path, out, settings), work or Work(), console or Console())


def plan_cache(path: Path, out: Path, settings: FrameSettings, work: Work | None = None) -> str:
    """Return what ``make_cache`` would do, without doing it."""
    return plan(path, _FrameCache(path, out, settings), work or Work())


class _FrameCache(DerivedForm):
    """The folder of a frame cache."""

    name, report = "cache", "cache.json"
    maker: JpegMaker

    def __init__(self, path: Path, out: Path, settings: FrameSettings) -> None:
        noted = {**settings.to_json(), "manifest": str(path.resolve())}
        super().__init__(out, JpegMaker(Cache(out.resolve(), key_of(noted)), settings))
        self.cache, self.options = self.maker.cache, settings
        self._shards, self._frames, self._source_bytes, self._errors = list[Facts](), 0, 0.0, list[float]()

    def check(self) -> None:
        check_range("--short-side", self.options.short_side, 16, 8192)
        check_range("--quality", self.options.quality, 1, 100)
        check_range("--shard-clips", self.options.shard_clips, 1, 10_000)

    def sweep(self) -> None:
        self.cache.sweep()

    def alone(self) -> AbstractContextManager[None]:
        return self.cache.alone()

    def finish(self, manifest: Manifest, bad: dict[str, Outcome], console: Console) -> dict[str, Outcome]:
        """Write the shards whose clips changed, and remove what is packed from what is not."""
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
            "source_bytes": round(self._source_bytes),  # of the video that the frames are of
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
        """Return the facts of a shard's clips that are made, by id; note the others as bad."""
        found = dict[str, Facts]()
        clips = [with_keys(source_at(manifest, [row]), self.maker.settings).clips[0] for row in batch]
        for each, facts in zip(clips, self.maker.find(clips), strict=True):
            clip_id = each.clip.clip_id
            if facts and (fault := beyond_end(each.clip, each.labelled, facts["count"])):
                bad[clip_id] = Outcome(clip_id, False, *fault)  # its pairs changed since it was made
            elif facts:
                found[clip_id] = facts
                bad.pop(clip_id, None)  # another run could read it
            else:
                text = "its source changed while the cache was made; give the same command again"
                bad.setdefault(clip_id, Outcome(clip_id, fault="unreadable", text=text))
        return found
