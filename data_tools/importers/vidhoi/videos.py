"""Which annotated videos are on disk, into which split each goes, and when their frames are shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from data_tools.importers.vidhoi.records import Video
from data_tools.importers.vidhoi.tracks import Named, Tracks
from data_tools.sources import VIDEO_SUFFIXES, ClipFolders
from hoi_train.core.randomness import seed_of
from hoi_train.core.records import Clip, ClipError, Split, UserError
from hoi_train.data.readers import open_clip

VAL_FRACTION = 0.1


@dataclass(frozen=True)
class Options:
    """What is to be made.

    Args:
        level: ``pair`` or ``clip``.
        segment: seconds of a row of level ``clip``.
        official_val: what the official validation part becomes.
        val_fraction: fraction of the training videos that become val; by default 0.1, and none if the official
            validation part is val.
        seed: of that draw.
        keep_missing: list videos that are not on disk, too.
    """

    level: Literal["pair", "clip"] = "pair"
    segment: float = 2.0
    official_val: Literal["test", "val"] = "test"
    val_fraction: float | None = None
    seed: int = 0
    keep_missing: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.segment < float("inf"):
            raise UserError(f"--segment must be seconds above 0, got {self.segment:g}")
        if self.val_fraction is not None and not 0 <= self.val_fraction < 1:
            raise UserError(f"--val-fraction must be at least 0 and below 1, got {self.val_fraction:g}")
        if self.val_fraction and self.official_val == "val":
            raise UserError("--val-fraction draws val from train, --official-val val takes the official part: give one")

    def splits(self, videos: tuple[Video, ...]) -> dict[str, Split]:
        """Return the split of every video; a video's place in the draw does not depend on the others."""
        default = VAL_FRACTION if self.official_val == "test" else 0.0
        fraction = default if self.val_fraction is None else self.val_fraction
        train = sorted((video.name for video in videos if video.part == "train"), key=self._draw)
        held_out = set(train[: round(fraction * len(train))])
        of_part: dict[str, Split] = {"train": "train", "val": self.official_val}
        return {video.name: "val" if video.name in held_out else of_part[video.part] for video in videos}

    def _draw(self, name: str) -> int:
        return seed_of(self.seed, "val", name)


class Videos:
    """Finds ``<folder>/<video>.mp4``, or a folder of frames of that name."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise UserError(f"--videos: {root} is not a folder")
        self.root = root
        self._folders = ClipFolders(root)

    def place(self, video: Video) -> dict[str, Any] | None:
        """Return the columns of a manifest that say where a video is, or ``None`` if it is not on disk."""
        folder, name = video.name.split("/")
        return self._folders.place(folder, name, float(video.rate))

    def expected(self, video: Video) -> dict[str, Any]:
        """Return the columns of a video that is not on disk: where it would be looked for."""
        return {"path": f"{video.name}{VIDEO_SUFFIXES[0]}"}

    def times(self, video: Video, place: dict[str, Any]) -> NDArray[np.float64] | ClipError:
        """Return when each frame of a file is shown, float64 ``[F]`` in seconds, or why it cannot be read."""
        clip = Clip(video.name, self.root / place["path"], "train", {}, fps=place.get("fps"))
        try:
            with open_clip(clip) as reader:
                return reader.timestamps
        except ClipError as error:
            return error


class Found:
    """The videos that are on disk, or are listed all the same."""

    def __init__(self, annotated: tuple[Video, ...], videos: Videos, options: Options) -> None:
        self.videos = videos
        self.splits = options.splits(annotated)
        self.annotated = {video.name: video for video in annotated}
        self.missing: dict[str, str] = {}
        self.places: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []
        for video in annotated:
            place = videos.place(video)
            if place is None:
                self.missing[video.name] = self.splits[video.name]
            if place is not None or options.keep_missing:
                self.places[video.name] = place or videos.expected(video)
        if not self.places:
            example = videos.root / videos.expected(annotated[0])["path"]
            raise UserError(
                f"none of the {len(annotated)} annotated videos is below {videos.root}; looked for files such as "
                f"{example}; --keep-missing lists them all the same"
            )
        if self.missing and options.keep_missing:
            self.notes.append("videos that are not on disk are in the manifest all the same (--keep-missing)")

    def check_folders(self, tracks: Mapping[str, Tracks], boxes: Named) -> None:
        """Leave out frame folders that do not hold every frame of the video: their numbers mean other frames."""
        wrong: dict[str, tuple[int, int]] = {}
        for name, images in (
            (name, place["num_frames"]) for name, place in self.places.items() if "num_frames" in place
        ):
            least = int(boxes[name].frame.max()) + 1 if name in boxes else 0
            frames = tracks[name].num_frames if name in tracks else None
            if images < least or (frames is not None and abs(images - frames) > 1):
                wrong[name] = (images, frames or least)
        for name in wrong:
            del self.places[name]
            self.missing[name] = self.splits[name]
        for name, (images, least) in list(wrong.items())[:1]:
            self.notes.append(
                f"frame folders left out that do not hold every frame of the video: {len(wrong)}, such as {name} with "
                f"{images} images for {least} frames; extract the frames as they are, without a rate (-r)"
            )

    def times(self, name: str) -> Any:
        """Return when the frames of a video are shown, or ``None`` if that is not known."""
        if name in self.missing:
            return None
        return self.videos.times(self.annotated[name], self.places[name])

    def table(self, names: list[str], columns: Mapping[str, Any]) -> Any:
        """Return an Arrow table with a row a video."""
        places = [self.places[name] for name in names]
        sizes = [self.annotated[name].size for name in names]
        return pa.table(
            {
                "clip_id": pa.array(names, pa.string()),
                "path": pa.array([place["path"] for place in places], pa.string()),
                "split": pa.array([self.splits[name] for name in names], pa.string()),
                "group": pa.array(names, pa.string()),
                "num_frames": pa.array([place.get("num_frames") for place in places], pa.int64()),
                "fps": pa.array([place.get("fps") for place in places], pa.float64()),
                "width": pa.array([size and size[0] for size in sizes], pa.int64()),
                "height": pa.array([size and size[1] for size in sizes], pa.int64()),
                **columns,
            }
        )
