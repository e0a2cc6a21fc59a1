"""Framing: the images of a generator that others trained, as a target's: cropped, grey or RGB, resized.

PPA clips intensities, crops the centre 800 of 1024 pixels and resizes to the target's side with antialiasing,
in this order (Struppek et al., released code).
Grey is 0.299 R + 0.587 G + 0.114 B (ITU-R 601); RGB of grey repeats it.
"""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from orchestrator.models.generator import StyleGenerator

GREY = (0.299, 0.587, 0.114)
PIXELS = 1 << 22  # of images that are generated together


class Framed(StyleGenerator):
    """A generator whose images (N, C', T, T) become (N, C, S, S).

    `crop`: side of the centre crop, of 1. Large images are generated a part at a time, again for gradients,
    so that memory does not grow with their number.
    """

    def __init__(
        self, generator: StyleGenerator, side: int, *, channels: int, image_size: int, crop: float
    ) -> None:
        super().__init__()
        self.generator = generator
        self.latent_size, self.num_styles = generator.latent_size, generator.num_styles
        self._batch = max(1, PIXELS // side**2)
        self._channels, self._image_size, self._crop = channels, image_size, crop

    @property
    def style_size(self) -> int:
        """Numbers of a style of the generator."""
        return self.generator.style_size

    def styles(self, latents: Tensor, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Return the generator's styles (N, `num_styles`, `style_size`) of latents (N, `latent_size`)."""
        return self.generator.styles(latents, psi, cutoff)

    def synthesize(self, styles: Tensor) -> Tensor:
        """Return framed images (N, C, S, S) of styles (N, `num_styles`, `style_size`), as bounded as the
        generator's."""
        return self._in_batches(styles, clips=False)

    def clipped(self, styles: Tensor) -> Tensor:
        """Return framed images (N, C, S, S) of styles (N, `num_styles`, `style_size`), clipped to [0, 1]
        before they are framed."""
        return self._in_batches(styles, clips=True)

    def forward(self, latents: Tensor) -> Tensor:
        """Return framed images (N, C, S, S) of latents (N, `latent_size`), clipped to [0, 1] before they are
        framed."""
        return self.clipped(self.styles(latents))

    def _in_batches(self, styles: Tensor, *, clips: bool) -> Tensor:
        if len(styles) <= self._batch:
            return self._framed(styles, clips)
        parts = styles.split(self._batch)
        return torch.cat([checkpoint(self._framed, part, clips, use_reentrant=False) for part in parts])

    def _framed(self, styles: Tensor, clips: bool) -> Tensor:
        images, side = self.generator.synthesize(styles), self._image_size
        if clips:
            images = images.clamp(0.0, 1.0)
        images = coloured(cropped(images, self._crop), self._channels)
        if images.shape[3] != side:
            images = functional.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
        return images.clamp(0.0, 1.0) if clips else images  # weights that sum to 1 round


def cropped(images: Tensor, crop: float) -> Tensor:
    """Return the centre of images (N, C, S, S): that share of each side, rounded, at least a pixel."""
    side = images.shape[3]
    kept = max(1, round(crop * side))
    first = (side - kept) // 2
    return images[:, :, first : first + kept, first : first + kept]


def coloured(images: Tensor, channels: int) -> Tensor:
    """Return images (N, 1 or 3, S, S) with 1 or 3 channels."""
    if images.shape[1] == channels:
        return images
    if channels == 1:
        red, green, blue = images.split(1, dim=1)  # a tensor of the shares would be a copy to the device
        return GREY[0] * red + GREY[1] * green + GREY[2] * blue
    return images.expand(-1, channels, -1, -1)
