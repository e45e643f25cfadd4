"""From a clip's frames to the network's input, in training, evaluation and prediction alike."""

from __future__ import annotations

import torch
from torch import Tensor

from hoi_train.core.randomness import generator
from hoi_train.data.samplers import Item
from hoi_train.data.sampling import Indices, Plan, Segments
from hoi_train.data.transforms import CenterCrop, Transform, Transformed
from hoi_train.data.views import Views


class ClipInput:
    """Choose and transform the frames of a sample, as a function of its item, its name and the seed.

    Args:
        transforms: for training and for evaluation.
        num_frames: frames of a sample, T.
        plan: which ones.
        seed: of the run.
        views: of evaluation.

    Raises:
        ValueError: there are several crops, and the transform of evaluation cannot move its crop.
    """

    def __init__(
        self,
        transforms: tuple[Transform, Transform],
        *,
        num_frames: int = 10,
        plan: Plan | None = None,
        seed: int = 0,
        views: Views | None = None,
    ) -> None:
        training, evaluation = transforms
        self.num_frames, self.plan, self.seed, self.views = num_frames, plan or Segments(), seed, views or Views()
        self.training = training
        if self.views.crops == 1:
            self.evaluation = [evaluation] * len(self.views)
        elif isinstance(evaluation, CenterCrop) and not evaluation.padded:
            self.evaluation = [evaluation.moved(self.views[number].along) for number in range(len(self.views))]
        else:
            raise ValueError("several crops along the long side need a center_crop that is not padded")

    def frames(self, available: int, name: str, item: Item, key: int | None = None) -> Indices:
        """Return the frames to read, int64 ``[T]`` in ``0..available-1``."""
        if item.epoch is None:
            return self.plan(available, self.num_frames, key, view=self.views[item.view])
        return self.plan(available, self.num_frames, key, self._generator("frames", name, item))

    def transform(self, pixels: Tensor, name: str, item: Item, boxes: Tensor | None = None) -> Transformed:
        """Transform frames, uint8 ``[T, H, W, 3]``, and boxes; see ``Transform``."""
        transform = self.evaluation[item.view] if item.epoch is None else self.training
        return transform(pixels, self._generator("augment", name, item), boxes)

    def _generator(self, purpose: str, name: str, item: Item) -> torch.Generator:
        repeat = (item.repeat,) if item.repeat else ()
        return generator(self.seed, purpose, item.epoch if item.epoch is not None else -1, name, *repeat)
