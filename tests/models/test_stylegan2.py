"""StyleGAN2: published parameter counts, numbers that NVIDIA's own code gave, properties of its algebra."""

import pytest
import torch
from torch import Tensor

from orchestrator.models.stylegan2 import StyleGan2, channel_counts, enlarged, smoothed, smoothing
from tests.models.stylegans import LATENT, SIDE, STYLE, drawn_state, small


@pytest.mark.parametrize(
    ("image_size", "base", "count"),
    [
        (1024, 32_768, 30_370_060),
        (512, 32_768, 30_276_583),
        (256, 32_768, 30_034_338),
        (128, 32_768, 29_328_669),
        (64, 32_768, 27_032_600),
        (256, 16_384, 24_767_458),
    ],
)
def test_published_parameter_counts(image_size: int, base: int, count: int) -> None:
    with torch.device("meta"):
        network = StyleGan2(channels=3, counts=channel_counts(image_size, base))
    assert sum(one.numel() for one in network.parameters()) == count
    assert sum(one.numel() for one in network.mapping.parameters()) == 2_101_248


def test_names_and_styles_of_the_network_for_64() -> None:
    """NVIDIA's has 106 tensors, of which nine convolutions and five blocks keep the filter too."""
    with torch.device("meta"):
        network = StyleGan2(channels=3, counts=channel_counts(64))
    assert len(network.state_dict()) == 106 - 9 - 5
    assert (network.num_styles, network.style_size, network.latent_size) == (10, 512, 512)
    assert StyleGan2(channels=1, counts=channel_counts(1024, base=1024, most=4)).num_styles == 18


def sums(network: StyleGan2) -> list[float]:
    """Return sums over the styles of z of ones, truncated by half in three layers, over the image in -1..1,
    its squares and its ramp, and over the gradient of the ramp and its absolute values."""
    styles = network.styles(torch.ones(1, LATENT), psi=0.5, cutoff=3).requires_grad_()
    image = 2 * network.synthesize(styles) - 1
    ramp = (image * torch.linspace(-1, 1, image.numel()).view_as(image)).sum()
    (slope,) = torch.autograd.grad(ramp, styles)
    assert slope.isfinite().all()
    parts = (slope.sum(), slope.abs().sum(), slope[0, 0].abs().sum(), slope[0, -1].abs().sum())
    return [one.item() for one in (styles.sum(), image.sum(), image.square().sum(), ramp, *parts)]


@pytest.mark.parametrize(
    ("clamp", "numbers"),
    [
        (None, [9.0853157, -951.26941, 4281.1509, -112.85207, -1811.7419, 7225.6289, 348.47214, 1332.8820]),
        (1.0, [9.0853157, 420.69464, 698.31427, -158.16910, 33.219803, 759.17383, 29.878880, 90.192917]),
    ],
)
def test_numbers_of_nvidias_own_code(clamp: float | None, numbers: list[float]) -> None:
    """stylegan2-ada-pytorch with these weights, its operators for CPUs and noise_mode='const'."""
    assert sums(small(clamp=clamp)) == pytest.approx(numbers, rel=2e-5)


def without_styles(network: StyleGan2) -> StyleGan2:
    """Return the network without noise and with styles of 1, whatever w is."""
    for name, tensor in network.state_dict().items():
        if name.endswith(("affine.weight", "noise_strength")):
            tensor.zero_()
        if name.endswith("affine.bias"):
            tensor.fill_(1.0)
    return network


def test_without_affine_weights_an_image_does_not_depend_on_its_styles() -> None:
    network = without_styles(small())
    images = network.synthesize(torch.randn(3, network.num_styles, STYLE))
    torch.testing.assert_close(images[1:], images[:1].expand(2, -1, -1, -1))
    assert images[0].std() > 0.1


def test_demodulation_takes_a_factor_out_of_the_weights() -> None:
    network = without_styles(small())
    styles = torch.randn(2, network.num_styles, STYLE)
    before = network.synthesize(styles)
    for name, tensor in network.state_dict().items():
        if name.endswith(("conv0.weight", "conv1.weight")):
            tensor.mul_(3.0)
    torch.testing.assert_close(network.synthesize(styles), before, rtol=1e-4, atol=1e-4)


def test_forward_is_synthesis_clipped_to_images() -> None:
    network = small()
    latents = torch.randn(4, LATENT)
    images = network.synthesize(network.styles(latents))
    assert images.min() < 0.0 < 1.0 < images.max()
    assert torch.equal(network(latents), images.clamp(0, 1))
    assert images.shape == (4, 3, SIDE, SIDE)
    torch.testing.assert_close(network(latents[1:2]), network(latents)[1:2])


def test_truncation_moves_the_first_styles_towards_their_mean() -> None:
    network = small()
    latents = torch.randn(2, LATENT)
    whole, mean = network.styles(latents), network.mapping.w_avg
    assert torch.equal(network.styles(latents, psi=0.0), mean.expand_as(whole))
    half = network.styles(latents, psi=0.5, cutoff=2)
    torch.testing.assert_close(half[:, :2], (whole[:, :2] + mean) / 2)
    assert torch.equal(half[:, 2:], whole[:, 2:])
    torch.testing.assert_close(network.styles(latents, psi=0.5, cutoff=8), network.styles(latents, psi=0.5))


def test_filters_keep_a_constant_and_the_side() -> None:
    flat = torch.ones(1, 2, 4, 4)
    images = enlarged(flat, smoothing())
    torch.testing.assert_close(images[:, :, 1:-1, 1:-1], torch.ones(1, 2, 6, 6))
    assert images[0, 0, 0, 0] == pytest.approx(0.75**2)  # a quarter of each side sees a zero
    assert smoothed(torch.ones(1, 2, 9, 9), smoothing()).shape == (1, 2, 8, 8)


def test_an_impulse_is_enlarged_by_the_filter() -> None:
    """Times 4, of 1, 3, 3, 1 by 8: 1/4, 3/4, 3/4, 1/4 in each direction."""
    image = torch.zeros(1, 1, 3, 3)
    image[..., 1, 1] = 1.0
    row = torch.tensor([0.0, 0.25, 0.75, 0.75, 0.25, 0.0])
    torch.testing.assert_close(enlarged(image, smoothing())[0, 0], torch.outer(row, row))


def test_drawn_weights_are_the_same_for_any_order_of_the_state() -> None:
    state: dict[str, Tensor] = small().state_dict()
    again = drawn_state(dict(reversed(state.items())))
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
