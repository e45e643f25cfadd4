"""What ``hoi-data verify`` finds of a clip: its faults, what looks wrong with it, and its measures.

A fault is a clip that cannot be trained on:

=========== ==========================================================================================
missing     no such file
unreadable  not a video, damaged, or of a kind that is not read
shorter     cut off, fewer frames than ``num_frames``, or ending before the clip's ``end`` or a frame of its pairs
empty       no frame between the clip's ``start`` and ``end``
boxes       a pair's box lies outside the picture: it is of another file, or of another scale
timeout     not decoded in the time allowed; the process was killed
crashed     the decoder took its process down
=========== ==========================================================================================

A warning is a clip that can, and that somebody should look at:

=========== ==========================================================================================
leak        the same video as a clip of another split
duplicate   the same video as another clip of its split
frames      more frames than the manifest says, or another number than the container says
times       frames without a time, with that of another, going backwards, or a hole between them
range       the colours do not look like the range (limited or full) that the file says they have
black       nearly all frames are black
blank       nearly all frames are of one colour
frozen      nearly all frames are the same picture
repeated    many frames are the picture before once more
length      far longer or shorter than its class, or than the set
=========== ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from data_tools.faults import Fault
from hoi_train.core.records import Split

Warn = Literal["leak", "duplicate", "frames", "times", "range", "black", "blank", "frozen", "repeated", "length"]
ColourRange = Literal["limited", "full", "unspecified"]


@dataclass(frozen=True)
class Measures:
    """What was measured of a clip that decodes.

    Args:
        frames: of the whole file.
        fps: frames a second of the whole file; ``None`` if its frames have no times.
        window: frames of the clip.
        seconds: from the clip's first frame to the end of its last; ``None`` as for ``fps``.
        colour_range: what the file says of itself; ``None`` for images.
        seekable: every reader that seeks and is installed gives the frames of a sequential decode.
        file_digest: sha256 of the file's bytes, or of those of a folder's files; ``None`` for an entry of a shard.
        picture_digest: of some of the clip's decoded frames and their number.
    """

    frames: int
    fps: float | None
    window: int
    seconds: float | None
    colour_range: ColourRange | None
    seekable: bool
    file_digest: str | None
    picture_digest: str


@dataclass(frozen=True)
class Checked:
    """What was found of one clip: a fault, or its measures and what looks wrong, a sentence each."""

    fault: Fault | None = None
    text: str = ""
    measures: Measures | None = None
    warnings: tuple[tuple[Warn, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Checked:
        """Make it of plain values; raises ``TypeError`` or ``ValueError`` if they are not those of ``to_json``."""
        measures = plain["measures"] and Measures(**plain["measures"])
        warnings = tuple((kind, text) for kind, text in plain["warnings"])
        return cls(plain["fault"], plain["text"], measures, warnings)


@dataclass(frozen=True)
class BadClip:
    """A clip that cannot be trained on, and why."""

    clip_id: str
    path: str
    split: Split
    fault: Fault
    text: str


@dataclass(frozen=True)
class Suspect:
    """A clip that can be trained on and looks wrong."""

    clip_id: str
    path: str
    split: Split
    warning: Warn
    text: str
