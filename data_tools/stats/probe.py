"""What the headers of the videos say: size of the picture, frames a second, length, codec. No video is decoded.

Frames in a folder or shard have no header in common: the first one is looked at, which tells neither rate nor length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path

import av
from rich.console import Console

from data_tools.console import progress
from data_tools.jobs.killable import WorkerFailure, run_killable
from data_tools.sources import IMAGE_SUFFIXES
from data_tools.stats.numbers import spread
from hoi_train.core.records import Clip
from hoi_train.data.manifest import Manifest
from hoi_train.data.readers import open_clip, source_of
from hoi_train.data.readers.pyav_reader import CONTAINERS

IMAGES = ("image2", "png_pipe", "jpeg_pipe")  # as FFmpeg calls them
TIMEOUT = 30.0  # seconds for one header: a dead network disk, or a file that confuses its demuxer


@dataclass(frozen=True)
class Header:
    """What one file says of itself; ``fps`` and ``seconds`` are nan where it does not say."""

    width: int
    height: int
    fps: float
    seconds: float
    codec: str


@dataclass(frozen=True)
class ProbeFacts:
    """The headers of all files.

    Args:
        files: how many were read.
        unreadable: why, by path relative to the root, for those whose header is not.
        sizes: files by ``width×height``, the most frequent first.
        fps: files by frames a second.
        codecs: files by codec.
        short_side, seconds: spreads; ``None`` where no file tells.
    """

    files: int
    unreadable: dict[str, str]
    sizes: dict[str, int]
    fps: dict[str, int]
    codecs: dict[str, int]
    short_side: dict[str, float] | None
    seconds: dict[str, float] | None


def probe_files(manifest: Manifest, workers: int, console: Console) -> ProbeFacts:
    """Read the header of each different file of a manifest, in processes that can be killed."""
    paths = {str(manifest.root / path): path for path in manifest.table.column("path").to_pylist()}
    found: dict[str, Header] = {}
    unreadable: dict[str, str] = {}
    with progress(console) as bar:
        task = bar.add_task("headers", total=len(paths))
        for name, result in run_killable(read_header, paths, workers=min(workers, len(paths)), timeout=TIMEOUT):
            if isinstance(result, Header):
                found[name] = result
            else:
                unreadable[paths[name]] = result.text if isinstance(result, WorkerFailure) else result
            bar.advance(task)
    in_order = {name: found[name] for name in paths if name in found}
    return _summary(in_order, {path: unreadable[path] for path in paths.values() if path in unreadable})


def read_header(name: str) -> Header | str:
    """Return what a file, or the first frame of a folder or of a clip in a shard, says; or why it cannot be read."""
    path = Path(name)
    try:
        if source_of(path) != path:
            return _of_entry(path)
        if not path.exists():
            return "no such file"
        return _of_folder(path) if path.is_dir() else _of_file(path, CONTAINERS)
    except Exception as error:  # whatever a demuxer raises is said of its file
        return f"{type(error).__name__}: {error}"


def _of_file(path: Path, formats: Sequence[str]) -> Header | str:
    """Read one file, no other that it names: a playlist or a concat script is of none of the formats."""
    options = {"protocol_whitelist": "file", "format_whitelist": ",".join(formats)}
    with av.open(f"file:{path}", container_options=options) as container:
        if not container.streams.video:
            return "no video stream"
        stream = container.streams.video[0]
        codec = stream.codec_context
        fps = float(stream.average_rate) if stream.average_rate else nan
        length = stream.duration * stream.time_base if stream.duration and stream.time_base else None
        if length is None and container.duration:
            length = container.duration / av.time_base
        seconds = nan if length is None else float(length)
        return Header(codec.width, codec.height, fps, seconds, codec.codec.canonical_name)


def _of_folder(path: Path) -> Header | str:
    images = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        return "a folder without frame images"
    found = _of_file(images[0], IMAGES)
    return found if isinstance(found, str) else Header(found.width, found.height, nan, nan, f"{found.codec} frames")


def _of_entry(path: Path) -> Header:
    with open_clip(Clip(path.stem, path, "train", {})) as reader:
        height, width = reader.read([0]).shape[1:3]
    return Header(width, height, nan, nan, "jpeg frames in shards")


def _summary(found: Mapping[str, Header], unreadable: dict[str, str]) -> ProbeFacts:
    headers = list(found.values())
    return ProbeFacts(
        files=len(headers),
        unreadable=unreadable,
        sizes=_counted(f"{header.width}×{header.height}" for header in headers),
        fps=_counted(f"{header.fps:.4g}" for header in headers if header.fps == header.fps),
        codecs=_counted(header.codec for header in headers),
        short_side=spread([min(header.width, header.height) for header in headers]),
        seconds=spread([header.seconds for header in headers if header.seconds == header.seconds]),
    )


def _counted(texts: Iterable[str]) -> dict[str, int]:
    return dict(Counter(texts).most_common())
