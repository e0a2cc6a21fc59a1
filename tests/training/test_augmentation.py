"""Random changes of training images: each its own, repeatable, of the shape and range it came with.

Crops and colours are compared with torchvision's transforms of one image.
"""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from orchestrator.training import augmentation as module
from orchestrator.training.augmentation import augmentation, brightness_shift, crop_jitter_flip, flip


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Let each test draw the same numbers and leave none behind."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def images(number: int, channels: int = 3, side: int = 16) -> Tensor:
    return torch.rand(number, channels, side, side)


def seen_twice(name: str, given: Tensor, seeds: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return what an augmentation makes of the same images after each of two seeds."""
    found = []
    for seed in seeds:
        torch.manual_seed(seed)
        found.append(augmentation(name)(given))
    return found[0], found[1]


@pytest.mark.parametrize("channels", [1, 3])
def test_about_half_of_the_images_are_mirrored_whole(channels: int) -> None:
    given = images(1000, channels, 4)
    before = given.clone()
    found = flip(given)
    kept = (found == given).flatten(1).all(1)
    mirrored = (found == given.flip(3)).flatten(1).all(1)
    assert torch.equal(kept, ~mirrored)
    assert 430 < mirrored.sum() < 570  # 4.4 deviations of a fair coin
    assert torch.equal(given, before)
    assert not torch.equal(given.flip(3), given.flip(2))  # left to right, not upside down


@pytest.mark.parametrize("name", ["flip", "crop-jitter-flip", "brightness-shift"])
def test_it_repeats_with_torchs_seed_and_with_no_other(name: str) -> None:
    given = images(8)
    assert torch.equal(*seen_twice(name, given, (3, 3)))
    assert not torch.equal(*seen_twice(name, given, (3, 4)))


def test_none_changes_nothing_and_draws_nothing() -> None:
    given, before = images(2), torch.random.get_rng_state()
    assert augmentation("none")(given) is given
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 33])
def test_crops_and_colours_keep_shape_and_range(channels: int, side: int) -> None:
    given = images(64, channels, side).round()  # black and white leave the range first
    before = given.clone()
    found = crop_jitter_flip(given)
    assert (found.shape, found.dtype) == (given.shape, torch.float32)
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(given, before)


def one_by_one(given: Tensor) -> Tensor:
    """Return what torchvision's transforms make of each image by itself."""
    crop = v2.RandomResizedCrop(given.shape[-1], scale=module.AREA, ratio=(1.0, 1.0), antialias=True)
    jitter = v2.ColorJitter(module.BRIGHTNESS, module.CONTRAST, module.SATURATION, module.HUE)
    return flip(torch.stack([jitter(crop(image)) for image in given]))


def grey_edges(number: int, channels: int, side: int) -> Tensor:
    """Return images with black, white and grey parts, where a hue is not defined, and full colours."""
    given = images(number, channels, side).round()
    given[:, :, : side // 4] = 0.5
    return given


@pytest.mark.parametrize("make", [images, grey_edges])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [16, 70])
def test_a_batch_is_what_torchvision_makes_of_each_image(
    make: Callable[[int, int, int], Tensor], channels: int, side: int
) -> None:
    given = make(60, channels, side)
    torch.manual_seed(5)
    wanted, state = one_by_one(given), torch.random.get_rng_state()
    torch.manual_seed(5)
    found = crop_jitter_flip(given)
    assert torch.equal(torch.random.get_rng_state(), state)  # neither more nor fewer draws
    torch.testing.assert_close(found, wanted, atol=3e-5, rtol=0)
    assert (found - given).abs().mean() > 0.02


@pytest.mark.parametrize("pixels", [1, 3 * 16**2, 10**9])
def test_how_many_images_are_changed_together_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, pixels: int
) -> None:
    given = images(40)
    torch.manual_seed(5)
    wanted = crop_jitter_flip(given)
    monkeypatch.setattr(module, "PIXELS", pixels)
    torch.manual_seed(5)
    torch.testing.assert_close(crop_jitter_flip(given), wanted, atol=1e-6, rtol=0)


def test_an_empty_batch_stays_empty() -> None:
    assert crop_jitter_flip(images(0)).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_changed_in_its_own_way(channels: int) -> None:
    same = images(1, channels).expand(32, -1, -1, -1)
    found = crop_jitter_flip(same)
    assert len({image.numpy().tobytes() for image in found}) == 32
    halves = torch.cat([torch.zeros(1, channels, 16, 8), torch.ones(1, channels, 16, 8)], dim=3)
    left = crop_jitter_flip(halves.expand(200, -1, -1, -1))[:, 0, :, 0].mean(1)
    assert 70 < (left > 0.5).sum() < 130  # those that are mirrored


def test_a_grey_image_changes_in_brightness_only_and_stays_even() -> None:
    found = crop_jitter_flip(torch.full((64, 1, 16, 16), 0.5))
    values = found.mean((1, 2, 3))
    assert torch.allclose(found, values[:, None, None, None].expand_as(found), atol=1e-6)
    assert values.min() >= 0.5 * 0.8 - 1e-6
    assert values.max() <= 0.5 * 1.2 + 1e-6
    assert values.max() - values.min() > 0.1
    grey = torch.full((64, 3, 16, 16), 0.5)  # three equal channels stay equal
    assert torch.allclose(crop_jitter_flip(grey).std(1), torch.zeros(()), atol=1e-6)


def test_colours_move_where_there_are_three() -> None:
    red = torch.tensor([0.8, 0.2, 0.2])[None, :, None, None].expand(64, 3, 16, 16)
    found = crop_jitter_flip(red).mean((2, 3))
    assert (found[:, 0] > found[:, 1:].amax(1)).all()  # red it stays: the hue turns by a tenth at most
    assert (found[:, 1] - found[:, 2]).abs().max() > 0.1


def test_the_crop_is_a_square_of_85_to_100_percent_of_the_area(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BRIGHTNESS", "CONTRAST"):
        monkeypatch.setattr(module, name, 0.0)
    ramp = torch.linspace(0, 1, 100).expand(128, 1, 100, 100)
    middle = slice(20, 80)  # away from the edges, where resizing has fewer pixels
    for tilted in (ramp, ramp.mT):
        found = crop_jitter_flip(tilted)[:, 0, middle, middle]
        height, width = ((found.diff(dim=dim).mean((1, 2)) * 99).abs() for dim in (1, 2))
        side = height + width  # one of them does not change
        assert ((side > 0.85**0.5 - 0.02) & (side < 1.001)).all()
        assert side.min() < 0.94
        assert side.max() > 0.98


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_moved_by_an_eighth_and_made_brighter_or_darker(channels: int) -> None:
    """A ramp over both sides shows where each pixel came from; the edges are repeated."""
    side, count = 16, 200
    ramp = torch.arange(side).float()
    given = (100.0 * ramp[:, None] + ramp[None, :]).expand(count, channels, side, side)
    added, moves = [], set()
    for image in brightness_shift(given):
        middle = image[0, 8, 8].item()
        origin = round(middle)
        added.append(middle - origin)
        down, right = origin // 100 - 8, origin % 100 - 8
        moves.add((down, right))
        rows, columns = ((ramp + move).clamp(0, side - 1) for move in (down, right))
        expected = (100.0 * rows[:, None] + columns[None, :] + added[-1]).expand_as(image)
        torch.testing.assert_close(image, expected, rtol=0.0, atol=1e-3)
    assert {move for pair in moves for move in pair} == {-2, -1, 0, 1, 2}
    assert len(moves) == 25
    assert -0.25 <= min(added) < -0.2
    assert 0.2 < max(added) <= 0.25


def test_a_gradient_passes_to_the_image_that_is_moved() -> None:
    """Repeated edges count as often as they are seen: each of 64 pixels is seen once or more."""
    given = images(3, 1, 8).requires_grad_()
    brightness_shift(given).sum().backward()
    assert given.grad is not None
    assert given.grad.sum((1, 2, 3)).tolist() == [64.0, 64.0, 64.0]
