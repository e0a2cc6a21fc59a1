"""Random crops with numbers given by hand."""

import pytest
import torch
from torch import Tensor

from orchestrator.attacks.crops import NUMBERS, random_crops

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
