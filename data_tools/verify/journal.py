"""What is known of a set's clips from earlier looks at it: a run that was killed goes on, a changed file is read anew.

``verify.journal.jsonl`` below ``--out`` has a row for each clip that was checked, with a key that stands for the clip's
times, picture size and pairs, the reader and the sizes and times of change of its files. What timed out or crashed is
not kept: it may have been the machine's fault, and is tried again.
"""

from __future__ import annotations

from pathlib import Path

from data_tools.jobs.local import key_of, state_of
from data_tools.verify.records import Checked
from hoi_train.core.records import Clip, UserError
from hoi_train.data.pair_places import NOWHERE, Places
from hoi_train.data.readers import source_of
from hoi_train.tracking.events import EventLog, read_events

JOURNAL = "verify.journal.jsonl"
CHECKS = 2  # changes when the checks do: then everything is checked anew


class Journal:
    """The known results of a set; new ones are noted as they come. A missing file counts as empty.

    Args:
        folder: where the journal is or will be.
        reader: the reader that clips are checked with.

    Raises:
        UserError: the journal was damaged.
    """

    def __init__(self, folder: Path, reader: str) -> None:
        self.path, self.reader = folder / JOURNAL, reader
        self._log: EventLog | None = None
        self._keys: dict[str, str] = {}  # from before a clip is read: it may change meanwhile
        try:
            rows = read_events(self.path) if self.path.exists() else []
            self._known = {row["clip"]: Checked.from_json(row["found"]) for row in rows}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{self.path}: not a journal of hoi-data verify ({error}); delete it") from None

    def find(self, clip: Clip, places: Places = NOWHERE) -> Checked | None:
        """Return what is known of a clip whose files and whose pairs' places have not changed since."""
        key = self._key(clip, places)
        if key is None or key in self._known:
            return self._known.get(key or "")
        self._keys[clip.clip_id] = key
        return None

    def note(self, clip: Clip, checked: Checked) -> None:
        """Keep what was found of a clip that ``find`` did not know."""
        key = self._keys.pop(clip.clip_id, None)
        if key is not None and checked.fault not in ("timeout", "crashed"):
            self._log = self._log or EventLog(self.path)
            self._log.write({"clip": key, "clip_id": clip.clip_id, "found": checked.to_json()})

    def close(self) -> None:
        """Close the file."""
        if self._log is not None:
            self._log.close()

    def _key(self, clip: Clip, places: Places) -> str | None:
        """Return what stands for all that a check depends on; ``None`` for what is not there."""
        try:
            state = state_of(source_of(clip.path))
        except (OSError, ValueError):
            return None
        fields = [str(clip.path), clip.start, clip.end, clip.num_frames, clip.fps, clip.size, places.digest()]
        return key_of(CHECKS, self.reader, *fields, state)
