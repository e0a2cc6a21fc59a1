"""Conditional GAN: printed parameter counts, conditional batch norm and projection by hand, ranges, sizes."""

from typing import Any

import pytest
import torch
from torch import nn

from orchestrator.models.conditional_gan import ConditionalGenerator, ConditionalNorm, ProjectionCritic

CLASSES = torch.tensor([4, 0, 0])


def built(network: Any, **settings: Any) -> Any:
    """Return a narrow network of five classes of grey 32x32 images unless settings differ."""
    torch.manual_seed(0)
    return network(**{"classes": 5, "channels": 1, "image_size": 32, "width": 0.02, **settings})


def num_parameters(network: Any, classes: int, image_size: int = 64, width: float = 1.0) -> int:
    with torch.device("meta"):
        made = network(classes=classes, channels=3, image_size=image_size, width=width)
    return sum(parameter.numel() for parameter in made.parameters())


@pytest.mark.parametrize(
    ("network", "classes", "count"),
    [
        (ConditionalGenerator, 1000, 17_973_379),
        (ConditionalGenerator, 530, 15_266_179),
        (ConditionalGenerator, 240, 13_595_779),
        (ProjectionCritic, 1000, 11_165_441),
        (ProjectionCritic, 240, 10_387_201),
    ],
)
def test_printed_parameter_counts(network: Any, classes: int, count: int) -> None:
    assert num_parameters(network, classes) == count


def test_at_half_the_side_both_lack_their_widest_block() -> None:
    """G: its first layer makes half of the maps. D: its head and classes read half of them."""
    norms, convolutions = 2 * 5 * (1024 + 512), 9 * 1024 * 512 + 9 * 512 * 512 + 1024 * 512 + 3 * 512
    first = 129 * 16 * 512
    whole, half = (num_parameters(ConditionalGenerator, 5, side) for side in (64, 32))
    assert whole - half == norms + convolutions + first
    down = 9 * 512 * 512 + 512 + 9 * 512 * 1024 + 1024 + 512 * 1024 + 1024
    whole, half = (num_parameters(ProjectionCritic, 5, side) for side in (64, 32))
    assert whole - half == down + (5 + 1) * 512


def test_the_conditional_norm_by_hand() -> None:
    """Maps 1 and 3 in the mean are -1 and 1 in deviations; each class has its own gain and bias."""
    norm = ConditionalNorm(2, 1)
    maps = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    expected = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1)
    torch.testing.assert_close(norm(maps, torch.tensor([0, 1])), expected, atol=1e-4, rtol=0.0)
    norm.gain.weight.data[1], norm.bias.weight.data[1] = 5.0, 0.5
    changed = torch.tensor([-1.0, 5.5]).view(2, 1, 1, 1)
    torch.testing.assert_close(norm(maps, torch.tensor([0, 1])), changed, atol=1e-3, rtol=0.0)
    statistics = norm.norm.running_mean
    assert isinstance(statistics, torch.Tensor)
    assert statistics.item() == pytest.approx(2.0 * (1 - 0.9**2))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", [32, 64])
def test_latents_become_images_and_images_numbers(image_size: int, channels: int) -> None:
    shapes = {"channels": channels, "image_size": image_size}
    images = built(ConditionalGenerator, **shapes)(30.0 * torch.randn(3, 128), CLASSES)
    assert images.shape == (3, channels, image_size, image_size)
    assert 0.0 <= images.min() <= images.max() <= 1.0
    assert built(ProjectionCritic, **shapes)(images, CLASSES).shape == (3,)


def test_the_released_range_is_the_tanh_itself_while_it_is_trained() -> None:
    corrected, released = (built(ConditionalGenerator, is_signed=signed) for signed in (False, True))
    latents = 30.0 * torch.randn(3, 128)
    images, signed = corrected(latents, CLASSES), released(latents, CLASSES)
    torch.testing.assert_close(signed, 2.0 * images - 1.0, atol=1e-5, rtol=0.0)
    assert signed.min() < 0.0
    images, signed = corrected.eval()(latents, CLASSES), released.eval()(latents, CLASSES)
    torch.testing.assert_close(signed, (2.0 * images - 1.0).clamp_min(0.0), atol=1e-5, rtol=0.0)


def test_an_image_depends_on_its_latent_and_class_alone_in_evaluation_mode() -> None:
    generator, critic = (built(one).eval() for one in (ConditionalGenerator, ProjectionCritic))
    for tables in (table for block in generator.blocks for table in (block.first, block.second)):
        nn.init.normal_(tables.gain.weight)
    latents = torch.randn(1, 128).expand(3, 128)
    images = generator(latents, CLASSES)
    torch.testing.assert_close(images[1], images[2])
    assert (images[0] - images[1]).abs().max() > 1e-3
    torch.testing.assert_close(generator(latents[:1], CLASSES[:1]), images[:1])
    torch.testing.assert_close(critic(images, CLASSES)[:1], critic(images[:1], CLASSES[:1]))


def test_the_projection_by_hand() -> None:
    """Head plus the class's vector, each of norm one, times the features summed over places."""
    critic = built(ProjectionCritic).eval()
    images = torch.rand(3, 1, 32, 32)
    features = critic.layers(images).sum(dim=(2, 3))
    expected = features @ critic.head.weight[0] + critic.head.bias
    expected = expected + (critic.classes.weight[CLASSES] * features).sum(dim=1)
    torch.testing.assert_close(critic(images, CLASSES), expected)


def test_every_layer_of_the_critic_has_the_norm_one() -> None:
    critic = built(ProjectionCritic)
    with torch.no_grad():
        for _ in range(60):
            critic(torch.rand(2, 1, 32, 32), CLASSES[:2])
    critic.eval()
    layers = [one for one in critic.modules() if isinstance(one, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 4 * 3 + 2
    for layer in layers:
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        assert norm.item() == pytest.approx(1.0, abs=1e-2)


@pytest.mark.parametrize("network", [ConditionalGenerator, ProjectionCritic])
def test_other_sizes_are_refused(network: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match=r"data\.image_size=48 must be 32 or 64 for a generative prior"):
        built(network, image_size=48)
