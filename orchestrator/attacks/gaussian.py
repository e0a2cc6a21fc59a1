"""Gaussian: normal distributions with a mean and a deviation of each number, many at a time, for VMI.

Difference: the `layeredminegan` of Wang et al. (NeurIPS 2021) has full covariances, and leaves the constants
out of its divergence.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """Distributions of vectors of `size` numbers; their parameters are means and logarithms of deviations."""

    size: int

    @property
    def num_shared(self) -> int:
        """Numbers of the noise that all distributions of a row have in common: all."""
        return self.size

    @property
    def num_parameters(self) -> int:
        """Numbers of the parameters of one distribution."""
        return 2 * self.size

    def begun(self, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the parameters (number, P) of N(0, I), and nothing that is fixed, (number, 0)."""
        return torch.zeros(number, self.num_parameters), torch.zeros(number, 0, dtype=torch.int16)

    def drawn(self, parameters: Tensor, fixed: Tensor, noise: Tensor) -> Tensor:
        """Return values (F, N, size) of noise from N(0, I) of that shape, for parameters (F, P)."""
        mean, log_deviation = parameters[:, None].chunk(2, dim=2)
        return mean + log_deviation.exp() * noise

    def divergence(self, parameters: Tensor, fixed: Tensor, noise: Tensor) -> Tensor:
        """Return the Kullback-Leibler divergence from N(0, I) in nats, (F,): in closed form."""
        mean, log_deviation = parameters.chunk(2, dim=1)
        own = mean.square() + (2 * log_deviation).exp() - 1 - 2 * log_deviation
        return 0.5 * own.sum(dim=1)
