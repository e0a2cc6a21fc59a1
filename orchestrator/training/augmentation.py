"""Augmentation: random changes of each training image (TL-DMI, section E.1 and its released code; PPA).

Draws come from torch's global generator, which `training.loop.fit` seeds by epoch and rank. Images are
(N, C, S, S) in [0, 1] and keep their shape. Crops and colours are drawn image by image by torchvision and
applied to many images at once: the results are torchvision's but for rounding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

AREA = (0.85, 1.0)  # of the random crop, PPA's targets
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.2, 0.2, 0.1, 0.1  # of its colour jitter
GREY = (0.2989, 0.587, 0.114)  # weights of red, green and blue in torchvision's grey image
CHANGES = ("brightness", "contrast", "saturation", "hue")  # as torchvision numbers them
COLOURS_OF_GREY = ("brightness", "contrast")  # the changes that an image of one channel has
SHIFT, BRIGHTER = 1 / 8, 0.25  # of a prior's images: share of the side, and of the range of intensities
PIXELS = 1 << 16  # of the images that are changed together on a CPU: their planes stay in its cache


def augmentation(name: str) -> Callable[[Tensor], Tensor]:
    """Return the function of images (N, C, S, S) that `augmentation` of a recipe or of a prior names."""
    return {
        "none": _unchanged,
        "flip": flip,
        "crop-jitter-flip": crop_jitter_flip,
        "brightness-shift": brightness_shift,
    }[name]


def flip(images: Tensor) -> Tensor:
    """Mirror each image (N, C, S, S) left to right with probability 1/2."""
    return torch.where(_draw_mirrored(images)[:, None, None, None], images.flip(3), images)


def crop_jitter_flip(images: Tensor) -> Tensor:
    """Cut a square of 85 to 100 % of the area, resize it back, change colours, mirror half of the images.

    Images (N, C, S, S), C 1 or 3. The draws are those of torchvision's RandomResizedCrop and ColorJitter,
    image after image, then those of `flip`.
    """
    drawn = _draw(images)
    changed = torch.empty(images.shape, dtype=images.dtype, device=images.device)
    for order, rows in drawn.parts(images):
        part = _cut(images[rows], drawn.boxes[rows], drawn.mirrored[rows])
        for change in order:
            part = APPLIED[change](part, drawn.factors[change][rows, None, None, None])
        changed[rows] = part
    return changed


def brightness_shift(images: Tensor) -> Tensor:
    """Move each image (N, C, S, S) by up to an eighth of its side, edges repeated, and add up to 0.25 to all
    of its intensities, which may then leave [0, 1].

    A gradient passes to the images (Zhao et al., "Differentiable Augmentation", NeurIPS 2020, which fills
    with grey).
    """
    count, side, device = len(images), images.shape[-1], images.device
    most = int(side * SHIFT)
    moves = torch.randint(-most, most + 1, (2, count, 1), device=device)
    rows, columns = (torch.arange(side, device=device) + moves).clamp(0, side - 1)  # (N, S) each
    added = BRIGHTER * (2.0 * torch.rand(count, 1, 1, 1, device=device) - 1.0)
    number = torch.arange(count, device=device)[:, None, None]
    pixels = images.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2) + added


@dataclass(frozen=True, eq=False)
class _Draws:
    """What was drawn for N images, on their device."""

    boxes: Tensor  # (N, 3): top, left and side of the square, in pixels
    mirrored: Tensor  # (N,) bool
    orders: Sequence[tuple[str, ...]]  # of each image, the changes of its colours in their order
    factors: dict[str, Tensor]  # change -> (N,)

    def parts(self, images: Tensor) -> Iterator[tuple[tuple[str, ...], Tensor]]:
        """Yield each order of changes with positions (n,) of images that have it, few at a time on a CPU."""
        is_cpu = images.device.type == "cpu"
        most = max(1, PIXELS // images.shape[-1] ** 2) if is_cpu else len(images)
        for order in dict.fromkeys(self.orders):
            rows = [row for row, own in enumerate(self.orders) if own == order]
            for part in torch.tensor(rows, device=images.device).split(most):
                yield order, part


def _draw(images: Tensor) -> _Draws:
    """Draw a crop and a colour jitter for each image, as torchvision's transforms of one image do; mirror."""
    from torchvision.transforms import v2  # here: it takes 2 s to import, and few studies augment so

    crop = v2.RandomResizedCrop(images.shape[-1], scale=AREA, ratio=(1.0, 1.0), antialias=True)
    jitter = v2.ColorJitter(BRIGHTNESS, CONTRAST, SATURATION, HUE)
    known = CHANGES if images.shape[1] == 3 else COLOURS_OF_GREY
    boxes, orders, factors = [], [], []
    for image in images:
        box, colours = crop.make_params([image]), jitter.make_params([image])
        own = [colours[f"{change}_factor"] for change in CHANGES]  # None where nothing is drawn
        boxes.append([box["top"], box["left"], box["height"]])
        used = (CHANGES[place] for place in colours["fn_idx"].tolist() if own[place] is not None)
        orders.append(tuple(change for change in used if change in known))
        factors.append([0.0 if factor is None else factor for factor in own])
    placed = torch.tensor(factors, device=images.device).reshape(-1, len(CHANGES)).unbind(1)
    return _Draws(
        torch.tensor(boxes, dtype=torch.float64, device=images.device).reshape(-1, 3),
        _draw_mirrored(images),
        orders,
        dict(zip(CHANGES, placed, strict=True)),
    )


def _draw_mirrored(images: Tensor) -> Tensor:
    return torch.rand(len(images), device=images.device) < 0.5


def _cut(images: Tensor, boxes: Tensor, mirrored: Tensor) -> Tensor:
    """Return the squares (n, 3) of images (n, C, S, S), resized to S by bilinear interpolation, mirrored."""
    side = images.shape[-1]
    top, left, size = boxes[:, :, None].unbind(1)  # (n, 1) each, float64: a place is more than its fraction
    centres = (torch.arange(side, device=images.device) + 0.5) * size / side - 0.5
    inside = torch.minimum(centres.clamp_min(0.0), size - 1)  # beyond its edges a square goes on unchanged
    rows, columns = (((2 * (inside + start) + 1) / side - 1).float() for start in (top, left))  # in [-1, 1]
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    shape = (len(images), side, side)
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=-1)
    return grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _brightened(images: Tensor, factor: Tensor) -> Tensor:
    return images.mul(factor).clamp_(0.0, 1.0)


def _contrasted(images: Tensor, factor: Tensor) -> Tensor:
    mean = _grey(images).mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, factor).clamp_(0.0, 1.0)


def _saturated(images: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(_grey(images), images, factor).clamp_(0.0, 1.0)


def _turned(images: Tensor, factor: Tensor) -> Tensor:
    """Turn the hue of (n, 3, S, S) by (n, 1, 1, 1) of a full turn; value and saturation stay."""
    red, green, blue = images.unbind(1)
    largest = torch.maximum(torch.maximum(red, green), blue)
    least = torch.minimum(torch.minimum(red, green), blue)
    chroma = largest - least
    # The hue in sixths of a turn, times the chroma, where red, green or blue is the largest. Masks of 0 and 1
    # choose, which is five times as fast on a CPU as `torch.where`.
    is_red, is_green = (one.sub(largest).sign_().add_(1.0) for one in (red, green))
    of_green, of_blue = (blue - red).add_(chroma, alpha=2.0), (red - green).add_(chroma, alpha=4.0)
    hue = torch.lerp(torch.lerp(of_blue, of_green, is_green), green - blue, is_red)
    hue.div_(chroma.clamp_min(1e-12)).add_(factor[:, 0], alpha=6.0)
    hue.sub_(hue.div(6.0).floor_().mul_(6.0))  # into [0, 6)
    shares = (  # of the chroma, in each channel
        (hue - 3.0).abs_().sub_(1.0),
        (hue - 2.0).abs_().neg_().add_(2.0),
        (hue - 4.0).abs_().neg_().add_(2.0),
    )
    return torch.stack([one.clamp_(0.0, 1.0).mul_(chroma).add_(least) for one in shares], dim=1)


def _grey(images: Tensor) -> Tensor:
    """Return (n, 1, S, S), the grey of colour images, or images of one channel as they are."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return red.mul(GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2])


def _unchanged(images: Tensor) -> Tensor:
    return images


APPLIED = {
    "brightness": _brightened,
    "contrast": _contrasted,
    "saturation": _saturated,
    "hue": _turned,
}
"""Change of CHANGES -> its function of images (n, C, S, S) in [0, 1] and factors (n, 1, 1, 1)."""
