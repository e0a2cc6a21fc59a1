"""Pixels as networks want them: square, grey or RGB, uint8 until they are on the device."""

import numpy as np
import torch
from torch.nn.functional import interpolate

CHUNK = 1024  # images converted at a time: bounds the float copy


def prepare(images: np.ndarray, size: int, channels: int) -> torch.Tensor:
    """Turn (N, H, W, C) uint8 into (N, channels, size, size) uint8.

    Grey by ITU-R 601 first, then bilinear with antialias. Images that are not square are stretched, not
    cropped or padded.
    """
    chunks = [
        _resize(_recolour(torch.tensor(images[start : start + CHUNK]).permute(0, 3, 1, 2), channels), size)
        for start in range(0, len(images), CHUNK)
    ]
    if not chunks:
        return torch.empty((0, channels, size, size), dtype=torch.uint8)
    return torch.cat(chunks).contiguous()


def convert(image: np.ndarray, size: int | None, channels: int | None) -> np.ndarray:
    """Do the same to one (H, W, C) image; None leaves its size or channels alone."""
    batch = torch.tensor(image).permute(2, 0, 1).unsqueeze(0)
    if channels is not None:
        batch = _recolour(batch, channels)
    if size is not None:
        batch = _resize(batch, size)
    return batch[0].permute(1, 2, 0).contiguous().numpy()


def rescale(images: torch.Tensor, least: torch.Tensor, greatest: torch.Tensor) -> torch.Tensor:
    """Map each position's least..greatest (C, S, S) to 0..255, rounded; one that never changes becomes 0."""
    span = (greatest.int() - least.int()).clamp(min=1)
    chunks = ((part.int() - least.int()) * 255 / span for part in images.split(CHUNK))
    return torch.cat([part.round_().clamp_(0, 255).to(torch.uint8) for part in chunks])


def to_unit(batch: torch.Tensor) -> torch.Tensor:
    """Turn uint8 0..255 into float32 in [0, 1]; call it on the device, a quarter of the bytes travel."""
    return batch.to(torch.float32).div_(255.0)


def _recolour(batch: torch.Tensor, channels: int) -> torch.Tensor:
    """ITU-R 601 luma in 16-bit fixed point, bit for bit what Pillow computes; grey to RGB by repeating."""
    if channels == 1 and batch.shape[1] == 3:
        red, green, blue = batch.to(torch.int32).unbind(dim=1)
        batch = ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).to(torch.uint8).unsqueeze(1)
    return batch.expand(-1, channels, -1, -1)


def _resize(batch: torch.Tensor, size: int) -> torch.Tensor:
    if batch.shape[2:] == (size, size):
        return batch
    # In float32: the uint8 kernel depends on the processor's vector unit.
    wide = interpolate(batch.to(torch.float32), (size, size), mode="bilinear", antialias=True)
    return wide.round_().clamp_(0, 255).to(torch.uint8)
