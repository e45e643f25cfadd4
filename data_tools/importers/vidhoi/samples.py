"""From records and tracks to samples, the same way for the files of VidHOI and of VidOR.

Level ``pair``: a sample is a video with the pairs of all its key frames and their tracks, task ``predicate`` of pairs.
Level ``clip``: a sample is a stretch of a video with the predicates of its key frames, task ``predicate`` of clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from data_tools.importers.finding import VideoFinder
from data_tools.importers.samples import Detected, Options, Reading, Sample
from data_tools.importers.vidhoi.classes import Classes
from data_tools.importers.vidhoi.pairs import segments
from data_tools.importers.vidhoi.records import Records, Video
from data_tools.importers.vidhoi.tracks import Boxes, VideoTracks
from hoi_train.core.records import Clip, ClipError, Split, UserError
from hoi_train.data.manifest.problems import Problems
from hoi_train.data.readers import open_clip

Level = Literal["pair", "clip"]
OfficialVal = Literal["test", "val"]
VAL_FRACTION = 0.1


class SampleMaker:
    """Make samples of a level, and gather what the user should know.

    Args:
        options: what every importer is told.
        annotations: where the records come from.
        level: what a sample is.
        segment: seconds of a stretch.
        official_val: what the official validation part becomes.
    """

    def __init__(
        self, options: Options, annotations: Path, level: Level, segment: float, official_val: OfficialVal
    ) -> None:
        if not annotations.is_dir():
            raise UserError(f"--annotations: {annotations} is not a folder")
        if not 0 < segment < float("inf"):
            raise UserError(f"--segment must be seconds above 0, got {segment:g}")
        if options.val_fraction and official_val == "val":
            raise UserError("--val-fraction draws val from train, --official-val val takes the official part: give one")
        self.annotations, self.level, self.segment = annotations, level, segment
        self.splits: dict[str, Split] = {"train": "train", "val": official_val}
        self.val_fraction = VAL_FRACTION if official_val == "test" else 0.0
        self.finder = VideoFinder(options.videos.resolve(), options.fps)
        self.problems, self.remarks, self.notes = Problems(), Counter[str](), list[str]()

    def reading(self, samples: Iterator[Sample], classes: Classes) -> Reading:
        """Return what samples of this level mean."""
        return Reading(
            samples,
            {"predicate": (classes.predicates.names, "multi")},
            self.problems,
            self.remarks,
            self.notes,
            self.val_fraction,
            object_classes=classes.objects if self.level == "pair" else None,
        )

    def videos(
        self, videos: Sequence[Video], pairs: Any, tracks: dict[str, VideoTracks], detected: dict[str, Detected]
    ) -> Iterator[Sample]:
        """Yield a sample per video, which takes its tracks and detections out of the dicts.

        Args:
            videos: those with pairs.
            pairs: Arrow array with a list of pairs for each.
            tracks: by name of the video.
            detected: likewise.
        """
        for k, video in enumerate(videos):
            known = tracks.pop(video.name, None)
            yield self._sample(
                video,
                video.name,
                num_frames=known.num_frames if known else None,
                size=video.size,
                pairs=pairs.slice(k, 1),
                tracks=known.row if known else None,
                detected=detected.pop(video.name, None),
            )

    def stretches(self, records: Records, classes: Classes) -> Iterator[Sample]:
        """Yield a sample per stretch with a key frame; a last one that the file does not fill ends with the file."""
        for video, frames, predicates in by_video(records, records.frame, records.predicate):
            read = self._times(video)
            if isinstance(read, ClipError):
                if not self.remarks["videos left out that cannot be read"]:
                    self.notes.append(f"the first video that cannot be read: {read}")
                self.remarks["videos left out that cannot be read"] += 1
                continue
            times = np.arange(frames.max() + 1) / video.rate if read is None else read
            inside = frames < len(times)
            self.remarks["records left out, of frames after the end of the file"] += int((~inside).sum())
            for k, ids in segments(frames[inside], predicates[inside], times, self.segment).items():
                end = (k + 1) * self.segment
                yield self._sample(
                    video,
                    f"{video.name}_{k:05}",
                    labels={"predicate": [classes.predicates.names[id_] for id_ in ids]},
                    start=k * self.segment,
                    end=end if read is None or end <= times[-1] else None,
                )

    def _sample(self, video: Video, clip_id: str, *, labels: Mapping[str, Any] | None = None, **more: Any) -> Sample:
        more |= {"lookup": "stem", "group": video.name, "fps": float(video.rate)}
        return Sample(clip_id, video.name, self.splits[video.part], labels or {}, self.annotations, **more)

    def _times(self, video: Video) -> NDArray[np.float64] | ClipError | None:
        """Return when each frame of a file is shown, float64 ``[F]`` in seconds, why it is not read, or ``None``."""
        sample = self._sample(video, video.name)
        path = self.finder.find(sample)
        if path is None:
            return None
        clip = Clip(video.name, self.finder.root / path, "train", {}, fps=self.finder.fps(sample, path))
        try:
            with open_clip(clip) as reader:
                return reader.timestamps
        except ClipError as error:
            return error


def by_video(records: Records, *columns: Any) -> Iterator[tuple[Any, ...]]:
    """Yield each video that has records, with its part of the columns."""
    order = np.argsort(records.video, kind="stable")
    places, first = np.unique(records.video[order], return_index=True)
    split = [np.split(column[order], first[1:]) for column in columns]
    for number, place in enumerate(places):
        yield (records.videos[place], *(parts[number] for parts in split))


def boxes_by_video(records: Records) -> dict[str, Boxes]:
    """Return the boxes of every video's records, those of the persons and those of the objects."""
    columns = (records.frame, records.person_id, records.object_id, records.boxes)
    return {
        video.name: Boxes(
            np.concatenate([frame, frame]),
            np.concatenate([person, other]),
            np.concatenate([boxes[:, :4], boxes[:, 4:]]),
        )
        for video, frame, person, other, boxes in by_video(records, *columns)
    }
