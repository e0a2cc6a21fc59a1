"""Gathered images: the same images in the same order as a tensor of them, whatever is asked."""

import pytest
import torch
from torch import Tensor

from orchestrator.datasets import shards
from orchestrator.datasets.gathered import Gathered, Images, at, gather, joined

FIRST = torch.arange(40, dtype=torch.uint8).reshape(10, 1, 2, 2)
SECOND = FIRST + 100
ORDER = torch.tensor([7, 3, 3, 9, 0])


@pytest.fixture(params=[0, 20, shards.HELD_BYTES])
def held_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Set how much is held: nothing, five images, everything."""
    monkeypatch.setattr(shards, "HELD_BYTES", request.param)
    return int(request.param)


def lazily(images: Tensor) -> Images:
    return gather(images.__getitem__, torch.arange(len(images)), images.shape[1:])


def same(images: Images, expected: Tensor) -> bool:
    parts = torch.cat(list(images.split(2)))
    return torch.equal(images[:], expected) and torch.equal(parts, expected) and len(images) == len(expected)


def test_a_choice_of_a_choice(held_bytes: int) -> None:
    images = lazily(FIRST)
    assert isinstance(images, Gathered) == (held_bytes < FIRST.numel())
    assert images.shape == FIRST.shape
    assert same(images, FIRST)
    chosen = at(images, ORDER)
    assert isinstance(chosen, Gathered) == (held_bytes < 20)  # what is left may fit
    assert same(chosen, FIRST[ORDER])
    assert same(at(chosen, torch.tensor([4, 0])), FIRST[[0, 7]])


def test_masks_slices_and_positions(held_bytes: int) -> None:
    images = at(lazily(FIRST), ORDER)
    expected = FIRST[ORDER]
    for index in (torch.tensor([True, False, True, True, False]), slice(1, 4), torch.tensor([2, 2, 0])):
        assert torch.equal(images[index], expected[index])


def test_two_sets_one_after_the_other(held_bytes: int) -> None:
    expected = torch.cat([FIRST, SECOND])
    for first, second in ((FIRST, SECOND), (lazily(FIRST), SECOND), (FIRST, lazily(SECOND))):
        both = joined(first, second)
        assert isinstance(both, Gathered) == (held_bytes < expected.numel())
        assert same(both, expected)
        mixed = torch.tensor([15, 3, 19, 0, 12])
        assert same(at(both, mixed), expected[mixed])
        assert same(joined(both, FIRST), torch.cat([expected, FIRST]))


def test_nothing_is_read_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "HELD_BYTES", 0)
    asked: list[int] = []

    def read(positions: Tensor) -> Tensor:
        asked.extend(positions.tolist())
        return FIRST[positions]

    images = at(gather(read, torch.arange(10), (1, 2, 2)), ORDER)
    assert asked == []
    assert torch.equal(images[torch.tensor([1, 3])], FIRST[[3, 9]])
    assert asked == [3, 9]
