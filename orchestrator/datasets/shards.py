"""Shards: the images of a large set in mapped files, opened when an image of theirs is asked for."""

from collections.abc import Callable, Sequence

import numpy as np

HELD_BYTES = 2**30
"""Image sets, and images selected of one, are held in memory up to this size; larger ones are read from
mapped files, a batch at a time."""


class Shards:
    """Images (N, H, W, C) uint8 of consecutive files; indexing copies the images asked for into memory.

    `block` opens the i-th file: (its images, H, W, C) uint8.
    """

    def __init__(
        self, counts: Sequence[int], image_shape: tuple[int, int, int], block: Callable[[int], np.ndarray]
    ) -> None:
        self._starts = np.cumsum([0, *counts[:-1]])
        self._block = block
        self.shape = (sum(counts), *image_shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: np.ndarray | slice) -> np.ndarray:
        """Return images (n, H, W, C) at positions (n,) int64, a slice or a mask (N,)."""
        if isinstance(index, slice):
            index = np.arange(*index.indices(len(self)))
        rows = np.flatnonzero(index) if index.dtype == bool else index
        images = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        blocks = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(blocks).tolist():  # no two open at once: each keeps a file descriptor
            here = blocks == number
            images[here] = self._block(number)[rows[here] - self._starts[number]]
        return images
