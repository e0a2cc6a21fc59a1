"""Differences and how sure they are: hand-checked, and the intervals' coverage on made-up data."""

import math

import numpy as np
import pytest

from orchestrator.report import statistics
from orchestrator.report.statistics import (
    Comparison,
    class_differences,
    compare_classes,
    compare_seeds,
    holm,
    mean_and_interval,
    resampled_means,
)

ROW = [("label", np.int32), ("mse", np.float32)]


def rows(*pairs: tuple[int, float]) -> np.ndarray:
    """Return images as (label, mse)."""
    return np.array(list(pairs), dtype=ROW)


def test_differences_are_paired_by_class_and_only_of_classes_that_both_have() -> None:
    lower = rows((0, 1.0), (0, 3.0), (1, 5.0))
    upper = rows((2, 9.0), (1, 6.5), (0, 2.5), (1, 7.5), (4, 0.0))
    assert class_differences(lower, upper, "mse").tolist() == [
        0.5,
        2.0,
    ]  # 2.5 - (1 + 3) / 2, (6.5 + 7.5) / 2 - 5
    assert class_differences(rows((0, 1.0)), rows((1, 2.0)), "mse").tolist() == []


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    found = compare_classes([np.full(5, 0.25), np.full(7, 0.25), np.full(5, 0.25)])
    assert (found.difference, found.low, found.high) == (0.25, 0.25, 0.25)
    assert (found.num_seeds, found.num_agreeing, found.resampled) == (3, 3, "classes and seeds")
    assert found.p == pytest.approx(2 / 10_001)
    assert found.verdict == "holds"
    turned = compare_classes([np.full(5, 0.25)] * 2, sign=-1.0)
    assert (turned.high, turned.num_agreeing, turned.verdict) == (-0.25, 0, "reversed")


def test_no_difference_at_all_is_said_to_be_equal() -> None:
    found = compare_classes([np.zeros(4), np.zeros(4)])
    assert (found.low, found.high, found.p, found.verdict) == (0.0, 0.0, 1.0, "equal")


def test_symmetric_noise_is_not_shown() -> None:
    noise = np.array([-2.0, -1.0, 1.0, 2.0])
    found = compare_classes([noise, noise, noise])
    assert found.difference == 0.0
    assert found.low < 0 < found.high
    assert found.p > 0.5
    assert found.verdict == "not shown"


def test_one_seed_resamples_classes_only_and_says_so() -> None:
    found = compare_classes([np.array([1.0, 2.0])])
    assert (found.difference, found.num_seeds, found.resampled) == (1.5, 1, "classes")
    assert (found.low, found.high) == (1.0, 2.0)  # a quarter of the replicates is at each end


def test_one_class_of_one_seed_has_nothing_to_resample() -> None:
    found = compare_classes([np.array([3.0])])
    assert (found.difference, found.resampled, found.verdict) == (3.0, "nothing", "not shown")
    assert math.isnan(found.low)
    assert math.isnan(found.p)


def test_the_levels_by_hand() -> None:
    # Seeds of one class each: the mean of two draws is a, b or halfway, with 1/4, 1/4 and 1/2.
    found = compare_classes([np.array([0.0]), np.array([4.0])])
    assert (found.low, found.high) == (0.0, 4.0)
    assert found.p == pytest.approx(0.5, abs=0.02)


def test_infinite_values_show_nothing() -> None:
    found = compare_classes([np.array([np.inf, 1.0]), np.array([1.0, 1.0])])
    assert found.verdict == "not shown"
    assert math.isnan(found.p)


@pytest.mark.parametrize(("num_seeds", "num_classes", "spread"), [(6, 12, 0.3), (1, 40, 0.0), (3, 30, 0.0)])
def test_intervals_cover_the_truth_about_as_often_as_they_say(
    num_seeds: int, num_classes: int, spread: float
) -> None:
    generator = np.random.default_rng(5)
    covered = []
    for _ in range(120):
        means = 0.4 + spread * generator.standard_normal(num_seeds)
        found = compare_classes([mean + generator.standard_normal(num_classes) for mean in means])
        covered.append(found.low <= 0.4 <= found.high)
    assert 0.9 <= np.mean(covered) <= 1.0


def test_seeds_alone_by_students_t() -> None:
    found = compare_seeds([1.0, 2.0, 3.0])
    half = 4.302652729911275 / math.sqrt(3)  # t of 2 degrees of freedom, a standard deviation of 1
    assert (found.low, found.high) == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert found.p == pytest.approx(0.0741799, abs=1e-6)  # t = 2 sqrt(3) with 2 degrees of freedom
    assert (found.resampled, found.num_agreeing, found.verdict) == ("seeds", 3, "not shown")
    assert compare_seeds([0.5, 0.5], sign=-1.0) == Comparison(-0.5, -0.5, -0.5, 0.0, 2, 0, "seeds")
    assert math.isnan(compare_seeds([0.5]).low)
    assert compare_seeds([0.5]).resampled == "nothing"


def test_mean_and_interval_of_none_and_one() -> None:
    assert all(math.isnan(value) for value in mean_and_interval([]))
    mean, half = mean_and_interval([2.0])
    assert mean == 2.0
    assert math.isnan(half)


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.03, 0.04 times 3, 2, 1: 0.03, 0.06, and 0.06 again because it may not fall.
    adjusted = holm([0.04, 0.01, float("nan"), 0.03])
    assert adjusted[:2] == pytest.approx([0.06, 0.03])
    assert math.isnan(adjusted[2])
    assert adjusted[3] == pytest.approx(0.06)
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.0, 1.0, "not shown"),  # an interval that touches 0 contains it
        (-1.0, 0.0, "not shown"),
        (-0.0, 0.0, "equal"),
        (1e-300, 1.0, "holds"),
        (-1.0, -1e-300, "reversed"),
        (math.nan, math.nan, "not shown"),
    ],
)
def test_an_interval_that_touches_0_shows_nothing(low: float, high: float, verdict: str) -> None:
    assert Comparison(0.5, low, high, 0.04, 3, 3, "seeds").verdict == verdict


@pytest.mark.parametrize("kept", [0, 10**9])
@pytest.mark.parametrize("shapes", [[(7,)], [(300,), (5,), (41,)], [(9, 2), (4, 2)], [(1,)] * 4])
def test_means_are_those_of_drawing_everything_at_once(
    shapes: list[tuple[int, ...]], kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "MOST_KEPT", kept)
    seeds = [np.random.default_rng(len(shapes)).random(shape) for shape in shapes]
    generator = np.random.default_rng(statistics.SEED)
    chosen = generator.integers(len(seeds), size=(1300, len(seeds)))
    means = np.empty((*chosen.shape, *seeds[0].shape[1:]))
    for seed, values in enumerate(seeds):
        places = chosen == seed
        drawn = generator.integers(len(values), size=(int(places.sum()), len(values)), dtype=np.int32)
        means[places] = values[drawn].mean(axis=1)
    for _ in range(2):
        assert resampled_means(seeds, 1300).tobytes() == means.mean(axis=1).tobytes()
