"""Random crops and views with numbers given by hand."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from orchestrator.attacks.crops import NUMBERS, VIEW_NUMBERS, random_crops, random_views

RAMP = torch.arange(4.0).expand(1, 1, 4, 4)
"""An image whose columns are 0, 1, 2, 3."""


def cropped(*numbers: float, images: Tensor = RAMP, flip: float = 0.0) -> Tensor:
    return random_crops(images, torch.tensor([numbers]), scale=(0.25, 1.0), ratio=(1.0, 1.0), flip=flip)


def test_the_whole_image_stays_as_it_is() -> None:
    torch.testing.assert_close(cropped(1.0, 0.0, 0.3, 0.7, 0.0), RAMP)


def test_a_quarter_is_enlarged_from_its_place() -> None:
    """The left half has pixel centres 0 and 1: four samples at -0.25, 0.25, 0.75, 1.25, the first at the
    border."""
    left = torch.tensor([0.0, 0.25, 0.75, 1.25])
    torch.testing.assert_close(cropped(0.0, 0.0, 0.0, 0.5, 0.0)[0, 0], left.expand(4, 4))
    torch.testing.assert_close(cropped(0.0, 0.0, 1.0, 0.5, 0.0)[0, 0], 3 - left.flip(0).expand(4, 4))
    down = cropped(0.0, 0.0, 0.5, 0.0, 0.0, images=RAMP.transpose(2, 3))
    torch.testing.assert_close(down[0, 0], left.expand(4, 4).T)


@pytest.mark.parametrize(("coin", "is_mirrored"), [(0.49, True), (0.5, False)])
def test_a_coin_below_the_probability_mirrors(coin: float, is_mirrored: bool) -> None:
    expected = RAMP.flip(3) if is_mirrored else RAMP
    torch.testing.assert_close(cropped(1.0, 0.0, 0.5, 0.5, coin, flip=0.5), expected)


def test_the_ratio_is_width_by_height() -> None:
    """Of area 1/2 and ratio 2 the part is as wide as the image and half as high."""
    numbers = torch.tensor([[0.0, 1.0, 0.9, 0.0, 0.0]])
    part = random_crops(RAMP.transpose(2, 3), numbers, scale=(0.5, 0.5), ratio=(0.5, 2.0), flip=0.0)
    torch.testing.assert_close(part[0, 0], torch.tensor([0.0, 0.25, 0.75, 1.25]).expand(4, 4).T)


def test_each_image_goes_by_its_own_numbers() -> None:
    torch.manual_seed(0)
    images, numbers = torch.rand(5, 3, 8, 8), torch.rand(5, NUMBERS)
    whole = random_crops(images, numbers, scale=(0.5, 0.9), ratio=(0.8, 1.2), flip=0.5)
    each = [
        random_crops(one[None], row[None], scale=(0.5, 0.9), ratio=(0.8, 1.2), flip=0.5)
        for one, row in zip(images, numbers, strict=True)
    ]
    torch.testing.assert_close(whole, torch.cat(each))
    assert 0 <= whole.min() <= whole.max() <= 1


# PLG-MI's views


def viewed(*numbers: float, images: Tensor = RAMP / 3, jitter: float = 1.0) -> Tensor:
    return random_views(images, torch.tensor([numbers]), jitter=jitter)


def test_a_whole_unturned_view_stays_as_it_is() -> None:
    torch.testing.assert_close(viewed(1.0, 0.3, 0.7, 0.5, 0.5, 0.9, 0.5, 0.5), RAMP / 3)
    torch.testing.assert_close(viewed(1.0, 0.3, 0.7, 0.49, 0.5, 0.9, 0.5, 0.5), RAMP.flip(3) / 3)


def test_the_smallest_view_is_80_percent_of_the_area() -> None:
    """At the left it has columns 0 to 4 sqrt(0.8): its last sample is half of a pixel's share before that."""
    side = 0.8**0.5
    centres = torch.tensor([0.5, 1.5, 2.5, 3.5]) * side - 0.5
    seen = viewed(0.0, 0.0, 0.5, 0.5, 0.5, 0.9, 0.5, 0.5)
    torch.testing.assert_close(seen[0, 0, 0], centres.clamp_min(0.0) / 3)


@pytest.mark.parametrize(("turn", "sign"), [(0.0, -1.0), (1.0, 1.0)])
def test_the_largest_turn_is_five_degrees(turn: float, sign: float) -> None:
    """On a plane of intensities x, turned by a, the gradient is (cos a, -+ sin a)."""
    plane = (torch.arange(32.0).expand(1, 1, 32, 32)) / 32
    seen = viewed(1.0, 0.5, 0.5, 0.5, turn, 0.9, 0.5, 0.5, images=plane)[0, 0]
    across, down = 32 * (seen[16, 17] - seen[16, 16]), 32 * (seen[17, 16] - seen[16, 16])
    angle = math.radians(5.0)
    assert across.item() == pytest.approx(math.cos(angle), abs=1e-3)
    assert down.item() == pytest.approx(-sign * math.sin(angle), abs=1e-3)


def test_colours_change_brightness_then_contrast_below_the_share_alone() -> None:
    """0.25 and 0.75 times 1.2 are 0.3 and 0.9, their mean 0.6; contrast 0.8 makes 0.36 and 0.84 of them."""
    halves = torch.tensor([0.25, 0.25, 0.75, 0.75]).expand(1, 1, 4, 4)
    numbers = (1.0, 0.5, 0.5, 0.5, 0.5, 0.4, 1.0, 0.0)
    changed = torch.tensor([0.36, 0.36, 0.84, 0.84]).expand(1, 1, 4, 4)
    torch.testing.assert_close(viewed(*numbers, images=halves, jitter=0.41), changed)
    torch.testing.assert_close(viewed(*numbers, images=halves, jitter=0.4), halves)


def test_each_view_goes_by_its_own_numbers_and_passes_a_gradient() -> None:
    torch.manual_seed(0)
    images, numbers = torch.rand(5, 3, 8, 8, requires_grad=True), torch.rand(5, VIEW_NUMBERS)
    whole = random_views(images, numbers, jitter=0.5)
    each = [random_views(one[None], row[None], jitter=0.5) for one, row in zip(images, numbers, strict=True)]
    torch.testing.assert_close(whole, torch.cat(each))
    assert 0 <= whole.min() <= whole.max() <= 1
    whole[2].sum().backward()
    assert images.grad is not None
    assert [bool(part.any()) for part in images.grad] == [False, False, True, False, False]


# Mixed precision


def test_places_are_float32_under_autocast() -> None:
    torch.manual_seed(0)
    images, crops, views = torch.rand(4, 3, 64, 64), torch.rand(4, NUMBERS), torch.rand(4, VIEW_NUMBERS)
    sides: Any = {"scale": (0.5, 0.9), "ratio": (0.8, 1.2), "flip": 0.5}
    wanted = random_crops(images, crops, **sides), random_views(images, views, jitter=0.5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(random_crops(images, crops, **sides), wanted[0])
        assert torch.equal(random_views(images, views, jitter=0.5), wanted[1])
