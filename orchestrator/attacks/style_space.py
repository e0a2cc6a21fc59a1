"""Style space: images of one style w that all layers of a generator read, and P space (MIRROR, section IV).

P space lies before the last activation of the mapping, a LeakyReLU of slope 0.2: p = LeakyReLU_5(w), nearly
normal. A box around the mean of p is a box of w too, since the map is monotone in each number.
A generator without a mapping has z as its style: nothing is truncated, and P space is z.
"""

import torch
from torch import Tensor
from torch.nn import functional

from orchestrator.attacks.latent import normal_rows
from orchestrator.models.generator import StyleGenerator

SLOPE = 0.2  # of the mapping's last activation
BATCH = 10_000  # latents that are mapped together


class StyleSpace(StyleGenerator):
    """A generator of images from single styles w (N, d); its latents are they.

    `psi`, `cutoff`: truncation of the first layers before synthesis; images are clipped to [0, 1], before
    they are cropped and resized, unless `clips` is False.
    """

    def __init__(self, generator: StyleGenerator, psi: float, cutoff: int, *, clips: bool = True) -> None:
        super().__init__()
        self._clips = clips
        self.latent_size = generator.style_size
        self._generator, self._psi, self._cutoff = generator, psi, cutoff

    @property
    def has_mapping(self) -> bool:
        """Whether w is mapped from z rather than z itself."""
        return self._generator.num_styles > 1

    def synthesize(self, styles: Tensor) -> Tensor:
        """Return the images (N, C, S, S) of styles w (N, 1, d), in [0, 1] where it clips."""
        repeated = styles.repeat(1, self._generator.num_styles, 1)
        if self.has_mapping:
            first = self.truncated(repeated[:, : self._cutoff])
            repeated = torch.cat([first, repeated[:, self._cutoff :]], dim=1)
        make = self._generator.clipped if self._clips else self._generator.synthesize
        return make(repeated)

    def truncated(self, styles: Tensor) -> Tensor:
        """Return styles w (..., d) moved towards their mean."""
        mean = self._mean(styles.device)
        return mean + self._psi * (styles - mean)

    def _mean(self, device: torch.device) -> Tensor:
        """Return the mean w (d,), where truncation to nothing leads."""
        origin = torch.zeros(1, self._generator.latent_size, device=device)
        with torch.no_grad():
            return self._generator.styles(origin, psi=0.0)[0, 0]

    @torch.no_grad()
    def drawn(self, number: int, device: torch.device, *key: object) -> Tensor:
        """Draw styles w of z from N(0, 1) by a key, not truncated, (number, d) on the CPU."""
        shape = (number, self._generator.latent_size)
        latents = normal_rows(torch.zeros(1), shape, *key)[0]
        return torch.cat(
            [self._generator.styles(batch.to(device))[:, 0].cpu() for batch in latents.split(BATCH)]
        )

    def to_p(self, styles: Tensor) -> Tensor:
        """Return styles (..., d) in P space."""
        return functional.leaky_relu(styles, 1 / SLOPE) if self.has_mapping else styles

    def from_p(self, numbers: Tensor) -> Tensor:
        """Return the styles (..., d) of numbers in P space."""
        return functional.leaky_relu(numbers, SLOPE) if self.has_mapping else numbers

    def bounds(self, styles: Tensor, deviations: float) -> tuple[Tensor, Tensor]:
        """Return the least and the largest w, (d,) each, within `deviations` standard deviations of the
        mean of styles (N, d), in P space."""
        numbers = self.to_p(styles)
        mean, spread = numbers.mean(dim=0), deviations * numbers.std(dim=0, correction=0)
        return self.from_p(mean - spread), self.from_p(mean + spread)
