"""Random crops with flips, and PLG-MI's views of images: each image by numbers of its own."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from orchestrator.training.augmentation import APPLIED

NUMBERS = 5
"""Random numbers that a crop takes: area, ratio, two of its place, flip."""

VIEW_NUMBERS = 8
"""Random numbers that a view takes: area, two of its place, flip, turn, whether colours change, brightness,
contrast."""

VIEW_AREA, TURN, COLOUR = (0.8, 1.0), math.radians(5.0), 0.2
"""Of a view: area of the crop, largest turn either way, largest change of brightness and contrast."""


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
    return _sampled(images, torch.stack([width, zero, x, zero, height, y], dim=1))


def random_views(images: Tensor, numbers: Tensor, *, jitter: float) -> Tensor:
    """Return what PLG-MI shows the target of images (N, C, S, S): a square of 80 to 100 % of the area,
    enlarged, mirrored with probability 1/2, turned by up to 5 degrees either way; with probability `jitter`
    brightness and contrast, in this order, change by up to 20 % within [0, 1].

    numbers (N, 8) in [0, 1). All moves are one bilinear interpolation. Released code has one for each, turns
    one image of two, and fills corners that a turn uncovers with black. Here each image is turned, and its
    corners are of the image around the square.
    """
    area, across, down, coin, turn, is_changed, *colours = numbers.to(images).unbind(dim=1)
    low, high = VIEW_AREA
    side = (low + (high - low) * area).sqrt()
    x, y = (1 - side) * (2 * across - 1), (1 - side) * (2 * down - 1)
    along, off = (f(TURN * (2 * turn - 1)) for f in (torch.cos, torch.sin))
    width = torch.where(coin < 0.5, -side, side)
    maps = torch.stack([width * along, -width * off, x, side * off, side * along, y], dim=1)
    views = changed = _sampled(images, maps)
    for name, number in zip(("brightness", "contrast"), colours, strict=True):
        changed = APPLIED[name](changed, (1 + COLOUR * (2 * number - 1))[:, None, None, None])
    return torch.where((is_changed < jitter)[:, None, None, None], changed, views)


def _sampled(images: Tensor, maps: Tensor) -> Tensor:
    """Return images (N, C, S, S) at the places that affine maps (N, 6) send pixels to, bilinear; corners are
    -1 and 1, and edges go on unchanged."""
    # affine_grid multiplies matrices: under autocast places would be bfloat16, off by up to 0.6 of a
    # pixel at 224x224.
    with torch.autocast(images.device.type, enabled=False):
        grid = functional.affine_grid(maps.view(-1, 2, 3), list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
