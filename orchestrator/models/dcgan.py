"""DCGAN: a generator of transposed convolutions that others trained (Radford et al., ICLR 2016).

As in PyTorch's example: a latent vector becomes maps of side 4, each further layer doubles the side; batch
norm and ReLU behind all but the last, tanh behind the last, no bias. Intensities are (x + 1) / 2.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from orchestrator.models.generator import StyleGenerator

KERNEL = 4


class Dcgan(StyleGenerator):
    """G: latents z (N, `latent_size`) -> images (N, C, S, S) in [0, 1], S = 4 * 2^(number of `counts`).

    `counts`: channels of the maps of side 4, 8, ..., S / 2.
    """

    def __init__(self, *, channels: int, counts: Sequence[int], latent_size: int) -> None:
        super().__init__()
        self.latent_size = latent_size
        layers: list[nn.Module] = []
        for before, after in pairwise((latent_size, *counts)):
            layers += [self._layer(before, after, is_first=not layers), nn.BatchNorm2d(after), nn.ReLU()]
        self.main = nn.Sequential(*layers, self._layer(counts[-1], channels), nn.Tanh())

    @staticmethod
    def _layer(inputs: int, outputs: int, *, is_first: bool = False) -> nn.Module:
        stride, padding = (1, 0) if is_first else (2, 1)
        return nn.ConvTranspose2d(inputs, outputs, KERNEL, stride, padding, bias=False)

    def synthesize(self, styles: Tensor) -> Tensor:
        """Return the images (N, C, S, S) in [0, 1] of latents as styles (N, 1, `latent_size`)."""
        images: Tensor = self.main(styles[:, 0, :, None, None])
        return (images + 1.0) / 2.0
