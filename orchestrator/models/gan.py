"""GAN: GMI's generator of images from latent vectors, and the critics that it is trained against.

Zhang et al., "The Secret Revealer" (CVPR 2020), sizes as in the released code, for 32x32 and 64x64 images.
KEDMI, LOMMA and BREPMI search the same generator. `SpectralCritic` is ours: the critic's convolutions under
spectral norm (Miyato et al., ICLR 2018) instead of instance norms, for the hinge loss.
"""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from orchestrator.models.outlines import gan_channels

LATENT_SIZE = 100
KERNEL, START, SLOPE = 5, 4, 0.2  # of convolutions; side of the first maps; of LeakyReLU


class Generator(nn.Module):
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

    def forward(self, latents: Tensor) -> Tensor:
        """Return images (N, C, S, S) in [0, 1]."""
        return self.blocks(self.seed(latents))


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


def _up(inputs: int, outputs: int) -> nn.Sequential:
    layer = _doubled(inputs, outputs, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def _doubled(inputs: int, outputs: int, *, bias: bool = True) -> nn.ConvTranspose2d:
    """Return a layer (N, C, S, S) -> (N, C', 2S, 2S)."""
    return nn.ConvTranspose2d(inputs, outputs, KERNEL, stride=2, padding=2, output_padding=1, bias=bias)


def _halved(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a layer (N, C, S, S) -> (N, C', S / 2, S / 2)."""
    return nn.Conv2d(inputs, outputs, KERNEL, stride=2, padding=2)
