"""The quarantine list: clips that a run leaves out because ``hoi-data verify`` could not read them.

The list is a JSON file:

    {"manifest": "data/manifest.parquet",
     "clips_digest": "5f3a…",
     "clips": {"P01-R01-Pizza-1-2": "unreadable: it ends before frame 31 of 60"}}

``clips_digest`` identifies the verified clips by ids, files and times, independent of order, labels and splits. Clips
are left out before classes are counted, so class counts and loss weights are those of the remaining clips.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hoi_train.core.records import SPLITS, Split
from hoi_train.core.strict_json import JSONError, read_json
from hoi_train.data.manifest import Manifest
from hoi_train.data.manifest.problems import LISTED, ManifestError, Problem, Problems

QUARANTINE = "quarantine.json"
_ANEW = "run hoi-data verify on that manifest (what it has checked is not decoded again)"


@dataclass(frozen=True)
class LeftOut:
    """The clips that were left out.

    Args:
        quarantine: path of the list.
        digest: sha256 of the clips' ids.
        clips: their number by split.
        classes: by task and class, for classes of the training split with fewer samples: samples left out and kept.
    """

    quarantine: str
    digest: str
    clips: Mapping[Split, int]
    classes: Mapping[str, Mapping[str, tuple[int, int]]]

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as read back from JSON."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    def __str__(self) -> str:
        by_split = ", ".join(f"{count} {split}" for split, count in self.clips.items())
        lines = [f"left out, listed in {self.quarantine}: {_clips(sum(self.clips.values()))} ({by_split or 'none'})"]
        for task, classes in self.classes.items():
            lost = (f"{name} {out} of {out + kept}" for name, (out, kept) in classes.items())
            lines.append(f"  {task}, of the training samples: {', '.join(lost)}")
            gone = [name for name, (_, kept) in classes.items() if not kept]
            if gone:
                lines.append(f"  {task}: NO TRAINING SAMPLE IS LEFT of {', '.join(gone)}")
        return "\n".join(lines)


def quarantine_json(manifest: Manifest, bad: Mapping[str, str]) -> str:
    """Return the text of a list from the fault of each bad clip, by clip id."""
    content = {"manifest": str(manifest.path), "clips_digest": clips_digest(manifest), "clips": dict(bad)}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def clips_digest(manifest: Manifest) -> str:
    """Return the sha256 of ids, files and times of all clips, independent of the order of the rows."""
    rows = manifest.table.select(["clip_id", "path", "start", "end"]).sort_by("clip_id")
    digest = hashlib.sha256()
    for batch in rows.to_batches(max_chunksize=10_000):
        digest.update("".join(f"{json.dumps(list(row.values()))}\n" for row in batch.to_pylist()).encode())
    return digest.hexdigest()


def read_quarantine(path: Path, manifest: Manifest) -> dict[str, str]:
    """Read a list and return the fault of each clip, by clip id.

    Raises:
        ManifestError: not a list, a list of another manifest, or with clips that the manifest does not have.
    """
    content = _content(path)
    problems = Problems()
    known = set(manifest.clip_ids)
    for clip_id in content["clips"]:
        if clip_id not in known:
            problems.add(path, None, f"clip {clip_id!r:.80} is not in {manifest.path}")
    if content["clips_digest"] != clips_digest(manifest):
        made = f"it was made for {content['manifest']}, whose clips are not those of {manifest.path}"
        problems.add(path, None, f"{made}; {_ANEW}")
    problems.raise_if_any()
    return dict(content["clips"])


def refusal(path: Path, bad: Mapping[str, str]) -> str:
    """Return the message of a run that stops because of the clips in a list."""
    lines = [f"clip {clip_id!r}: {text}" for clip_id, text in list(bad.items())[:LISTED]]
    if len(bad) > LISTED:
        lines.append(f"… and {len(bad) - LISTED} more")
    choice = "mend them and verify again, or leave them out with data.bad_clips: quarantine"
    return "\n".join([f"data.bad_clips: stop, and {path} lists {_clips(len(bad), 'bad ')}; {choice}", *lines])


def leave_out(manifest: Manifest, bad: Mapping[str, str], path: Path) -> tuple[Manifest, LeftOut]:
    """Split a manifest into the clips that are not in a list, and a summary of the others."""
    is_bad = np.array([clip_id in bad for clip_id in manifest.clip_ids], dtype=bool)
    kept, out = manifest.select(np.flatnonzero(~is_bad)), manifest.select(np.flatnonzero(is_bad))
    clips = {split: len(out.split(split)) for split in SPLITS}
    classes = {
        name: {
            name_of_class: (lost, left)
            for name_of_class, lost, left in zip(
                task.classes,
                out.split("train").counts(name).positives,
                kept.split("train").counts(name).positives,
                strict=True,
            )
            if lost
        }
        for name, task in manifest.tasks.items()
    }
    digest = hashlib.sha256(json.dumps(sorted(out.clip_ids)).encode()).hexdigest()
    return kept, LeftOut(str(path), digest, {split: count for split, count in clips.items() if count}, classes)


def _content(path: Path) -> dict[str, Any]:
    """Read a list and check its form."""

    def refuse(text: str) -> ManifestError:
        return ManifestError((Problem(path, None, f"{text}; write it with hoi-data verify"),), 1)

    try:
        content = read_json(path)
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror or error}") from None
    except JSONError as error:
        raise refuse(f"not a quarantine list in JSON: {error}") from None
    parts = content if isinstance(content, dict) else {}
    clips = parts.get("clips")
    if not (isinstance(clips, dict) and all(isinstance(text, str) for text in clips.values())):
        raise refuse('not a quarantine list: "clips" must name clips and what is wrong with each')
    for key in ("manifest", "clips_digest"):
        if not isinstance(parts.get(key), str):
            raise refuse(f"not a quarantine list: {key!r} must be text, got {parts.get(key)!r:.80}")
    return parts


def _clips(count: int, kind: str = "") -> str:
    return f"{count} {kind}clip{'' if count == 1 else 's'}"
