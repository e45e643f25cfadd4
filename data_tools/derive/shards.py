"""Pack clips into the shards of the frame cache.

Shard k holds the readable clips of the manifest's rows ``k n`` to ``(k + 1) n - 1``. Each clip's zip is written
separately to ``unpacked`` until its shard is written; a shard whose clips changed is rewritten from the clips that it
already has and the new ones.
"""

from __future__ import annotations

import fcntl
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_tools.jobs.local import Store, safe_stem
from hoi_train.core.records import UserError

SHARDS, UNPACKED = "shards", "unpacked"


class _Shards(Store):
    """The store of shards and their records, ``00012.zip`` and ``00012.json``."""

    def path(self, clip_id: str) -> Path:
        return self.folder / f"{clip_id}{self.suffix}"


class Cache:
    """The files of a frame cache.

    Args:
        out: its folder, absolute.
        key: digest of its settings.
    """

    def __init__(self, out: Path, key: str) -> None:
        self.out, self.key = out, key
        self.clips, self.shards = Store(out / UNPACKED, ".zip"), _Shards(out / SHARDS, ".zip")

    def path(self, shard: str, clip_id: str) -> str:
        """Return the path of a clip for the manifest."""
        return f"{SHARDS}/{shard}.zip/{entry_name(clip_id)}"

    def packed(self, shard: str) -> dict[str, dict[str, Any]]:
        """Return the facts of the clips in a shard by clip id; empty if it does not exist."""
        record = self.shards.find(shard, self.key)
        return record.facts["clips"] if record else {}

    def find(self, packed: Mapping[str, dict[str, Any]], clip_id: str, key: str) -> dict[str, Any] | None:
        """Return the facts of a finished clip, packed in its shard or not yet, else ``None``."""
        if (found := packed.get(clip_id)) and found["key"] == key:
            return found
        record = self.clips.find(clip_id, key)
        return {**record.facts, "key": key, "bytes": record.size} if record else None

    def pack(self, shard: str, clips: Mapping[str, Mapping[str, Any]]) -> None:
        """Write a shard from finished clips, those that it already has and new ones.

        Args:
            shard: name of the shard.
            clips: facts of its clips by id.

        Raises:
            UserError: the existing shard is damaged, or the disk is full.
        """
        path, before = self.shards.path(shard), self.packed(shard)
        try:
            with self.shards.unfinished() as unfinished:
                with zipfile.ZipFile(unfinished, "w") as target:
                    for clip_id, facts in clips.items():
                        there = before.get(clip_id, {}).get("key") == facts["key"]
                        source = path if there else self.clips.path(clip_id)
                        _copy(source, clip_id, facts["bytes"], target, packed=there)
                self.shards.keep(shard, self.key, unfinished, {"clips": dict(clips)})
        except zipfile.BadZipFile as error:
            raise UserError(f"{path}: damaged ({error}); delete it, and give the same command again") from None
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}; nothing that is finished is lost") from None
        for clip_id in clips:
            self.forget(clip_id)

    def forget(self, clip_id: str) -> None:
        """Remove the unpacked file and record of a clip."""
        path = self.clips.path(clip_id)
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove partial files of killed runs."""
        for store in (self.clips, self.shards):
            store.sweep()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold the lock of the folder: one run packs at a time."""
        with (self.out / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def entry_name(clip_id: str) -> str:
    """Return the name of a clip's zip in its shard."""
    return f"{Path(safe_stem(clip_id)).name}.zip"


def _copy(source: Path, clip_id: str, size: int, shard: zipfile.ZipFile, *, packed: bool) -> None:
    entry = zipfile.ZipInfo(entry_name(clip_id))
    entry.file_size = size
    with shard.open(entry, "w") as target:
        if not packed:
            with source.open("rb") as file:
                shutil.copyfileobj(file, target)
            return
        with zipfile.ZipFile(source) as old, old.open(entry.filename) as file:
            shutil.copyfileobj(file, target)
