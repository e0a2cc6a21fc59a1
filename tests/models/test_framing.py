"""Framing: crops, grey by hand, sides, memory of many images, and a generator that stays a generator."""

import pytest
import torch
from torch import Tensor

from orchestrator.models import framing
from orchestrator.models.framing import Framed, coloured, cropped
from orchestrator.models.generator import StyleGenerator
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


def test_forward_is_synthesis_clipped() -> None:
    latents = torch.randn(2, LATENT)
    network = framed(channels=1, image_size=8, crop=0.75)
    images = network.synthesize(network.styles(latents))
    assert images.shape == (2, 1, 8, 8)
    assert torch.equal(network(latents), images.clamp(0, 1))


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
