"""Image size and scale before the first layer: values by hand, and torchvision's own constants."""

import pytest
import torch
from torchvision.models import VGG16_BN_Weights

from orchestrator.models import inputs
from tests.models.operators import Operators


def test_imagenet_scaling_has_torchvisions_mean_and_deviation() -> None:
    transforms = VGG16_BN_Weights.IMAGENET1K_V1.transforms()
    assert tuple(transforms.mean) == inputs.IMAGENET_MEAN
    assert tuple(transforms.std) == inputs.IMAGENET_STD
    mean = torch.tensor(inputs.IMAGENET_MEAN)[None, :, None, None].expand(1, 3, 2, 2)
    assert torch.equal(inputs.Scaled("imagenet")(mean), torch.zeros(1, 3, 2, 2))


def test_a_grey_image_takes_the_mean_over_the_channels() -> None:
    white = inputs.Scaled("imagenet")(torch.ones(1, 1, 1, 1))
    assert white.item() == pytest.approx((1 - sum(inputs.IMAGENET_MEAN) / 3) / (sum(inputs.IMAGENET_STD) / 3))


def test_moments_are_on_the_device_and_outside_the_state() -> None:
    layer = inputs.Scaled("imagenet")
    assert not layer.state_dict()
    with Operators() as operators:
        layer(torch.ones(2, 3, 4, 4))
        layer(torch.ones(2, 1, 4, 4))
    assert not {"aten.lift_fresh.default", "aten._to_copy.default"} & operators.names
    assert layer(torch.ones(2, 3, 4, 4, dtype=torch.float64)).dtype == torch.float64


def test_signed_scaling_goes_from_minus_1_to_1() -> None:
    images = torch.tensor([0.0, 0.25, 1.0]).reshape(1, 1, 1, 3)
    assert inputs.Scaled("signed")(images).flatten().tolist() == [-1.0, -0.5, 1.0]


@pytest.mark.parametrize("side", [8, 24])
def test_resizing_keeps_a_flat_image_flat(side: int) -> None:
    images = torch.full((2, 3, 16, 16), 0.25)
    assert torch.allclose(inputs.Resized(side)(images), torch.full((2, 3, side, side), 0.25))


def test_halving_averages_neighbours() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(8).expand(1, 1, 16, 16)
    inner = inputs.Resized(8)(stripes)[..., 2:-2]
    assert torch.allclose(inner, torch.full_like(inner, 0.5), atol=0.01)
