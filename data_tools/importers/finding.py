"""Search for the videos of samples on disk."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path, PurePosixPath

from data_tools.importers.samples import Sample
from data_tools.sources import VIDEO_SUFFIXES, count_images, find_clips, is_clip, is_video
from hoi_train.core.paths import inside
from hoi_train.core.records import UserError


class VideoFinder:
    """Find the videos of samples below a data root; every folder is listed at most once.

    Args:
        root: the data root, absolute.
        fps: frames per second of all frame folders; ``None`` for what the samples say.
    """

    def __init__(self, root: Path, fps: float | None = None) -> None:
        self.root = root
        self._fps = fps
        self._by_stem: dict[str, dict[str, str]] = {}
        self._by_name: dict[str, list[str]] | None = None
        self._images: dict[str, int | None] = {}

    def find(self, sample: Sample) -> str | None:
        """Return the path of a sample's video or frame folder below the root, or ``None`` if it is not on disk."""
        if sample.lookup == "name":
            return self._named(sample.video)
        path = inside(self.root, sample.video)
        if path is None:
            return None
        if sample.lookup == "path":
            return path if is_clip(self.root / path) else None
        folder, _, name = path.rpartition("/")
        if folder not in self._by_stem:
            self._by_stem[folder] = _stems(self.root / folder)
        found = self._by_stem[folder].get(name)
        found = found if found is None or not folder else f"{folder}/{found}"
        return found if found and self.num_images(found) != 0 else None

    def num_images(self, path: str) -> int | None:
        """Count the images of a frame folder; ``None`` for a video file."""
        if path not in self._images:
            folder = self.root / path
            self._images[path] = count_images(folder) if folder.is_dir() else None
        return self._images[path]

    def fps(self, sample: Sample, path: str) -> float | None:
        """Return the frames per second of a sample's frame folder; ``None`` for a video file.

        Raises:
            UserError: the sample has times, and nothing says the rate.
        """
        if self.num_images(path) is None:
            return None
        fps = self._fps or sample.fps
        if sample.start is not None and fps is None:
            raise UserError(f"{self.root / path} is a folder of frames: say with --fps how many are a second")
        return fps

    def expected(self, sample: Sample) -> str:
        """Return the path below the root where a sample's video would be looked for."""
        if sample.lookup == "path":
            return inside(self.root, sample.video) or ""
        return f"{sample.video}{VIDEO_SUFFIXES[0]}"

    def _named(self, name: str) -> str | None:
        if self._by_name is None:
            self._by_name = defaultdict(list)
            for path in find_clips(self.root, self.root, Counter()):
                file = PurePosixPath(path)
                self._by_name[file.stem if is_video(file) else file.name].append(path)
        found = self._by_name.get(name, [])
        videos = [path for path in found if self.num_images(path) is None] if len(found) > 1 else found
        if len(videos) > 1 or (found and not videos):
            two = " and ".join((videos or found)[:2])
            raise UserError(f"two videos below {self.root} are called {name!r}: {two}; keep one of them there")
        return videos[0] if videos else None


def _stems(folder: Path) -> dict[str, str]:
    """Return the names of the videos and folders in a folder by name without suffix, a video before its frames."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    found = {entry.name: entry.name for entry in entries if entry.is_dir()}
    found.update({entry.stem: entry.name for entry in entries if is_video(entry) and not entry.is_dir()})
    return found
