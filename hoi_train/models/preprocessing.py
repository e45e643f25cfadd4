"""From uint8 frames to the input a network was trained with: a named property of its weights.

Sources of the values:
    ``kinetics_2020``: ``mean.py`` at commit 540a0ea of https://github.com/kenshohara/3D-ResNets-PyTorch, with that
    code's defaults ``--mean_dataset kinetics --value_scale 1``.
    ``k3d_2018``: ``mean.py`` of the same repository's branch CVPR2018 at commit d9847ea, with its defaults
    ``--mean_dataset activitynet --norm_value 1`` and no ``--std_norm``.
    ``cdb_released``: ``EGTEA/data/EGTEA.py`` of https://github.com/hitachi-rd-cv/CDB-loss, which feeds OpenCV's frames
    (BGR, 0–255) without normalisation, though its Kinetics weights were trained as in ``k3d_2018``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """The map of each colour value ``v`` in 0–255 to the network's input: ``x = (scale · v - mean) / std``.

    Args:
        name: its name in ``PREPROCESSING``.
        scale: factor on the values, above 0.
        mean, std: of each channel, in the order of ``channels`` and after scaling; ``std`` above 0.
        channels: order of the colours in the network's input.
    """

    name: str
    scale: float
    mean: Triple
    std: Triple
    channels: Literal["RGB", "BGR"]

    def __post_init__(self) -> None:
        if not (self.scale > 0 and min(self.std) > 0):
            raise ValueError(f"preprocessing {self.name!r}: scale and std must be above 0: {self.scale}, {self.std}")


class Normalize(nn.Module):
    """Apply a preprocessing on the device, in the dtype and memory format of the module's tensors.

    Shapes:
        video uint8 ``[N, 3, T, H, W]``, RGB; result floating, same shape, channels in the network's order.

    >>> grey = torch.full((1, 3, 1, 1, 1), 128, dtype=torch.uint8)
    >>> [round(value, 1) for value in Normalize(PREPROCESSING["k3d_2018"])(grey).flatten().tolist()]
    [13.2, 20.3, 28.5]
    """

    gain: Tensor
    offset: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        std = torch.tensor(preprocessing.std).view(1, 3, 1, 1, 1)  # rank 5, so that channels_last_3d takes them
        mean = torch.tensor(preprocessing.mean).view(1, 3, 1, 1, 1)
        # Not persistent: the name determines them, and published state dicts do not have them.
        self.register_buffer("gain", preprocessing.scale / std, persistent=False)
        self.register_buffer("offset", -mean / std, persistent=False)

    def forward(self, video: Tensor) -> Tensor:
        """Return the network's input; raises ``ValueError`` if the video is not uint8 ``[N, 3, T, H, W]``."""
        if video.dtype != torch.uint8 or video.ndim != 5 or video.shape[1] != 3:
            raise ValueError(f"video must be uint8 [N, 3, T, H, W], got {video.dtype} {tuple(video.shape)}")
        if self.preprocessing.channels == "BGR":
            video = video.flip(1)
        wanted = torch.channels_last_3d if self.gain.stride(2) == 3 else torch.contiguous_format
        return video.to(self.gain.dtype, memory_format=wanted).mul_(self.gain).add_(self.offset)


PREPROCESSING: dict[str, Preprocessing] = {
    row.name: row
    for row in (
        Preprocessing("kinetics_2020", 1 / 255, (0.4345, 0.4051, 0.3775), (0.2768, 0.2713, 0.2737), "RGB"),
        Preprocessing("k3d_2018", 1.0, (114.7748, 107.7354, 99.4750), (1.0, 1.0, 1.0), "RGB"),
        Preprocessing("cdb_released", 1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "BGR"),
    )
}
