"""Shards: indexed like the array that they were cut from, each file opened once for what is asked."""

import weakref

import numpy as np
import pytest

from orchestrator.datasets.shards import Shards

EVERY = np.random.default_rng(0).integers(0, 256, (23, 3, 2, 1), dtype=np.uint8)
COUNTS = (5, 1, 9, 8)
OPENED: list[int] = []


@pytest.fixture
def shards() -> Shards:
    OPENED.clear()
    blocks = np.split(EVERY, np.cumsum(COUNTS)[:-1])

    def block(number: int) -> np.ndarray:
        OPENED.append(number)
        return blocks[number]

    return Shards(COUNTS, (3, 2, 1), block)


INDICES = {
    "shuffled": np.random.default_rng(1).permutation(23),
    "repeated": np.array([22, 0, 5, 5, 22, 6]),
    "none": np.array([], dtype=np.int64),
    "mask": np.arange(23) % 3 == 0,
    "everything": slice(None),
    "the end": slice(20, 30),
    "nothing": slice(23, 30),
}


@pytest.mark.parametrize("name", INDICES)
def test_they_are_indexed_like_an_array(shards: Shards, name: str) -> None:
    index = INDICES[name]
    assert np.array_equal(shards[index], EVERY[index])
    assert shards[index].shape == EVERY[index].shape
    assert (len(shards), shards.shape) == (23, EVERY.shape)


def test_only_the_files_asked_for_are_opened_and_each_of_them_once(shards: Shards) -> None:
    assert OPENED == []
    assert np.array_equal(shards[np.array([22, 4, 16, 0, 3])], EVERY[[22, 4, 16, 0, 3]])
    assert sorted(OPENED) == [0, 3]


def test_a_file_is_let_go_before_the_next_is_opened() -> None:
    opened: list[weakref.ref[np.ndarray]] = []
    alive = []

    def block(number: int) -> np.ndarray:
        alive.append(sum(one() is not None for one in opened))
        images = np.full((2, 1, 1, 1), number, np.uint8)
        opened.append(weakref.ref(images))
        return images

    rows = np.random.default_rng(0).permutation(80)
    assert np.array_equal(Shards([2] * 40, (1, 1, 1), block)[rows].ravel(), rows // 2)
    assert alive == [0] * 40


def test_what_is_returned_is_a_copy(shards: Shards) -> None:
    shards[:][0] = 1 + EVERY[0]
    assert np.array_equal(shards[:], EVERY)
