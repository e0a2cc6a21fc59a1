"""Pictures of what leaks: each victim image above its reconstruction."""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MIN_SIDE = 320  # pixels; browsers blur a 32-pixel picture


def pair_grid(victims: Tensor, reconstructions: Tensor) -> np.ndarray:
    """Return a near-square uint8 grid (H, W, 3): the victims' row above the row of what was rebuilt.

    Both (N, C, S, S) uint8.
    """
    num_pairs, _, height, width = victims.shape
    columns = math.ceil(math.sqrt(2 * num_pairs))
    rows = []
    for start in range(0, num_pairs, columns):
        rows += [strip(images[start : start + columns], columns) for images in (victims, reconstructions)]
        rows.append(np.full((2, rows[-1].shape[1], 3), 255, np.uint8))
    grid = np.concatenate(rows[:-1])
    scale = max(1, math.ceil(MIN_SIDE / max(height, width, *grid.shape[:2])))
    return grid.repeat(scale, axis=0).repeat(scale, axis=1)


def strip(images: Tensor, columns: int) -> np.ndarray:
    """Return the images side by side (S, columns * (S + 1) - 1, 3), missing ones white."""
    _, channels, height, width = images.shape
    row = torch.full((height, columns * (width + 1) - 1, 3), 255, dtype=torch.uint8)
    for place, image in enumerate(images):
        left = place * (width + 1)
        row[:, left : left + width] = (
            image.expand(3, -1, -1).permute(1, 2, 0) if channels == 1 else image.permute(1, 2, 0)
        )
    return row.numpy()


def png(picture: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()
