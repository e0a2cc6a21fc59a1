"""Pixel metrics: reconstructions beside their originals, both (N, C, H, W) in [0, 1] -> (N,) values."""

from collections.abc import Callable

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

PSNR_LIMIT = 100.0  # dB; keeps a perfect image from making the mean infinite


def mse(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Return the per-pixel mean squared error (squared intensity), (N,) float64; lower means more leaks.

    Raise `ValueError` if the shapes differ.
    """
    if images.shape != reconstructions.shape:
        raise ValueError(
            f"reconstructions of shape {tuple(reconstructions.shape)} must match "
            f"images of shape {tuple(images.shape)}."
        )
    return torch.square(images.double() - reconstructions.double()).flatten(1).mean(dim=1)


def psnr(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio (dB, range 1, at most 100), (N,) float64; higher means more
    leaks."""
    return (-10.0 * mse(images, reconstructions).log10()).clamp(max=PSNR_LIMIT)


def ssim(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Return the structural similarity (11x11 Gaussian window, range 1; 1 is identical), (N,) float32;
    higher means more leaks."""
    value = structural_similarity_index_measure(
        reconstructions.float(), images.float(), data_range=1.0, reduction="none"
    )
    assert isinstance(value, Tensor)
    return value


PIXEL_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": mse, "psnr": psnr, "ssim": ssim}
"""Metric -> its function of originals and reconstructions."""
