"""Pixels as networks want them: square, grey or RGB, uint8 until they are on the device."""

import numpy as np
import torch
from torch.nn.functional import interpolate

CHUNK = 1024  # images converted at a time: bounds the float copy


def prepare(images: np.ndarray, size: int, channels: int) -> torch.Tensor:
    """Turn (N, H, W, C) uint8 into (N, channels, size, size) uint8.

    Grey by ITU-R 601 first, then bilinear with antialias. Images that are not square are stretched, not cropped
    or padded.
    """
    chunks = [
        _prepare_chunk(images[start : start + CHUNK], size, channels)
        for start in range(0, len(images), CHUNK)
    ]
    return torch.cat(chunks) if chunks else torch.empty((0, channels, size, size), dtype=torch.uint8)


def to_unit(batch: torch.Tensor) -> torch.Tensor:
    """Turn uint8 0..255 into float32 in [0, 1]; call it on the device, a quarter of the bytes travel."""
    return batch.to(torch.float32).div_(255.0)


def _prepare_chunk(images: np.ndarray, size: int, channels: int) -> torch.Tensor:
    batch = torch.tensor(images).permute(0, 3, 1, 2)
    if channels == 1 and batch.shape[1] == 3:
        batch = _grey(batch)
    if batch.shape[2:] != (size, size):
        # In float32: the uint8 kernel depends on the processor's vector unit.
        wide = interpolate(batch.to(torch.float32), (size, size), mode="bilinear", antialias=True)
        batch = wide.round_().clamp_(0, 255).to(torch.uint8)
    return batch.expand(-1, channels, -1, -1).contiguous()


def _grey(batch: torch.Tensor) -> torch.Tensor:
    """ITU-R 601 luma in 16-bit fixed point, bit for bit what Pillow computes."""
    red, green, blue = batch.to(torch.int32).unbind(dim=1)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).to(torch.uint8).unsqueeze(1)
