"""Random erasing of training images as a defense (MIDRE; Tran et al., TMLR 2025), `config.Erasing`.

Each image loses a square of 10 to 40 % of its area at a random place, in each epoch another one, after all
other augmentation. Draws are those of torchvision's RandomErasing, image after image, from torch's global
generator, which `training.loop.fit` seeds by epoch and rank; rectangles are filled for a batch at once. The
released code gives ImageNet's mean to images that it has scaled to [-1, 1] before: `fill: released`. Areas,
squares and fill were read in the released configurations and their parser; published areas of 64x64 networks
were not checked.
"""

import torch
from torch import Tensor

from orchestrator.config import Erasing
from orchestrator.training.augmentation import GREY

IMAGENET_MEAN = (0.485, 0.456, 0.406)


def erased(images: Tensor, erasing: Erasing) -> Tensor:
    """Return images (N, C, S, S) in [0, 1], C 1 or 3, each with a rectangle of it filled."""
    if not len(images):
        return images
    fill = colour(erasing, images.shape[1]).flatten()
    boxes = _drawn(images, erasing).flatten().float()
    numbers = torch.cat([boxes, fill]).to(images.device)  # one copy to the device for both
    # (N, 4): top, left, height and width, exact in float32
    top, left, height, width = (part[:, None] for part in numbers[: -len(fill)].view(-1, 4).unbind(1))
    place = torch.arange(images.shape[-1], device=images.device)
    rows = (place >= top) & (place < top + height)  # (N, S) each
    columns = (place >= left) & (place < left + width)
    inside = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(inside, numbers[-len(fill) :].to(images.dtype)[:, None, None], images)


def colour(erasing: Erasing, channels: int) -> Tensor:
    """Return what rectangles are filled with, float32 (C, 1, 1) in [0, 1]."""
    means = torch.tensor(IMAGENET_MEAN)
    filled = {"imagenet-mean": means, "released": (means + 1) / 2, "black": torch.zeros(3)}[erasing.fill]
    if channels == 1:
        filled = (filled * torch.tensor(GREY)).sum().reshape(1)
    return filled.reshape(-1, 1, 1)


def _drawn(images: Tensor, erasing: Erasing) -> Tensor:
    """Draw a rectangle for each image as torchvision's transform of one image does, int64 (N, 4) on the CPU;
    one of no height for images that stay whole."""
    from torchvision.transforms import v2  # here: it takes 2 s to import, and few studies erase

    scale, ratio = (erasing.least, erasing.most), (1 / erasing.elongation, erasing.elongation)
    transform = v2.RandomErasing(erasing.probability, scale, ratio)
    boxes = []
    for image in images:
        is_kept = torch.rand(1) >= erasing.probability
        drawn = {} if is_kept else transform.make_params([image])
        is_whole = is_kept or drawn["v"] is None  # it found no rectangle that fits
        boxes.append([0, 0, 0, 0] if is_whole else [int(drawn[side]) for side in "ijhw"])
    return torch.tensor(boxes)
