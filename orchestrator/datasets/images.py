"""Images: resizing, grey or RGB, and contrast, in uint8 until the images are on the device."""

import numpy as np
import torch
from torch.nn.functional import interpolate

from orchestrator.datasets.shards import Shards

CHUNK = 256  # images converted at a time: bounds the memory of the float copy


def prepare(images: np.ndarray | Shards, size: int, channels: int) -> torch.Tensor:
    """Convert images (N, H, W, C) uint8 to (N, channels, size, size) uint8.

    Recolour by ITU-R 601 first, then resize, bilinear with antialias. Images that are not square are
    stretched, not cropped or padded.
    """
    # Of grey sets in the strides of the stored layout, which kernels are chosen by.
    layout = torch.channels_last if images.shape[3] == channels == 1 else torch.contiguous_format
    shape = (len(images), channels, size, size)
    prepared = torch.empty(shape, dtype=torch.uint8, memory_format=layout)
    for start in range(0, len(images), CHUNK):
        part = torch.tensor(images[start : start + CHUNK]).permute(0, 3, 1, 2)
        prepared[start : start + CHUNK] = _resize(_recolour(part, channels), size)
    return prepared


def convert(image: np.ndarray, size: int | None, channels: int | None) -> np.ndarray:
    """Convert one image (H, W, C) uint8 to (size, size, channels) as `prepare` does; None keeps its own."""
    batch = torch.tensor(image).permute(2, 0, 1).unsqueeze(0)
    if channels is not None:
        batch = _recolour(batch, channels)
    if size is not None:
        batch = _resize(batch, size)
    return batch[0].permute(1, 2, 0).contiguous().numpy()


def rescale(images: torch.Tensor, least: torch.Tensor, greatest: torch.Tensor) -> torch.Tensor:
    """Map each position's least..greatest to 0..255, rounded; a position that never changes becomes 0.

    images (N, C, S, S) uint8, least and greatest (C, S, S) uint8 -> (N, C, S, S) uint8.
    """
    span = (greatest.int() - least.int()).clamp(min=1)
    chunks = ((part.int() - least.int()) * 255 / span for part in images.split(CHUNK))
    return torch.cat([part.round_().clamp_(0, 255).to(torch.uint8) for part in chunks])


def _recolour(batch: torch.Tensor, channels: int) -> torch.Tensor:
    """Convert (N, C, H, W) to `channels`: to grey in Pillow's 16-bit fixed point, to RGB by repeating."""
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
