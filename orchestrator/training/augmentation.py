"""Augmentation: random changes of each training image (TL-DMI, section E.1 and its released code; PPA).

Draws come from torch's global generator, which `training.loop.fit` seeds by epoch and rank. Images are
(N, C, S, S) in [0, 1] and keep their shape.
"""

from collections.abc import Callable

import torch
from torch import Tensor

AREA = (0.85, 1.0)  # of the random crop, PPA's targets
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.2, 0.2, 0.1, 0.1  # of its colour jitter


def augmentation(name: str) -> Callable[[Tensor], Tensor]:
    """Return the function of images that `config.Recipe.augmentation` names."""
    return {"none": _unchanged, "flip": flip, "crop-jitter-flip": crop_jitter_flip}[name]


def flip(images: Tensor) -> Tensor:
    """Mirror each image (N, C, S, S) left to right with probability 1/2."""
    mirrored = torch.rand(len(images), device=images.device) < 0.5
    return torch.where(mirrored[:, None, None, None], images.flip(3), images)


def crop_jitter_flip(images: Tensor) -> Tensor:
    """Cut a square of 85 to 100 % of the area, resize it back, change colours, mirror half of the images."""
    from torchvision.transforms import v2  # here: it takes 2 s to import, and few studies augment so

    side = images.shape[-1]
    crop = v2.RandomResizedCrop(side, scale=AREA, ratio=(1.0, 1.0), antialias=True)
    jitter = v2.ColorJitter(BRIGHTNESS, CONTRAST, SATURATION, HUE)
    return flip(torch.stack([jitter(crop(image)) for image in images]))


def _unchanged(images: Tensor) -> Tensor:
    return images
