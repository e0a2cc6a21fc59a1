"""DCGAN: the parameters of a public file, shapes and ranges, the formula of its last layer."""

from itertools import pairwise

import torch

from orchestrator.models.dcgan import Dcgan


def test_parameters_of_the_generator_for_64() -> None:
    """Kernels of 4x4 without bias, two numbers for each map of a batch norm."""
    with torch.device("meta"):
        network = Dcgan(channels=3, counts=(512, 256, 128, 64), latent_size=100)
    counts = (100, 512, 256, 128, 64, 3)
    kernels = sum(16 * before * after for before, after in pairwise(counts))
    assert sum(one.numel() for one in network.parameters()) == kernels + 2 * (512 + 256 + 128 + 64)


def test_images_are_in_the_unit_range_and_depend_on_their_latent_alone() -> None:
    torch.manual_seed(0)
    network = Dcgan(channels=2, counts=(6, 4), latent_size=5).eval()
    latents = 50 * torch.randn(3, 5)
    images = network(latents)
    assert images.shape == (3, 2, 16, 16)
    assert images.min() >= 0.0
    assert images.max() <= 1.0
    assert torch.equal(images, (network.main(latents[:, :, None, None]) + 1) / 2)
    torch.testing.assert_close(network(latents[1:2]), images[1:2])
