"""Image grids: private images above their reconstructions, samples of a prior, as arrays and as PNG."""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MIN_SIDE = 320  # pixels of a grid's longer side: browsers blur a 32-pixel image that they enlarge


def pair_grid(originals: Tensor, reconstructions: Tensor) -> np.ndarray:
    """Return a near-square grid (H, W, 3) uint8: each row of originals above the row of their
    reconstructions.

    Both (N, C, S, S) uint8, C 1 or 3.
    """
    num_pairs = len(originals)
    columns = math.ceil(math.sqrt(2 * num_pairs))
    rows = []
    for start in range(0, num_pairs, columns):
        rows += [strip(images[start : start + columns], columns) for images in (originals, reconstructions)]
        rows.append(np.full((2, rows[-1].shape[1], 3), 255, np.uint8))
    return _enlarged(np.concatenate(rows[:-1]))


def sample_grid(images: Tensor) -> np.ndarray:
    """Return images (N, C, S, S) uint8, C 1 or 3, row after row in a near-square grid (H, W, 3) uint8."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = []
    for part in images.split(columns):
        rows.append(strip(part, columns))
        rows.append(np.full((1, rows[-1].shape[1], 3), 255, np.uint8))
    return _enlarged(np.concatenate(rows[:-1]))


def _enlarged(grid: np.ndarray) -> np.ndarray:
    """Return a grid (H, W, 3) uint8 enlarged by a whole number, so that its longer side has `MIN_SIDE`."""
    scale = max(1, math.ceil(MIN_SIDE / max(grid.shape[:2])))
    return grid.repeat(scale, axis=0).repeat(scale, axis=1)


def strip(images: Tensor, columns: int) -> np.ndarray:
    """Return images (N, C, S, S) uint8 side by side, (S, columns * (S + 1) - 1, 3) uint8, missing ones
    white."""
    _, channels, height, width = images.shape
    row = torch.full((height, columns * (width + 1) - 1, 3), 255, dtype=torch.uint8)
    for place, image in enumerate(images):
        left = place * (width + 1)
        row[:, left : left + width] = (
            image.expand(3, -1, -1).permute(1, 2, 0) if channels == 1 else image.permute(1, 2, 0)
        )
    return row.numpy()


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
