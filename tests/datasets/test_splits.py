import numpy as np
import pytest

from orchestrator.datasets.splits import make_split

LABELS = np.repeat(np.arange(4), [3, 4, 10, 101])


def test_every_class_is_divided_as_exactly_as_it_can_be() -> None:
    codes = make_split(LABELS, (0.5, 0.25, 0.25), seed=0)
    counts = [np.bincount(codes[label == LABELS], minlength=3).tolist() for label in range(4)]
    expected = [[1, 1, 1], [2, 1, 1], [5, 3, 2], [51, 25, 25]]
    assert counts == expected
    assert codes.dtype == np.uint8


def test_a_tiny_fraction_still_gets_one_image_of_each_class() -> None:
    codes = make_split(LABELS, (0.98, 0.01, 0.01), seed=0)
    counts = [np.bincount(codes[label == LABELS], minlength=3).tolist() for label in range(4)]
    expected = [[1, 1, 1], [2, 1, 1], [8, 1, 1], [99, 1, 1]]
    assert counts == expected


def test_the_seed_decides_and_nothing_else() -> None:
    first = make_split(LABELS, (0.5, 0.25, 0.25), seed=7)
    assert np.array_equal(first, make_split(LABELS, (0.5, 0.25, 0.25), seed=7))
    assert not np.array_equal(first, make_split(LABELS, (0.5, 0.25, 0.25), seed=8))


def test_the_order_of_classes_in_the_file_does_not_unbalance_them() -> None:
    shuffled = np.random.default_rng(0).permutation(LABELS)
    codes = make_split(shuffled, (0.5, 0.25, 0.25), seed=0)
    assert np.bincount(codes[shuffled == 3]).tolist() == [51, 25, 25]


def test_a_part_of_fraction_zero_is_empty_and_needs_no_images() -> None:
    codes = make_split(np.array([0, 1, 1]), (1.0, 0.0, 0.0), seed=0)
    assert codes.tolist() == [0, 0, 0]


def test_a_class_too_small_for_the_parts_is_an_error_with_two_ways_out() -> None:
    with pytest.raises(
        ValueError, match=r"need 3 images .* 1 of 2 classes have fewer \(class 1 has 2\); .*3 or"
    ):
        make_split(np.array([0, 0, 0, 1, 1]), (0.5, 0.25, 0.25), seed=0)


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.5, 0.5, 0.5), (1.5, -0.25, -0.25)])
def test_fractions_must_be_three_shares(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must be three numbers >= 0 that sum to 1"):
        make_split(LABELS, fractions, seed=0)
