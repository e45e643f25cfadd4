"""Constant frame rates: that of a file, and which of its frames a clip of it shows at one.

Frame number n of the result belongs to the time n / rate after the clip's first frame. It shows the frame of the source
that is nearest to that time and at most half a frame away, and where there is none what the frame before it shows. So a
source at the rate keeps all its frames, a slower one has frames repeated, and of a faster one some are left out.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]

MAX_FRAMES = 2_000_000  # of a clip: times that are wrong by years must not fill a disk
MAX_RATE = 1000
ANY_RATE = Fraction(30)  # for a file of one frame


def rate_of(seconds: npt.NDArray[np.float64]) -> Fraction:
    """Return the constant rate that is nearest to the times of a file's frames.

    Args:
        seconds: float64 ``[F]``, ascending.

    Returns:
        A usual rate (24, 25, 30000/1001 …) if every frame is within half a frame of its place at it; else the mean
        rate if that holds; for a truly variable one the rate of the median distance.
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
    """Return which frames of a file are shown by a clip of it at a constant rate.

    Args:
        seconds: float64 ``[F]``, when each frame is shown.
        window: frames of the clip.
        end: when the clip ends; by default its last frame is held as long as the next one is away.
        rate: frames a second.

    Returns:
        Ascending numbers of frames, int64 ``[K]``, or ``None`` if those are the window itself.

    Raises:
        ValueError: they would be too many.
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
        raise ValueError(f"{total} frames at {float(rate):g} a second; at most {MAX_FRAMES}; trim it, or give --fps")
    nearest_first = np.lexsort((np.abs(times * float(rate) - slots), slots))
    taken, first = np.unique(slots[nearest_first], return_index=True)
    shown = nearest_first[first]
    return window.start + shown[np.searchsorted(taken, np.arange(total), side="right") - 1]


def _slots(seconds: npt.NDArray[np.float64], rate: Fraction) -> Indices:
    """Return the nearest place at a rate, int64; halves go up."""
    return np.floor(seconds * float(rate) + 0.5).astype(np.int64)
