"""GANs: printed parameter counts, shapes and ranges, sizes that are refused, what images depend on."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.models.gan import (
    Critic,
    Generator,
    InversionCritic,
    MinibatchDiscrimination,
    SpectralCritic,
)

CRITICS = (Critic, SpectralCritic)


def built(network: type[nn.Module], **settings: Any) -> Any:
    """Return a narrow network of grey 32x32 images unless settings differ."""
    torch.manual_seed(0)
    return network(**{"channels": 1, "image_size": 32, "width": 0.1, **settings})


def num_parameters(network: type[nn.Module], channels: int, image_size: int, width: float = 1.0) -> int:
    with torch.device("meta"):
        made = network(channels=channels, image_size=image_size, width=width)
    return sum(parameter.numel() for parameter in made.parameters())


@pytest.mark.parametrize(
    ("network", "channels", "image_size", "count"),
    [
        (Generator, 3, 64, 5_142_083),
        (Generator, 1, 32, 1_443_777),
        (Critic, 3, 64, 4_316_545),
        (Critic, 1, 32, 1_030_913),
    ],
    ids=["G64", "G32", "critic 64", "critic 32"],
)
def test_printed_parameter_counts(
    network: type[nn.Module], channels: int, image_size: int, count: int
) -> None:
    assert num_parameters(network, channels, image_size) == count


def test_spectral_norms_replace_the_parameters_of_instance_norms() -> None:
    """Two for each map of the three layers behind the first."""
    assert num_parameters(SpectralCritic, 3, 64) == 4_316_545 - 2 * (128 + 256 + 512)


def test_parameters_of_a_narrow_generator_by_hand() -> None:
    """Half of 256-128-64: 100 -> 128 * 16, then 128 -> 64 -> 32 -> 3 with kernels of 5x5."""
    by_hand = (100 + 2) * 128 * 16 + (25 * 128 + 2) * 64 + (25 * 64 + 2) * 32 + (25 * 32 * 3 + 3)
    assert num_parameters(Generator, 3, 32, 0.5) == by_hand


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", [32, 64])
def test_latents_become_images_and_images_numbers(image_size: int, channels: int) -> None:
    generator = built(Generator, channels=channels, image_size=image_size)
    images = generator(30.0 * torch.randn(5, generator.latent_size))
    assert images.shape == (5, channels, image_size, image_size)
    assert images.min() >= 0.0
    assert images.max() <= 1.0
    for critic in CRITICS:
        assert built(critic, channels=channels, image_size=image_size)(images).shape == (5,)


def test_an_image_depends_on_its_latent_alone_in_evaluation_mode() -> None:
    generator = built(Generator).eval()
    latents = torch.randn(4, 100)
    torch.testing.assert_close(generator(latents)[1:2], generator(latents[1:2]))


@pytest.mark.parametrize("critic", CRITICS)
def test_an_image_is_judged_without_those_beside_it(critic: type[nn.Module]) -> None:
    network = built(critic).eval()
    images = torch.rand(4, 1, 32, 32)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]))


def test_every_layer_of_the_spectral_critic_has_the_norm_one() -> None:
    """The largest singular value of its weights as a matrix, after enough power iterations."""
    critic = built(SpectralCritic)
    with torch.no_grad():
        for _ in range(200):
            critic(torch.rand(1, 1, 32, 32))
    critic.eval()
    layers = [layer for layer in critic.layers if isinstance(layer, nn.Conv2d)]
    assert len(layers) == 4
    for layer in layers:
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        assert norm.item() == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("network", [Generator, *CRITICS])
@pytest.mark.parametrize("image_size", [16, 48, 128])
def test_other_sizes_are_refused(network: type[nn.Module], image_size: int) -> None:
    text = rf"data\.image_size={image_size} must be 32 or 64 for a generative prior; resize the images"
    with pytest.raises(ValueError, match=text):
        built(network, image_size=image_size)


# KEDMI


@pytest.mark.parametrize(("classes", "count"), [(1000, 18_888_936), (530, 16_933_266), (5, 14_748_741)])
def test_parameters_of_the_inversion_critic(classes: int, count: int) -> None:
    with torch.device("meta"):
        made = InversionCritic(classes=classes, channels=3, image_size=64, width=1.0)
    assert sum(parameter.numel() for parameter in made.parameters()) == count


@pytest.mark.parametrize(("image_size", "features"), [(32, 26 * 4), (64, 26 * 16)])
def test_the_inversion_critic_has_a_logit_for_each_class(image_size: int, features: int) -> None:
    critic = built(InversionCritic, classes=7, image_size=image_size)
    images = torch.rand(3, 1, image_size, image_size)
    assert critic(images).shape == (3, 7)
    assert critic.features(images).shape == (3, features)
    with pytest.raises(ValueError, match="must be 32 or 64"):
        built(InversionCritic, classes=7, image_size=48)


def test_nearness_of_equal_rows_and_of_one_alone() -> None:
    """Each of B equal rows has B - 1 others at distance 0, in every kernel."""
    torch.manual_seed(0)
    layer = MinibatchDiscrimination(6, 4, 3)
    row = torch.randn(1, 6)
    torch.testing.assert_close(layer(row.expand(64, 6)), torch.full((64, 4), 63.0))
    torch.testing.assert_close(layer(row), torch.zeros(1, 4))
    torch.testing.assert_close(layer(row, row.expand(5, 6)), torch.full((1, 4), 5.0))


def test_nearness_by_its_definition() -> None:
    torch.manual_seed(0)
    layer, rows, fixed = MinibatchDiscrimination(6, 4, 3), torch.randn(5, 6) / 4, torch.randn(2, 6) / 4

    def near(one: Tensor, other: Tensor, kernel: int) -> float:
        matrix = layer.tensor[:, kernel]
        return torch.exp(-(one @ matrix - other @ matrix).abs().sum()).item()

    others = [[sum(near(x, y, b) for y in rows) - 1 for b in range(4)] for x in rows]
    torch.testing.assert_close(layer(rows), torch.tensor(others))
    beside = [[sum(near(x, y, b) for y in fixed) for b in range(4)] for x in rows]
    torch.testing.assert_close(layer(rows, fixed), torch.tensor(beside))
    torch.testing.assert_close(layer(rows, fixed)[1:2], layer(rows[1:2], fixed))  # rows do not meet
