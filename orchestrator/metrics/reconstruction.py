"""Pixel metrics: reconstructions beside their originals, both (N, C, H, W) in [0, 1] -> (N,) values."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

PSNR_LIMIT = 100.0  # dB; keeps a perfect image from making the mean infinite
WINDOW, DEVIATION = 11, 1.5  # pixels: side and standard deviation of SSIM's Gaussian window
LUMINANCE, CONTRAST = 0.01**2, 0.03**2  # SSIM's constants C1 and C2 for a range of 1
FEW = 32  # images whose windows are computed together: their float64 planes stay in a CPU's cache


def mse(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Return the per-pixel mean squared error (squared intensity), (N,) float64; lower means more leaks.

    Raise `ValueError` if the shapes differ.
    """
    _require_alike(images, reconstructions)
    return torch.square(images.double() - reconstructions.double()).flatten(1).mean(dim=1)


def psnr(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio (dB, range 1, at most 100), (N,) float64; higher means more
    leaks."""
    return (-10.0 * mse(images, reconstructions).log10()).clamp(max=PSNR_LIMIT)


def ssim(images: Tensor, reconstructions: Tensor) -> Tensor:
    """Return the structural similarity (11x11 Gaussian window, range 1; 1 is identical), (N,) float32;
    higher means more leaks.

    Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
    Similarity" (2004), Eq. 13, averaged over all pixels of images that are reflected at their edges, as
    torchmetrics does. The window is separable: two matrix products filter whole rows and columns. Sides are
    at least 6. Sums are float64. Raise `ValueError` if the shapes differ.
    """
    _require_alike(images, reconstructions)
    down, across = (_window(side, images.device) for side in images.shape[-2:])
    parts = zip(images.split(FEW), reconstructions.split(FEW), strict=True)
    return torch.cat(
        [_similarities(few.double(), made.double(), down, across) for few, made in parts]
    ).float()


def _similarities(some: Tensor, others: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Return the mean similarity of images (n, C, H, W) float64, (n,), filtered by (H, H) and (W, W)."""
    planes = torch.stack([some, others, some.square(), others.square(), some * others])
    mean, other_mean, square, other_square, product = (down.T @ (planes @ across)).unbind()
    means, squares = mean * other_mean, mean.square() + other_mean.square()
    # Rounding puts the variance of a flat image below 0.
    variances = (square - mean.square()).clamp_min(0.0) + (other_square - other_mean.square()).clamp_min(0.0)
    upper = (2.0 * means + LUMINANCE) * (2.0 * (product - means) + CONTRAST)
    return (upper / ((squares + LUMINANCE) * (variances + CONTRAST))).flatten(1).mean(1)


def _window(side: int, device: torch.device) -> Tensor:
    """Return the matrix (side, side) that filters rows by the window, reflected at both ends, float64."""
    places = torch.arange(WINDOW, dtype=torch.float64, device=device) - WINDOW // 2
    weights = torch.exp(-(places / DEVIATION).square() / 2.0)
    each = torch.eye(side, dtype=torch.float64, device=device)[None]
    reflected = functional.pad(each, (WINDOW // 2, WINDOW // 2), mode="reflect")[0]
    return reflected.unfold(1, WINDOW, 1) @ (weights / weights.sum())


def _require_alike(images: Tensor, reconstructions: Tensor) -> None:
    if images.shape != reconstructions.shape:
        raise ValueError(
            f"reconstructions of shape {tuple(reconstructions.shape)} must match "
            f"images of shape {tuple(images.shape)}."
        )


PIXEL_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": mse, "psnr": psnr, "ssim": ssim}
"""Metric -> its function of originals and reconstructions."""
