"""Which frames of a clip the network sees: segment sampling, as pure functions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch


def segment_frames(available: int, num_frames: int, generator: torch.Generator | None = None) -> npt.NDArray[np.int64]:
    r"""Return one frame of each of T equal segments of a clip.

    The clip is cut into T = ``num_frames`` segments of n / T frames, n = ``available``; the frame shown at the moment
    ``(k + u_k) n / T`` is taken from segment k = 0 … T-1:

    .. math:: i_k = \lfloor (k + u_k) \, n / T \rfloor

    Training draws every ``u_k`` uniformly from [0, 1). Evaluation takes the centres, ``u_k = 1/2``: equal intervals.

    The indices ascend, repeats allowed: a clip with fewer than T frames shows some of its frames several times, a clip
    of one frame shows it T times. In training a frame that lies on the border of two segments can come from both.

    Args:
        available: frames in the clip, n >= 1.
        num_frames: frames to take, T >= 1.
        generator: draws the moments; ``None`` takes the centres.

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
        return np.asarray((2 * segments + 1) * available // (2 * num_frames))
    moments = segments + torch.rand(num_frames, generator=generator, dtype=torch.float64).numpy()
    # The product can be rounded up to n itself.
    return np.minimum(np.asarray(moments * available / num_frames, dtype=np.int64), available - 1)
