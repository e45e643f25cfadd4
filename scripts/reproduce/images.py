"""Images as videos of one frame: held in memory, batched and augmented as addressed draws."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from hoi_train.core.batches import ClipBatch
from hoi_train.core.randomness import generator
from hoi_train.data.dataset import ClipDataset
from hoi_train.data.loader import ClipLoader
from hoi_train.data.samplers import Item

PADDING = 4


@dataclass(frozen=True)
class Images:
    """The labelled images of one split.

    Args:
        pixels: uint8 ``[N, 1, S, S]`` (grey) or ``[N, 3, S, S]`` (RGB).
        labels: int64 ``[N]``, class ids.
        names: N names, for messages.
        seed: of the run, for order and augmentation.
        positions: int64 ``[N]``, each image's place among the ``num_positions`` for which augmentation is drawn.
        num_positions: at least N; a subset keeps that of the whole, so that its images are augmented the same.
    """

    pixels: Tensor
    labels: Tensor
    names: Sequence[str]
    seed: int
    positions: Tensor
    num_positions: int
    num_views: ClassVar[int] = 1

    @classmethod
    def of(cls, pixels: Tensor, labels: Tensor, names: Sequence[str], seed: int) -> Images:
        """Make a whole split."""
        return cls(pixels, labels, names, seed, torch.arange(len(labels)), len(labels))

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Tensor) -> Images:
        """Return some of the images, by their positions, int64."""
        names = [self.names[row] for row in rows.tolist()]
        return replace(
            self, pixels=self.pixels[rows], labels=self.labels[rows], names=names, positions=self.positions[rows]
        )


class ImageLoader(ClipLoader):
    """Yield the batches of one split, in the order of ``ClipLoader``, from memory in this process.

    Args:
        images: of the split.
        batch_size: images per batch.
        task: name under which the labels are given.
        crop_and_flip: in training, crop the image padded with 4 black pixels and mirror every
            second one, as for CIFAR (He et al., CVPR 2016, section 4.2): a function of seed, epoch, image and
            repeat.
    """

    def __init__(self, images: Images, batch_size: int, *, task: str, crop_and_flip: bool = False) -> None:
        super().__init__(images, batch_size)  # type: ignore[arg-type]  # of a ClipDataset it uses length and seed
        self.images, self.task, self.crop_and_flip = images, task, crop_and_flip
        self._draws: dict[int, Tensor] = {}
        self._drawn_epoch: int | None = None

    def of(self, dataset: ClipDataset, batch_size: int) -> ImageLoader:
        """Return a loader of other images with the same augmentation."""
        assert isinstance(dataset, Images)
        return ImageLoader(dataset, batch_size, task=self.task, crop_and_flip=self.crop_and_flip)

    def _batches(self, items: Sequence[list[Item]]) -> Iterator[ClipBatch]:
        for batch in items:
            began = time.perf_counter()
            made = self._make(batch)
            self._waited += time.perf_counter() - began
            yield made

    def _make(self, items: list[Item]) -> ClipBatch:
        images, ids = self.images, [item.clip for item in items]
        rows = torch.tensor(ids)
        pixels = images.pixels[rows]
        if self.crop_and_flip and items[0].epoch is not None:
            top, left, mirrored = self._draw(items, rows).unbind(1)
            pixels = crop_and_flip(pixels, top, left, mirrored > 0)
        return ClipBatch(
            video=pixels[:, :, None].expand(-1, 3, -1, -1, -1),
            targets={self.task: images.labels[rows]},
            indices=rows,
            clip_ids=tuple(images.names[i] for i in ids),
        )

    def _draw(self, items: list[Item], rows: Tensor) -> Tensor:
        """Return int64 ``[N, 3]``: row and column of the crop, and whether to mirror."""
        epoch, positions = items[0].epoch, self.images.positions[rows]
        assert epoch is not None
        if epoch != self._drawn_epoch:
            self._draws, self._drawn_epoch = {}, epoch
        repeats = torch.tensor([item.repeat for item in items])
        found = torch.empty(len(items), 3, dtype=torch.int64)
        for repeat in {item.repeat for item in items}:
            if repeat not in self._draws:
                self._draws[repeat] = _draws(self.images, epoch, repeat)
            found[repeats == repeat] = self._draws[repeat][positions[repeats == repeat]]
        return found


def _draws(images: Images, epoch: int, repeat: int) -> Tensor:
    """Return the draws of all images of the split, int64 ``[num_positions, 3]``, in about 1 ms."""
    draw = generator(images.seed, "augment", epoch, repeat)
    crops = torch.randint(2 * PADDING + 1, (images.num_positions, 2), generator=draw)
    return torch.cat([crops, torch.randint(2, (images.num_positions, 1), generator=draw)], dim=1)


def crop_and_flip(pixels: Tensor, top: Tensor, left: Tensor, mirrored: Tensor) -> Tensor:
    """Crop each image, padded with 4 black pixels, to its own size.

    Args:
        pixels: ``[N, C, S, S]``.
        top: int64 ``[N]`` in 0..8, row where the cut begins; 4 is the image's own.
        left: the same for its column.
        mirrored: bool ``[N]``, which to mirror left to right.
    """
    side = torch.arange(pixels.shape[-1])
    rows = top[:, None] + side
    columns = left[:, None] + torch.where(mirrored[:, None], side.flip(0), side)
    images = torch.arange(len(pixels))[:, None, None]
    cut = pad(pixels, (PADDING,) * 4)[images, :, rows[:, :, None], columns[:, None, :]]
    return cut.permute(0, 3, 1, 2)
