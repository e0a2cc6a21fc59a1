"""Framing: crops, grey by hand, sides, memory of many images, and a generator that stays a generator."""

import pytest
import torch
from torch import Tensor

from orchestrator.models import framing
from orchestrator.models.framing import Framed, coloured, cropped
from orchestrator.models.generator import StyleGenerator
from tests.models.operators import Operators
from tests.models.stylegans import LATENT, SIDE, small


def framed(*, channels: int = 3, image_size: int = SIDE, crop: float = 1.0) -> Framed:
    return Framed(small(), SIDE, channels=channels, image_size=image_size, crop=crop)


def test_the_centre_of_an_image() -> None:
    row = torch.arange(1024.0).expand(1, 1, 1024, 1024)
    kept = cropped(row, 800 / 1024)
    assert kept.shape == (1, 1, 800, 800)
    assert (kept[0, 0, 0, 0], kept[0, 0, 0, -1]) == (112, 911)
    assert cropped(torch.rand(2, 3, 7, 7), 0.01).shape == (2, 3, 1, 1)


def test_grey_of_rgb_and_rgb_of_grey() -> None:
    image = torch.tensor([1.0, 0.5, 0.25]).view(1, 3, 1, 1)
    assert coloured(image, 1).item() == pytest.approx(0.299 + 0.5 * 0.587 + 0.25 * 0.114)
    assert coloured(image[:, :1], 3).flatten().tolist() == [1.0, 1.0, 1.0]
    assert coloured(image, 3) is image


def test_without_a_change_it_is_the_generator_itself() -> None:
    latents, network = torch.randn(2, LATENT), small()
    whole = framed()
    assert isinstance(whole, StyleGenerator)
    assert (whole.num_styles, whole.style_size) == (network.num_styles, network.style_size)
    assert torch.equal(whole(latents), network(latents))
    assert torch.equal(whole.styles(latents, 0.5, 2), network.styles(latents, 0.5, 2))


def test_images_are_clipped_before_they_are_framed() -> None:
    """Stripes of -1 and 1, and of -2 and 2, are black and white, of which half the side is grey; clipped
    afterwards it would be black."""

    class Stripes(StyleGenerator):
        latent_size = 1

        def synthesize(self, styles: Tensor) -> Tensor:
            one = torch.tensor([-1.0, 1.0]).repeat(8).expand(len(styles), 1, 16, 16)
            return one * torch.tensor([1.0, 2.0])[: len(styles), None, None, None]

    network = Framed(Stripes(), 16, channels=1, image_size=8, crop=1.0)
    latents = torch.zeros(2, 1)
    styles = network.styles(latents)
    grey = torch.full((2, 1, 8, 4), 0.5)
    for images in (network(latents), network.clipped(styles)):
        torch.testing.assert_close(images[..., 2:-2], grey, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(network.synthesize(styles)[..., 2:-2], 0 * grey)
    unframed = network.generator.clipped(styles)
    assert torch.equal(unframed, network.generator.synthesize(styles).clamp(0, 1))


def test_forward_is_the_generators_framed() -> None:
    latents, network = torch.randn(2, LATENT), framed(channels=1, image_size=8, crop=0.75)
    images = coloured(cropped(small()(latents), 0.75), 1)
    assert images.shape == (2, 1, 12, 12)
    expected = torch.nn.functional.interpolate(images, size=(8, 8), mode="bilinear", antialias=True)
    torch.testing.assert_close(network(latents), expected)
    assert 0.0 <= network(latents).min() <= network(latents).max() <= 1.0
    torch.testing.assert_close(network.clipped(network.styles(latents)), expected)


def test_a_forward_pass_brings_no_numbers_to_the_device() -> None:
    """StyleGAN2's filters and the shares of grey are there."""
    latents, network = torch.randn(2, LATENT), framed(channels=1, image_size=8, crop=0.75)
    with Operators() as operators:
        network(latents)
    assert not {"aten.lift_fresh.default", "aten._to_copy.default"} & operators.names


def test_parts_and_their_gradients_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    styles = small().styles(torch.randn(5, LATENT)).clone()

    def gradient() -> tuple[Tensor, Tensor]:
        variable = styles.clone().requires_grad_()
        images = framed(image_size=8).synthesize(variable)
        (slope,) = torch.autograd.grad(images.square().sum(), variable)
        return images, slope

    whole = gradient()
    monkeypatch.setattr(framing, "PIXELS", 2 * SIDE**2)
    for one, other in zip(gradient(), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
