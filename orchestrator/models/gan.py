"""GAN: GMI's generator of images from latent vectors, and the critics that it is trained against.

Zhang et al., "The Secret Revealer" (CVPR 2020), sizes as in the released code, for 32x32 and 64x64 images.
KEDMI, LOMMA and BREPMI search the same generator. `SpectralCritic` is ours: the critic's convolutions under
spectral norm (Miyato et al., ICLR 2018) instead of instance norms, for the hinge loss. `InversionCritic` is
the discriminator of KEDMI (Chen et al., ICCV 2021), as released.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from orchestrator.models.generator import StyleGenerator
from orchestrator.models.outlines import gan_channels, scaled

LATENT_SIZE = 100
KERNEL, START, SLOPE = 5, 4, 0.2  # of convolutions; side of the first maps; of LeakyReLU
KERNELS, KERNEL_SIZE = 64, 50  # of minibatch discrimination


class Generator(StyleGenerator):
    """G: latents z (N, 100), drawn from N(0, 1) -> images (N, C, S, S) in [0, 1], S = 32 or 64.

    The constructor raises `Refused` for another S.
    """

    latent_size = LATENT_SIZE

    def __init__(self, *, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        counts = gan_channels(image_size, width)[::-1]
        first = counts[0] * START * START
        self.seed = nn.Sequential(
            nn.Linear(LATENT_SIZE, first, bias=False),
            nn.BatchNorm1d(first),
            nn.ReLU(),
            nn.Unflatten(1, (counts[0], START, START)),
        )
        doubling = (_up(before, after) for before, after in pairwise(counts))
        self.blocks = nn.Sequential(*doubling, _doubled(counts[-1], channels), nn.Sigmoid())

    def synthesize(self, styles: Tensor) -> Tensor:
        """Return the images (N, C, S, S) in [0, 1] of latents as styles (N, 1, 100)."""
        return self.blocks(self.seed(styles[:, 0]))


class Critic(nn.Module):
    """D of the Wasserstein loss: images (N, C, S, S) in [0, 1] -> how real each is, (N,), unbounded.

    An image's output does not depend on the others: instance norms, as the gradient penalty needs. The
    constructor raises `Refused` for another S than 32 or 64.
    """

    def __init__(self, *, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        counts = gan_channels(image_size, width)
        halving = [_halved(channels, counts[0]), nn.LeakyReLU(SLOPE)]
        for before, after in pairwise(counts):
            halving += [_halved(before, after), nn.InstanceNorm2d(after, affine=True), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*halving, nn.Conv2d(counts[-1], 1, START), nn.Flatten(0))

    def forward(self, images: Tensor) -> Tensor:
        """Return how real each image is, (N,)."""
        return self.layers(images)


class SpectralCritic(nn.Module):
    """D of the hinge loss: as `Critic`, with spectral norms instead of instance norms.

    Each forward pass in training mode takes one power iteration, in evaluation mode none. The constructor
    raises `Refused` for another S than 32 or 64.
    """

    def __init__(self, *, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        counts = (channels, *gan_channels(image_size, width))
        halving: list[nn.Module] = []
        for before, after in pairwise(counts):
            halving += [spectral_norm(_halved(before, after)), nn.LeakyReLU(SLOPE)]
        last = spectral_norm(nn.Conv2d(counts[-1], 1, START))
        self.layers = nn.Sequential(*halving, last, nn.Flatten(0))

    def forward(self, images: Tensor) -> Tensor:
        """Return how real each image is, (N,)."""
        return self.layers(images)


class MinibatchDiscrimination(nn.Module):
    """Features (N, d) -> how near those of the batch are to each, (N, kernels).

    Salimans et al. (2016), section 3.2: o_i = sum over j of exp(-||M_i - M_j||_1) - 1 for each kernel, M the
    features times a tensor that starts at N(0, 1): N - 1 if all rows are equal, 0 for one alone.
    """

    def __init__(self, features: int, kernels: int, size: int) -> None:
        super().__init__()
        self.tensor = nn.Parameter(torch.randn(features, kernels, size))

    def forward(self, features: Tensor, beside: Tensor | None = None) -> Tensor:
        """Return nearness (N, kernels) to each other, or to fixed features (R, d) in their place."""
        own = self._projected(features)
        if beside is None:
            return _nearness(own, own) - 1.0
        return _nearness(own, self._projected(beside))

    def _projected(self, features: Tensor) -> Tensor:
        """Return M, float32 (kernels, N, size)."""
        return (features @ self.tensor.flatten(1)).float().unflatten(1, self.tensor.shape[1:]).transpose(0, 1)


def _nearness(one: Tensor, other: Tensor) -> Tensor:
    return torch.cdist(one, other, p=1.0).neg().exp().sum(dim=2).T


class InversionCritic(nn.Module):
    """D of KEDMI's inversion-specific GAN: images (N, C, S, S) in [0, 1] -> logits of k classes (N, k).

    The logarithm of the sum of their exponentials is how real an image is. In all modes it depends on the
    other images of the batch, by minibatch discrimination. The constructor raises `Refused` for another S
    than 32 or 64.
    """

    def __init__(self, *, classes: int, channels: int, image_size: int, width: float) -> None:
        super().__init__()
        counts = (channels, *gan_channels(64, width)[:3])
        gan_channels(image_size, width)  # refuses other sides
        last = nn.Conv2d(counts[-1], counts[-1], 3, stride=2, padding=1)
        layers: list[nn.Module] = []
        for layer in (*(_halved(before, after) for before, after in pairwise(counts)), last):
            layers += [layer, nn.InstanceNorm2d(layer.out_channels, affine=True), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*layers, nn.Flatten())
        size = counts[-1] * (image_size // 16) ** 2
        kernels = scaled(KERNELS, width)
        self.batch = MinibatchDiscrimination(size, kernels, scaled(KERNEL_SIZE, width))
        self.head = nn.Linear(size + kernels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, k)."""
        return self.logits(self.features(images))

    def features(self, images: Tensor) -> Tensor:
        """Return the features before minibatch discrimination, (N, d): 4096 at 64x64 and full width."""
        return self.layers(images)

    def logits(self, features: Tensor, beside: Tensor | None = None) -> Tensor:
        """Return logits (N, k) of features (N, d), each row compared with the others or, with features (R, d)
        of fixed images, with these alone."""
        return self.head(torch.cat([features, self.batch(features, beside)], dim=1))


def _up(inputs: int, outputs: int) -> nn.Sequential:
    layer = _doubled(inputs, outputs, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def _doubled(inputs: int, outputs: int, *, bias: bool = True) -> nn.ConvTranspose2d:
    """Return a layer (N, C, S, S) -> (N, C', 2S, 2S)."""
    return nn.ConvTranspose2d(inputs, outputs, KERNEL, stride=2, padding=2, output_padding=1, bias=bias)


def _halved(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a layer (N, C, S, S) -> (N, C', S / 2, S / 2)."""
    return nn.Conv2d(inputs, outputs, KERNEL, stride=2, padding=2)
