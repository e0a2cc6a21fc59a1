"""Image priors, hand-made (AMI, section II-B): penalties on images, and treatments between steps.

Images are float32 (N, C, S, S) in [0, 1] unless stated; a penalty is one value for each image, a sum over its
pixels; a treatment returns images. Borders: a difference that would leave the image counts 0, filters repeat
the outermost pixel, a shift wraps around.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from orchestrator.training.seeds import derive_seed

# Ours. Its root is a fortieth of a grey level of 255, so it bounds the slope of flat parts and little else.
VARIATION_EPSILON = 1e-8


def alpha_norm(images: Tensor, alpha: float) -> Tensor:
    """Return the sum of abs(x)^alpha, (N,), of images less the mean of each of their channels.

    Simonyan et al. take alpha 2, Mahendran and Vedaldi 6, on images less the data's mean, which an adversary
    without data lacks. Black would be the favourite of an image that is not mean-free.
    """
    centred = images - images.mean(dim=(2, 3), keepdim=True)
    return centred.abs().pow(alpha).flatten(1).sum(1)


def total_variation(images: Tensor, beta: float) -> Tensor:
    """Return equation 5 of AMI, (N,), each channel on its own.

    For beta < 2 a small constant inside the power keeps the slope finite where neighbours are equal; it adds
    1e-4 for each flat pixel at beta 1.
    """
    right = functional.pad(images.diff(dim=3), (0, 1))
    down = functional.pad(images.diff(dim=2), (0, 0, 0, 1))
    squares = right.square() + down.square()
    if beta < 2.0:
        squares = (squares + VARIATION_EPSILON).pow(beta / 2)
    return squares.flatten(1).sum(1)


def draw_shift(limit: int, seed: int, step: int) -> tuple[int, int]:
    """Draw rows and columns to shift by, each of -limit..limit alike, from the seed and the step alone."""
    generator = torch.Generator().manual_seed(derive_seed("jitter", seed, step))
    rows, columns = torch.randint(-limit, limit + 1, (2,), generator=generator).tolist()
    return rows, columns


def jitter(images: Tensor, shift: tuple[int, int]) -> Tensor:
    """Shift images (N, C, S, S) down and right, wrapping around."""
    return images.roll(shift, dims=(2, 3)) if any(shift) else images


def blur(images: Tensor, sigma: float) -> Tensor:
    """Blur images (N, C, S, S) with a Gaussian of deviation `sigma` in pixels, cut at three of them."""
    radius = math.ceil(3 * sigma)
    distance = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-distance.square() / (2 * sigma**2))
    weights = weights / weights.sum()
    channels = images.shape[1]
    along_rows = weights.expand(channels, 1, 1, -1)
    padded = functional.pad(images, (radius, radius, radius, radius), mode="replicate")
    blurred = functional.conv2d(padded, along_rows, groups=channels)
    return functional.conv2d(blurred, along_rows.transpose(2, 3), groups=channels)


def denoise(images: Tensor) -> Tensor:
    """Replace each pixel of images (N, C, S, S) by the median of the 3x3 pixels around it."""
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    return padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(4).median(dim=4).values


def sharpen(images: Tensor, sigma: float = 1.0, amount: float = 1.0) -> Tensor:
    """Add the difference from a Gaussian blur to images (N, C, S, S) (unsharp masking), clamped to [0, 1]."""
    return (images + amount * (images - blur(images, sigma))).clamp(0.0, 1.0)


def pixel_norms(images: Tensor) -> Tensor:
    """Return the Euclidean norm over the channels of each pixel, (N, S, S)."""
    return images.square().sum(dim=1).sqrt()


def contributions(images: Tensor, gradients: Tensor) -> Tensor:
    """Return abs(x * dcost/dx), summed over channels before abs as by Yosinski et al., (N, S, S).

    To first order it is how much the cost changes when the pixel is set to 0.
    """
    return (images * gradients).sum(dim=1).abs()


def clip_smallest(images: Tensor, values: Tensor, share: float) -> Tensor:
    """Set to 0, in each image, the share of pixels with the smallest values (N, S, S).

    The number of pixels is rounded; of equal values the upper left pixel goes first, on every device.
    """
    values = values.flatten(1)
    num_clipped = round(share * values.shape[1])
    clipped = values.argsort(dim=1, stable=True)[:, :num_clipped]
    kept = torch.ones_like(values).scatter_(1, clipped, 0.0)
    return images * kept.view(len(images), 1, *images.shape[2:])
