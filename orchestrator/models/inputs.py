"""Input layers: resizing and scaling of images before a network's first layer."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

# torchvision.transforms' normalisation for its ImageNet weights, RGB of [0, 1].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Resized(nn.Module):
    """Images (N, C, S, S) -> (N, C, side, side), bilinear with antialias."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        """Return images (N, C, side, side)."""
        return functional.interpolate(images, size=(self.side, self.side), mode="bilinear", antialias=True)


class Scaled(nn.Module):
    """Images (N, C, S, S) in [0, 1] -> standardised by ImageNet's moments, or in [-1, 1] (`signed`)."""

    mean: Tensor
    std: Tensor

    def __init__(self, scaling: Literal["imagenet", "signed"]) -> None:
        super().__init__()
        self.scaling = scaling
        if scaling == "imagenet":
            # On the network's device, so that no forward pass copies them there; not in its state.
            self.register_buffer("mean", torch.tensor(IMAGENET_MEAN), persistent=False)
            self.register_buffer("std", torch.tensor(IMAGENET_STD), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return images (N, C, S, S); grey ones are standardised by the mean over ImageNet's channels."""
        if self.scaling == "signed":
            return images * 2.0 - 1.0
        mean, std = self.mean.to(images), self.std.to(images)
        if images.shape[1] == 1:
            mean, std = mean.mean()[None], std.mean()[None]
        return (images - mean[:, None, None]) / std[:, None, None]
