"""Flow: normalising flows of vectors (Glow with images of one pixel, as VMI uses it), many at a time.

Wang et al. (NeurIPS 2021), released code: three levels of ten steps of ActNorm, a fixed permutation and an
additive coupling of halves; after each level but the last half of the numbers leave, with a Gaussian whose
mean and logarithmic scale are linear in the other half (even outputs and odd ones). ActNorm is
y = (x + b) exp(s). The last layers of couplings and Gaussians begin at 0 and are multiplied by exp(3 s).

Differences: their convolutions see one pixel, so that only the centre of a kernel acts; here they are linear
layers, the same function of 1,400,256 numbers in place of 9,878,976 at 512. Numbers are float32, theirs
float64. Permutations are part of the state, which theirs leaves out. An odd number of values leaves the
larger half in its place. The density of a draw is computed as it is drawn, not by the way back. Weights of
hidden layers begin at N(0, 0.05), which was not read.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

HIDDEN = 0.05  # deviation of the first weights of hidden layers
NORMALISED = 100  # draws that normalisations begin with
LOG_TWO_PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Flow:
    """Flows of one shape: their sizes, first parameters, draws and divergence.

    `is_normalised`: whether normalisations begin with what 100 draws from N(0, I) need, as released, rather
    than as the identity, with which a flow is N(0, I) itself.
    """

    size: int
    levels: int
    couplings: int
    width: int
    is_normalised: bool

    @property
    def sizes(self) -> list[int]:
        """Numbers of each level, early to late: those that remain of the level before."""
        found = [self.size]
        while len(found) < self.levels and kept(found[-1]) > 1:
            found.append(kept(found[-1]))
        return found

    @property
    def num_shared(self) -> int:
        """Numbers of the last level, the only noise that all flows of a row have in common."""
        return self.sizes[-1]

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of the parameters of one flow, in the order of a flat vector."""
        found: dict[str, tuple[int, ...]] = {}
        for level, count in enumerate(self.sizes):
            for step in range(self.couplings):
                found |= self._coupling(f"{level}.{step}.", count)
            if level < len(self.sizes) - 1:
                left = kept(count)
                found |= _last(f"{level}.split.", left, 2 * (count - left))
        return found

    @property
    def num_parameters(self) -> int:
        """Numbers of one flow."""
        return sum(math.prod(shape) for shape in self.parameters.values())

    def _coupling(self, prefix: str, count: int) -> dict[str, tuple[int, ...]]:
        left = kept(count)
        return {
            **_norm(f"{prefix}norm.", count),
            f"{prefix}first": (left, self.width),
            **_norm(f"{prefix}first.norm.", self.width),
            f"{prefix}second": (self.width, self.width),
            **_norm(f"{prefix}second.norm.", self.width),
            **_last(f"{prefix}last.", self.width, count - left),
        }

    def begun(self, number: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the first parameters (number, P), and permutations as int16 (number, Q)."""
        drawn = [(self._parameters(generator), self._permutations(generator)) for _ in range(number)]
        parameters, permutations = (torch.stack(parts) for parts in zip(*drawn, strict=True))
        if self.is_normalised:
            noise = torch.randn(number, NORMALISED, self.size, generator=generator)
            Flows(self, parameters, permutations).normalise(noise)
        return parameters, permutations

    def drawn(self, parameters: Tensor, fixed: Tensor, noise: Tensor) -> Tensor:
        """Return values (F, N, size) of noise from N(0, I) of that shape, for parameters (F, P) and
        permutations (F, Q)."""
        return Flows(self, parameters, fixed).decoded(noise)[0]

    def divergence(self, parameters: Tensor, fixed: Tensor, noise: Tensor) -> Tensor:
        """Return the mean over draws of log q - log N(0, I), (F,) in nats, of noise (F, N, size)."""
        values, density = Flows(self, parameters, fixed).decoded(noise)
        return (density - log_normal(values)).mean(dim=1)

    @property
    def permuted(self) -> list[int]:
        """Numbers that each permutation orders, in the order of couplings."""
        return [count for count in self.sizes for _ in range(self.couplings)]

    def _parameters(self, generator: torch.Generator) -> Tensor:
        """Draw the parameters of one flow, (P,): the identity up to permutations."""
        parts = []
        for name, shape in self.parameters.items():
            is_hidden = name.endswith((".first", ".second"))
            drawn = HIDDEN * torch.randn(shape, generator=generator) if is_hidden else torch.zeros(shape)
            parts.append(drawn.flatten())
        return torch.cat(parts)

    def _permutations(self, generator: torch.Generator) -> Tensor:
        every = [torch.randperm(count, generator=generator) for count in self.permuted]
        return torch.cat(every).to(torch.int16)


class Flows:
    """F flows of one shape, of parameters (F, P) and permutations (F, Q)."""

    def __init__(self, shape: Flow, parameters: Tensor, permutations: Tensor) -> None:
        self.shape = shape
        names = shape.parameters
        parts = parameters.split([math.prod(one) for one in names.values()], dim=1)
        self._of = {
            name: part.unflatten(1, one) for (name, one), part in zip(names.items(), parts, strict=True)
        }
        places = [f"{level}.{step}." for level in range(len(shape.sizes)) for step in range(shape.couplings)]
        orders = permutations.long().split(shape.permuted, dim=1)
        self._order = dict(zip(places, orders, strict=True))

    def decoded(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (F, N, size) of noise from N(0, I), (F, N, size), and the logarithm of their
        density, (F, N)."""
        sizes = self.shape.sizes
        values, noise = noise[..., : sizes[-1]], noise[..., sizes[-1] :]
        density = log_normal(values)
        for level in reversed(range(len(sizes))):
            if level < len(sizes) - 1:
                mean, log_scale = self._split(level, values)
                own, noise = noise[..., : mean.shape[2]], noise[..., mean.shape[2] :]
                density = density + log_normal(own) - log_scale.sum(dim=2)
                values = torch.cat([values, mean + log_scale.exp() * own], dim=2)
            for step in reversed(range(self.shape.couplings)):
                values = self._backward(f"{level}.{step}.", values)
        return values, density + self._volume()

    def encoded(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of values, (F, N, size) each, and the logarithm of their density, (F, N)."""
        density: Tensor | float = self._volume()
        left: list[Tensor] = []
        for level, count in enumerate(self.shape.sizes):
            for step in range(self.shape.couplings):
                values = self._forward(f"{level}.{step}.", values)
            if level < len(self.shape.sizes) - 1:
                values, gone = values[..., : kept(count)], values[..., kept(count) :]
                mean, log_scale = self._split(level, values)
                left.insert(0, (gone - mean) * (-log_scale).exp())
                density = density + log_normal(left[0]) - log_scale.sum(dim=2)
        return torch.cat([values, *left], dim=2), density + log_normal(values)

    @torch.no_grad()
    def normalise(self, values: Tensor) -> None:
        """Set every normalisation, in place, so that values (F, N, size) leave it with mean 0 and deviation
        1."""
        for level, count in enumerate(self.shape.sizes):
            for step in range(self.shape.couplings):
                place = f"{level}.{step}."
                self._fit(place + "norm.", values)
                hidden = self._permuted(place, self._normed(place + "norm.", values))[..., : kept(count)]
                for layer in ("first", "second"):
                    hidden = hidden @ self._of[place + layer]
                    self._fit(f"{place}{layer}.norm.", hidden)
                    hidden = functional.elu(self._normed(f"{place}{layer}.norm.", hidden))
                values = self._forward(place, values)
            values = values[..., : kept(count)]

    def _fit(self, name: str, values: Tensor) -> None:
        self._of[name + "bias"].copy_(-values.mean(dim=1))
        spread = (values + self._of[name + "bias"][:, None]).square().mean(dim=1).sqrt()
        self._of[name + "scale"].copy_(-(spread + 1e-6).log())

    def _forward(self, place: str, values: Tensor) -> Tensor:
        values = self._permuted(place, self._normed(place + "norm.", values))
        left = kept(values.shape[2])
        first, second = values[..., :left], values[..., left:]
        return torch.cat([first, second + self._coupled(place, first)], dim=2)

    def _backward(self, place: str, values: Tensor) -> Tensor:
        left = kept(values.shape[2])
        first, second = values[..., :left], values[..., left:]
        values = torch.cat([first, second - self._coupled(place, first)], dim=2)
        order = self._order[place].argsort(dim=1)[:, None].expand_as(values)
        name = place + "norm."
        scale, bias = self._of[name + "scale"][:, None], self._of[name + "bias"][:, None]
        return values.gather(2, order) * (-scale).exp() - bias

    def _permuted(self, place: str, values: Tensor) -> Tensor:
        return values.gather(2, self._order[place][:, None].expand_as(values))

    def _normed(self, name: str, values: Tensor) -> Tensor:
        return (values + self._of[name + "bias"][:, None]) * self._of[name + "scale"][:, None].exp()

    def _coupled(self, place: str, values: Tensor) -> Tensor:
        for layer in ("first", "second"):
            values = functional.elu(self._normed(f"{place}{layer}.norm.", values @ self._of[place + layer]))
        return self._ended(place + "last.", values)

    def _ended(self, name: str, values: Tensor) -> Tensor:
        """Return what a layer that begins at 0 makes of values."""
        scaled = values @ self._of[name + "weight"] + self._of[name + "bias"][:, None]
        return scaled * (3 * self._of[name + "scale"][:, None]).exp()

    def _split(self, level: int, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithmic scale (F, N, ...) of the numbers that leave after a level."""
        made = self._ended(f"{level}.split.", values)
        return made[..., ::2], made[..., 1::2]

    def _volume(self) -> Tensor:
        """Return the logarithm of the factor by which volumes shrink on the way back, (F, 1)."""
        scales = [self._of[place + "norm.scale"].sum(dim=1) for place in self._order]
        return torch.stack(scales).sum(dim=0)[:, None]


def kept(count: int) -> int:
    """Return how many of a level's numbers a coupling leaves in place, and go on to the next level."""
    return count - count // 2


def _norm(prefix: str, count: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}bias": (count,), f"{prefix}scale": (count,)}


def _last(prefix: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}weight": (inputs, outputs), **_norm(prefix, outputs)}


def log_normal(values: Tensor) -> Tensor:
    """Return the logarithm of the density of N(0, I) at values (F, N, d), (F, N)."""
    return -0.5 * (values.square() + LOG_TWO_PI).sum(dim=2)
