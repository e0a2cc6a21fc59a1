"""Gathered images: a part of one or two sets, in any order, read and converted a batch at a time.

What fits `HELD_BYTES` is an ordinary tensor; the rest answers to the same indexing, `split`, `len` and
`shape`, and never holds more than what is asked for.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from orchestrator.datasets import shards
from orchestrator.datasets.images import CHUNK

Read = Callable[[Tensor], Tensor]
"""Positions in a set, (n,) int64 -> its images there, (n, C, S, S) uint8."""


class Gathered:
    """Images (N, C, S, S) uint8 that are read when they are indexed.

    `source` (N,) says by which of `reads` each one is read, `position` (N,) int64 at which position.
    """

    def __init__(
        self, reads: tuple[Read, ...], source: Tensor, position: Tensor, image_shape: tuple[int, ...]
    ) -> None:
        self._reads, self._source, self._position = reads, source, position
        self.shape = torch.Size((len(position), *image_shape))

    def __len__(self) -> int:
        return len(self._position)

    def __getitem__(self, index: Tensor | np.ndarray | list[int] | slice) -> Tensor:
        """Return images (n, C, S, S) at positions (n,), a slice or a mask (N,)."""
        source, position = self._source[index], self._position[index]
        if len(self._reads) == 1:
            return self._reads[0](position)
        order = source.argsort(stable=True)
        parts = [read(position[source == number]) for number, read in enumerate(self._reads)]
        return torch.cat(parts)[order.argsort()]

    def split(self, size: int) -> Iterator[Tensor]:
        """Yield the images in parts of `size`, in order; the last may be smaller."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def at(self, index: Tensor) -> "Images":
        """Return the images at positions (n,) int64, in that order."""
        return _held_if_small(
            Gathered(self._reads, self._source[index], self._position[index], self.shape[1:])
        )

    def joined(self, other: "Gathered") -> "Images":
        """Return the images followed by others of the same size and channels."""
        assert self.shape[1:] == other.shape[1:]
        return _held_if_small(
            Gathered(
                self._reads + other._reads,
                torch.cat([self._source, other._source + len(self._reads)]),
                torch.cat([self._position, other._position]),
                self.shape[1:],
            )
        )


Images = Tensor | Gathered
"""Images (N, C, S, S) uint8."""


def gather(read: Read, position: Tensor, image_shape: tuple[int, ...]) -> Images:
    """Return the images that `read` gives at positions (N,) int64, each (C, S, S)."""
    source = torch.zeros(len(position), dtype=torch.uint8)
    return _held_if_small(Gathered((read,), source, position, image_shape))


def at(images: Images, index: Tensor) -> Images:
    """Return the images at positions (n,) int64, in that order."""
    return images.at(index) if isinstance(images, Gathered) else images[index]


def joined(first: Images, second: Images) -> Images:
    """Return two sets of images of one size and number of channels, one after the other."""
    return _as_gathered(first).joined(_as_gathered(second))


def _as_gathered(images: Images) -> Gathered:
    if isinstance(images, Gathered):
        return images
    every, source = torch.arange(len(images)), torch.zeros(len(images), dtype=torch.uint8)
    return Gathered((images.__getitem__,), source, every, images.shape[1:])


def _held_if_small(gathered: Gathered) -> Images:
    """Read the images into memory, a part at a time, if they fit."""
    if math.prod(gathered.shape) > shards.HELD_BYTES:
        return gathered
    strides = gathered[:1].stride()
    images = torch.empty_strided(gathered.shape, strides, dtype=torch.uint8)
    for start in range(0, len(images), CHUNK):
        images[start : start + CHUNK] = gathered[start : start + CHUNK]
    return images
