"""The discriminator: shapes, parameters counted by hand, sizes that it refuses."""

import pytest
import torch

from orchestrator.models.discriminator import Discriminator


def num_parameters(discriminator: Discriminator) -> int:
    return sum(parameter.numel() for parameter in discriminator.parameters())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_size", [8, 16, 32, 64])
def test_one_logit_for_each_image(image_size: int, channels: int) -> None:
    discriminator = Discriminator(channels=channels, image_size=image_size, width=0.05)
    assert discriminator(torch.rand(3, channels, image_size, image_size)).shape == (3, 1)


def test_parameters_by_hand() -> None:
    """Kernels of 4x4 with biases, then a line over 256 (or 512) maps of 4x4."""
    by_hand = (64 * 16 + 64) + (128 * 64 * 16 + 128) + (256 * 128 * 16 + 256) + (256 * 16 + 1)
    assert by_hand == 660_929
    assert num_parameters(Discriminator(channels=1, image_size=32, width=1.0)) == by_hand
    colour = by_hand + 2 * 64 * 16
    assert num_parameters(Discriminator(channels=3, image_size=32, width=1.0)) == colour
    large = by_hand + (512 * 256 * 16 + 512) + (512 - 256) * 16
    assert num_parameters(Discriminator(channels=1, image_size=64, width=1.0)) == large


def test_no_layer_is_narrower_than_four_channels() -> None:
    """4 channels in each of three layers."""
    by_hand = (4 * 16 + 4) + 2 * (4 * 4 * 16 + 4) + (4 * 16 + 1)
    assert num_parameters(Discriminator(channels=1, image_size=32, width=0.01)) == by_hand


@pytest.mark.parametrize("image_size", [4, 9, 12, 33, 48, 128])
def test_other_sizes_are_refused(image_size: int) -> None:
    text = (
        rf"data\.image_size={image_size} must be 8, 16, 32 or 64 for attack\.losses\.adversarial; "
        r"change the size or set the weight to 0\."
    )
    with pytest.raises(ValueError, match=text):
        Discriminator(channels=1, image_size=image_size, width=1.0)


def test_an_image_does_not_depend_on_those_beside_it() -> None:
    """Training it must not mix real images with reconstructions, so there is no batch norm."""
    torch.manual_seed(0)
    discriminator = Discriminator(channels=1, image_size=16, width=0.1)
    images = torch.rand(4, 1, 16, 16)
    torch.testing.assert_close(discriminator(images)[1:2], discriminator(images[1:2]))
