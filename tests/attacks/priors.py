"""Small priors for attacks: a linear generator, a linear critic, a linear target of 8x8 images."""

from typing import Any

import torch
from torch import Tensor, nn

from orchestrator import config
from orchestrator.attacks.latent import GenerativePrior
from orchestrator.models.generator import StyleGenerator
from orchestrator.threat import BlackBox, FeatureBox, WhiteBox

SIDE, SIZE, CLASSES = 8, 6, 8


class Generator(StyleGenerator):
    """Sigmoid of a linear map of z (N, SIZE), which a conditional search shifts by its classes."""

    latent_size = SIZE

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(SIZE, SIDE * SIDE)

    def forward(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        shift = 0.0 if classes is None else (classes[:, None] - 3.5) / 10
        return super().forward(latents + shift)

    def synthesize(self, styles: Tensor) -> Tensor:
        return (4 * self.linear(styles[:, 0])).sigmoid().view(-1, 1, SIDE, SIDE)


class Styled(Generator):
    """The same, of a weighted mean of three styles w of 4 numbers; the mapping is linear with a LeakyReLU."""

    num_styles = 3
    style_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Linear(SIZE, 4)
        self.layers = nn.Linear(4, SIZE, bias=False)
        self.mean = nn.Parameter(torch.tensor([0.5, -0.1, 0.3, 0.0]))

    def styles(self, latents: Tensor, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        w = nn.functional.leaky_relu(self.mapping(latents), 0.2)[:, None].repeat(1, 3, 1)
        w[:, :cutoff] = self.mean + psi * (w[:, :cutoff] - self.mean)
        return w

    def synthesize(self, styles: Tensor) -> Tensor:
        weights = torch.tensor([1.0, 2.0, 3.0])[:, None] / 6
        return super().synthesize(self.layers((weights * styles).sum(dim=1, keepdim=True)))


class Critic(nn.Module):
    """A linear map of an image, and logits of classes that depend on images beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(SIDE * SIDE, 1)
        self.classes = nn.Linear(SIDE * SIDE, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(self.features(images))[:, 0]

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def logits(self, features: Tensor, beside: Tensor) -> Tensor:
        return self.classes(features - beside.mean(dim=0))


class Parted(nn.Module):
    """A chain of layers as a classifier whose head is the last of them."""

    def __init__(self, chain: nn.Sequential) -> None:
        super().__init__()
        self.features, self.head = chain[:-1], chain[-1]

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


def small_prior(generator: type[Generator] = Generator) -> GenerativePrior:
    """Return the prior of a fixed seed, with three students and the mean of the target's features."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made, critic = generator(), Critic()
        linears = (nn.Linear(SIDE * SIDE, CLASSES) for _ in range(3))
        students = [nn.Sequential(nn.Flatten(), linear) for linear in linears]
    return GenerativePrior(made, critic, students, torch.full((SIDE * SIDE,), 0.5))


def small_network() -> nn.Sequential:
    """Return the target's network of a fixed seed."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        linear = nn.Linear(SIDE * SIDE, CLASSES)
    # So that a grey image is of no class rather than another.
    linear.bias = nn.Parameter(-0.5 * linear.weight.detach().sum(dim=1))
    return nn.Sequential(nn.Flatten(), linear)


def small_target() -> WhiteBox:
    """Return the target whose weights the adversary has."""
    return WhiteBox(small_network())


def boxed(network: nn.Module, access: str) -> Any:
    """Return a target as an attack with access to labels, scores, gradients or features has it."""
    if access == "gradients":
        return WhiteBox(network)
    if access == "features":
        assert isinstance(network, nn.Sequential)
        return FeatureBox(Parted(network))
    assert access in ("labels", "scores")
    return BlackBox(network, config.Release(labels_only=access == "labels"))


class Line(StyleGenerator):
    """G(z) = z: one number, one pixel."""

    latent_size = 1

    def synthesize(self, styles: Tensor) -> Tensor:
        return styles[..., None]


class Slope(nn.Module):
    """D(x) = slope * x."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, images: Tensor) -> Tensor:
        return self.slope * images.flatten(1)[:, 0]


def on_a_line(slope: float) -> tuple[WhiteBox, GenerativePrior]:
    """Return a target with logits (z, 0) and a prior with D(G(z)) = slope * z."""
    linear = nn.Linear(1, 2)
    linear.weight = nn.Parameter(torch.tensor([[1.0], [0.0]]))
    linear.bias = nn.Parameter(torch.zeros(2))
    return WhiteBox(nn.Sequential(nn.Flatten(), linear)), GenerativePrior(Line(), Slope(slope))
