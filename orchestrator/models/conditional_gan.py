"""Conditional GAN: PLG-MI's generator of images of given classes, and the critic that it is trained against.

Yuan et al., "Pseudo Label-Guided Model Inversion Attack via Conditional GAN" (AAAI 2023), sizes as in the
released code: residual blocks, conditional batch norms, a projection critic with spectral norms (Miyato and
Koyama, ICLR 2018).

Differences: released code is for 64x64 images; for 32x32 both networks are one block shorter, without the
widest. It declares Xavier weights for both and gives them to the critic alone, as here.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from orchestrator.models.outlines import conditional_channels

LATENT_SIZE = 128
START = 4  # side of the first maps


class ConditionalNorm(nn.Module):
    """Batch norm of maps (N, C, S, S) with a gain and a bias for each class, which start at 1 and 0."""

    def __init__(self, classes: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain, self.bias = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, maps: Tensor, classes: Tensor) -> Tensor:
        """Return maps of the same shape; classes (N,) int64."""
        gain, bias = (table(classes)[..., None, None] for table in (self.gain, self.bias))
        return gain * self.norm(maps) + bias


class ConditionalGenerator(nn.Module):
    """G: latents z (N, 128), drawn from N(0, 1), and classes (N,) -> images (N, C, S, S), S = 32 or 64.

    Images are in [0, 1]. With `is_signed` they are the tanh itself, in [-1, 1], while it is trained, as
    released, and clamped to [0, 1] in evaluation mode. The constructor raises `Refused` for another S.
    """

    latent_size = LATENT_SIZE

    def __init__(
        self, *, classes: int, channels: int, image_size: int, width: float, is_signed: bool = False
    ) -> None:
        super().__init__()
        self.is_signed = is_signed
        counts = conditional_channels(image_size, width)[::-1]
        first = nn.Linear(LATENT_SIZE, counts[0] * START * START)
        self.seed = nn.Sequential(first, nn.Unflatten(1, (counts[0], START, START)))
        self.blocks = nn.ModuleList(_Up(classes, before, after) for before, after in pairwise(counts))
        last = nn.Conv2d(counts[-1], channels, 1)
        self.image = nn.Sequential(nn.BatchNorm2d(counts[-1]), nn.ReLU(), last, nn.Tanh())

    def forward(self, latents: Tensor, classes: Tensor) -> Tensor:
        """Return images (N, C, S, S) of classes (N,) int64."""
        maps = self.seed(latents)
        for block in self.blocks:
            maps = block(maps, classes)
        images: Tensor = self.image(maps)
        if not self.is_signed:
            return (images + 1.0) / 2.0
        return images if self.training else images.clamp(0.0, 1.0)


class ProjectionCritic(nn.Module):
    """D: images (N, C, S, S) and classes (N,) -> how real each is as one of its class, (N,), unbounded.

    Each forward pass in training mode takes one power iteration, in evaluation mode none. The constructor
    raises `Refused` for another S than 32 or 64.
    """

    def __init__(self, *, classes: int, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        counts = conditional_channels(image_size, width)
        blocks = [_Down(before, before, after) for before, after in pairwise(counts)]
        self.layers = nn.Sequential(_Down(channels, counts[0], counts[0], is_first=True), *blocks, nn.ReLU())
        self.head = _normed(nn.Linear(counts[-1], 1))
        self.classes = _normed(nn.Embedding(classes, counts[-1]))

    def forward(self, images: Tensor, classes: Tensor) -> Tensor:
        """Return how real each image is, (N,), for classes (N,) int64."""
        features = self.layers(images).sum(dim=(2, 3))
        return self.head(features)[:, 0] + (self.classes(classes) * features).sum(dim=1)


class _Up(nn.Module):
    """Maps (N, C, S, S) and classes (N,) -> (N, C', 2S, 2S)."""

    def __init__(self, classes: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = ConditionalNorm(classes, inputs), ConditionalNorm(classes, outputs)
        self.widen = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.refine = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, maps: Tensor, classes: Tensor) -> Tensor:
        changed = self.widen(_doubled(self.first(maps, classes).relu()))
        changed = self.refine(self.second(changed, classes).relu())
        return changed + self.shortcut(_doubled(maps))


class _Down(nn.Module):
    """Maps (N, C, S, S) -> (N, C', S / 2, S / 2); the first block reads an image, which no ReLU may cut."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, is_first: bool = False) -> None:
        super().__init__()
        before = nn.Identity() if is_first else nn.ReLU()
        first = _normed(nn.Conv2d(inputs, hidden, 3, padding=1), gain=2**0.5)
        second = _normed(nn.Conv2d(hidden, outputs, 3, padding=1), gain=2**0.5)
        self.change = nn.Sequential(before, first, nn.ReLU(), second, nn.AvgPool2d(2))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), _normed(nn.Conv2d(inputs, outputs, 1)))

    def forward(self, maps: Tensor) -> Tensor:
        changed: Tensor = self.change(maps)
        return changed + self.shortcut(maps)


def _doubled(maps: Tensor) -> Tensor:
    return functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)


def _normed(layer: nn.Conv2d | nn.Linear | nn.Embedding, gain: float = 1.0) -> nn.Module:
    """Return a layer of Xavier weights under spectral norm."""
    torch.nn.init.xavier_uniform_(layer.weight, gain)
    return spectral_norm(layer)
