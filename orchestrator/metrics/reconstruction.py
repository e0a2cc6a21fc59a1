"""Likeness of reconstructions to the victim's images, both (N, C, H, W) in [0, 1]; means over images."""

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

PSNR_LIMIT = 100.0  # dB; keeps a perfect image from making the mean infinite


def mse(images: Tensor, reconstructions: Tensor) -> float:
    """Return the per-pixel mean squared error (squared intensity); lower means more leaks."""
    return float(_squared_errors(images, reconstructions).mean())


def psnr(images: Tensor, reconstructions: Tensor) -> float:
    """Return the mean of each image's peak signal-to-noise ratio (dB, range 1, at most 100); higher means
    more leaks."""
    ratios = -10.0 * _squared_errors(images, reconstructions).log10()
    return float(ratios.clamp(max=PSNR_LIMIT).mean())


def ssim(images: Tensor, reconstructions: Tensor) -> float:
    """Return the mean structural similarity (11x11 Gaussian window, range 1; 1 is identical); higher means
    more leaks."""
    value = structural_similarity_index_measure(
        reconstructions.float(), images.float(), data_range=1.0, reduction="elementwise_mean"
    )
    assert isinstance(value, Tensor)
    return float(value)


def _squared_errors(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Return each image's mean squared error, float64 (N,)."""
    if images.shape != reconstructions.shape:
        raise ValueError(
            f"reconstructions of shape {tuple(reconstructions.shape)} must match "
            f"images of shape {tuple(images.shape)}."
        )
    return torch.square(images.double() - reconstructions.double()).flatten(1).mean(dim=1)
