"""Choose the frames of a clip that the network sees.

A plan of ``PLANS`` gives the indices of T frames of a clip, or of T frames about one of its frames, the key frame,
whose human-object pairs are labelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge

from hoi_train.data.views import View

Indices = npt.NDArray[np.int64]
MIDDLE = View()


def segment_frames(
    available: int, num_frames: int, generator: torch.Generator | None = None, view: View = MIDDLE
) -> Indices:
    r"""Return one frame of each of T equal segments of a clip.

    The clip is cut into T = ``num_frames`` segments of n / T frames, n = ``available``; the frame shown at the moment
    ``(k + u_k) n / T`` is taken from segment k = 0 … T-1:

    .. math:: i_k = \lfloor (k + u_k) \, n / T \rfloor

    Training draws every ``u_k`` uniformly from [0, 1). Evaluation has equal intervals: ``u_k = (v + 1/2) / V`` in
    temporal view v of V; the centres, ``u_k = 1/2``, if there is one.

    The indices ascend, repeats allowed: a clip with fewer than T frames shows some of its frames several times, a clip
    of one frame shows it T times. In training a frame that lies on the border of two segments can come from both.

    Args:
        available: frames in the clip, n >= 1.
        num_frames: frames to take, T >= 1.
        generator: draws the moments; ``None`` takes those of the view.
        view: of evaluation.

    Returns:
        int64 ``[T]`` in ``0..n-1``.

    Raises:
        ValueError: n or T is not positive.

    >>> segment_frames(100, 5).tolist(), segment_frames(3, 5).tolist(), segment_frames(1, 5).tolist()
    ([10, 30, 50, 70, 90], [0, 0, 1, 2, 2], [0, 0, 0, 0, 0])
    """
    if available < 1 or num_frames < 1:
        raise ValueError(f"{available} frames in the clip and {num_frames} to take; both must be at least 1")
    segments = np.arange(num_frames, dtype=np.int64)
    if generator is None:
        halves = 2 * (view.of * segments + view.offset) + 1
        return np.asarray(halves * available // (2 * view.of * num_frames))
    moments = segments + torch.rand(num_frames, generator=generator, dtype=torch.float64).numpy()
    # The product can be rounded up to n itself.
    return np.minimum(np.asarray(moments * available / num_frames, dtype=np.int64), available - 1)


class Segments:
    """Take one frame of each of T equal segments: random ones in training, those of a view in evaluation.

    A key frame takes the place of the frame nearest to it.
    """

    def __call__(
        self,
        available: int,
        num_frames: int,
        key: int | None = None,
        generator: torch.Generator | None = None,
        view: View = MIDDLE,
    ) -> Indices:
        """Return int64 ``[T]`` in ``0..available-1``, ascending; see ``segment_frames``."""
        indices = segment_frames(available, num_frames, generator, view)
        if key is not None:
            indices[np.abs(indices - key).argmin()] = key
        return indices


class AroundKey:
    """Take T frames at equal distances around the key frame: ``i_k = key + (k - floor(T / 2)) stride``.

    Beyond the ends of the clip its first or last frame is repeated. Without a key frame, temporal view v of V is
    around frame ``floor((v + 1/2) n / V)`` of n; with one, all views are the same.

    Args:
        stride: distance between neighbours, in frames.
    """

    def __init__(self, *, stride: Annotated[int, Ge(1)] = 1) -> None:
        self.stride = stride

    def __call__(
        self,
        available: int,
        num_frames: int,
        key: int | None = None,
        generator: torch.Generator | None = None,
        view: View = MIDDLE,
    ) -> Indices:
        """Return int64 ``[T]`` in ``0..available-1``, ascending; nothing is drawn.

        >>> AroundKey(stride=4)(100, 5, 10).tolist(), AroundKey(stride=4)(100, 5, 99).tolist()
        ([2, 6, 10, 14, 18], [91, 95, 99, 99, 99])
        """
        middle = (2 * view.offset + 1) * available // (2 * view.of) if key is None else key
        offsets = np.arange(num_frames, dtype=np.int64) - num_frames // 2
        return np.clip(middle + self.stride * offsets, 0, available - 1)


Plan = Segments | AroundKey
PLANS: Mapping[str, type[Plan]] = {"segments": Segments, "around_key": AroundKey}
