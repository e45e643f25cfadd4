"""Estimate constant frame rates and resample clips to them.

Frame n of the result is at time n / rate after the clip's first frame. It shows the source frame nearest to that time
and at most half a frame away; if there is none, it repeats the previous frame. A source at the rate keeps all its
frames, a slower one has frames repeated, and a faster one has frames dropped.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

MAX_FRAMES = 2_000_000  # per clip: timestamps wrong by years must not fill the disk
MAX_RATE = 1000
ANY_RATE = Fraction(30)  # for a file with a single frame


def rate_of(seconds: npt.NDArray[np.float64]) -> Fraction:
    """Estimate the constant frame rate of a file from its timestamps.

    Args:
        seconds: timestamps float64 ``[F]``, ascending.

    Returns:
        A common rate (24, 25, 30000/1001 …) if every frame is within half a frame of its time at that rate; else the
        mean rate if this holds for it; else, for a variable rate, the inverse of the median frame interval.
    """
    if len(seconds) < 2:
        return ANY_RATE
    mean = float(np.clip((len(seconds) - 1) / (seconds[-1] - seconds[0]), 1 / MAX_RATE, MAX_RATE))
    usual = sorted((Fraction(round(mean)), Fraction(round(mean * 1.001) * 1000, 1001)), key=lambda r: abs(r - mean))
    close = [rate for rate in usual if rate and abs(rate / mean - 1) < 0.005]
    for rate in (*close, Fraction(mean).limit_denominator(1001)):
        if rate and np.array_equal(_slots(seconds, rate), np.arange(len(seconds))):
            return rate
    typical = float(np.clip(1 / np.median(np.diff(seconds)), 1 / MAX_RATE, MAX_RATE))
    return Fraction(typical).limit_denominator(1001)


def frames_at(seconds: npt.NDArray[np.float64], window: range, end: float | None, rate: Fraction) -> Indices | None:
    """Return the source frame for each frame of a clip resampled to a constant rate.

    Args:
        seconds: timestamps of the file's frames, float64 ``[F]``.
        window: frames of the clip.
        end: end of the clip in seconds; by default its last frame lasts until the next frame of the file.
        rate: frames per second.

    Returns:
        Ascending frame indices, int64 ``[K]``, or ``None`` if they equal the window.

    Raises:
        ValueError: there would be more than ``MAX_FRAMES``.
    """
    times = seconds[window.start : window.stop] - seconds[window.start]
    slots = _slots(times, rate)
    if np.array_equal(slots, np.arange(len(window))):
        return None
    typical = float(np.median(np.diff(seconds))) if len(seconds) > 1 else float(1 / rate)
    following = seconds[window.stop] if window.stop < len(seconds) else seconds[-1] + typical
    until = following if end is None else min(end, following)
    total = max(1, int(_slots(np.array([until - seconds[window.start]]), rate)[0]))
    if total > MAX_FRAMES:
        raise ValueError(f"{total} frames at {float(rate):g} per second; at most {MAX_FRAMES}; trim it, or give --fps")
    nearest_first = np.lexsort((np.abs(times * float(rate) - slots), slots))
    taken, first = np.unique(slots[nearest_first], return_index=True)
    shown = nearest_first[first]
    return window.start + shown[np.searchsorted(taken, np.arange(total), side="right") - 1]


def _slots(seconds: npt.NDArray[np.float64], rate: Fraction) -> Indices:
    """Return times rounded to frame indices at a rate, int64; halves are rounded up."""
    return np.floor(seconds * float(rate) + 0.5).astype(np.int64)
