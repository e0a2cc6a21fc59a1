"""Generators by way of styles: one without a mapping has z itself as its only style."""

import torch

from orchestrator.models.gan import Generator


def test_without_a_mapping_the_style_is_the_latent() -> None:
    torch.manual_seed(0)
    generator = Generator(channels=1, image_size=32, width=0.1).eval()
    latents = torch.randn(3, generator.latent_size)
    styles = generator.styles(latents, psi=0.5, cutoff=8)
    assert (generator.num_styles, generator.style_size) == (1, generator.latent_size)
    assert torch.equal(styles, latents[:, None])
    assert torch.equal(generator.synthesize(styles), generator(latents))
