"""Discriminator: strided convolutions down to 4x4, then one logit (after DCGAN, Radford 2016)."""

from itertools import pairwise

from torch import Tensor, nn

from orchestrator.config.base import Refused

CHANNELS = (64, 128, 256, 512)
"""Output channels of each halving of the side; the last layers are used by larger images only."""


class Discriminator(nn.Module):
    """D: images (N, C, S, S) in [0, 1], S = 8, 16, 32 or 64 -> logits of being real (N, 1).

    The constructor raises `Refused` for another S.
    """

    def __init__(self, *, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        halvings = (image_size // 4).bit_length() - 1
        if halvings < 1 or 4 * 2**halvings != image_size or halvings > len(CHANNELS):
            rule = "must be 8, 16, 32 or 64 for attack.losses.adversarial"
            raise Refused("data.image_size", image_size, rule, "change the size or set the weight to 0")
        counts = (channels, *(max(4, round(count * width)) for count in CHANNELS[:halvings]))
        blocks = (
            nn.Sequential(nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2))
            for before, after in pairwise(counts)
        )
        self.layers = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(counts[-1] * 4 * 4, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, 1)."""
        return self.layers(images)
