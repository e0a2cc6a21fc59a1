"""Random resized crops and flips of images, each image by numbers of its own."""

import torch
from torch import Tensor
from torch.nn import functional

NUMBERS = 5
"""Random numbers that a crop takes: area, ratio, two of its place, flip."""


def random_crops(
    images: Tensor, numbers: Tensor, *, scale: tuple[float, float], ratio: tuple[float, float], flip: float
) -> Tensor:
    """Cut a part out of each of images (N, C, S, S) and enlarge it to S x S, bilinear.

    numbers (N, 5) in [0, 1). The part's area is uniform in `scale` (of the image's), the logarithm of width
    by height in that of `ratio`, its place uniform inside the image, sides at most the image's; it is
    mirrored with probability `flip`.
    """
    area, log_ratio, across, down, coin = numbers.to(images).unbind(dim=1)
    low, high = torch.tensor(ratio).log().tolist()
    area, aspect = scale[0] + (scale[1] - scale[0]) * area, (low + (high - low) * log_ratio).exp()
    width, height = (area * aspect).sqrt().clamp(max=1.0), (area / aspect).sqrt().clamp(max=1.0)
    # Corners of an image are -1 and 1: a part's centre has 1 - side of room on either side of 0.
    x, y = (1 - width) * (2 * across - 1), (1 - height) * (2 * down - 1)
    width = torch.where(coin < flip, -width, width)
    zero = torch.zeros_like(x)
    maps = torch.stack([width, zero, x, zero, height, y], dim=1).view(-1, 2, 3)
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
