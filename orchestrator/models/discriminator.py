"""Discriminator: strided convolutions down to 4x4, then one logit (after DCGAN, Radford 2016)."""

from itertools import pairwise

from torch import Tensor, nn

from orchestrator.models.outlines import DISCRIMINATOR_CHANNELS, count_halvings


class Discriminator(nn.Module):
    """D: images (N, C, S, S) in [0, 1], S = 8, 16, 32 or 64 -> logits of being real (N, 1).

    The constructor raises `Refused` for another S.
    """

    def __init__(self, *, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        halvings = count_halvings(image_size)
        counts = (channels, *(max(4, round(count * width)) for count in DISCRIMINATOR_CHANNELS[:halvings]))
        blocks = (
            nn.Sequential(nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2))
            for before, after in pairwise(counts)
        )
        self.layers = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(counts[-1] * 4 * 4, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, 1)."""
        return self.layers(images)
