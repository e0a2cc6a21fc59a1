"""Generator: the base of all generators of a prior, latents -> styles -> images.

Attacks search z, or the styles w that the images are made of (PPA, MIRROR, VMI). A generator without a
mapping has one style, z itself; one with a mapping (StyleGAN2) has `num_styles`, `style_size` and `styles` of
its own.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class StyleGenerator(nn.Module, ABC):
    """Latents z (N, `latent_size`), drawn from N(0, 1) -> images (N, C, S, S) in [0, 1]."""

    latent_size: int
    """Numbers of z."""

    num_styles: int = 1
    """Styles of one image: layers that read one, or 1 where the images are made of z itself."""

    @property
    def style_size(self) -> int:
        """Numbers of a style; here those of z."""
        return self.latent_size

    def styles(self, latents: Tensor, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """Return the styles (N, `num_styles`, `style_size`) of latents (N, `latent_size`).

        Truncation moves the first `cutoff` styles (None: all) towards their mean, of which the share 1 - psi
        remains; where z itself is the style there is no mapping to truncate, and both are without effect.
        """
        return latents[:, None]

    @abstractmethod
    def synthesize(self, styles: Tensor) -> Tensor:
        """Return the images (N, C, S, S) of styles (N, `num_styles`, `style_size`), in [0, 1] where the last
        layer is bounded; StyleGAN2's is not, and its images are not clipped here."""

    def clipped(self, styles: Tensor) -> Tensor:
        """Return the images (N, C, S, S) of styles (N, `num_styles`, `style_size`), clipped to [0, 1]."""
        return self.synthesize(styles).clamp(0.0, 1.0)

    def forward(self, latents: Tensor) -> Tensor:
        """Return the images (N, C, S, S) of latents (N, `latent_size`), in [0, 1]."""
        return self.synthesize(self.styles(latents))
