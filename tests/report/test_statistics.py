"""Means and differences and how sure they are: by hand, and intervals' coverage on made-up crossed data."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from orchestrator.report.crossed import CLASSES, Crossed
from orchestrator.report.resampling import resampled_means
from orchestrator.report.statistics import (
    Comparison,
    Interval,
    Uncertainty,
    bootstrap_interval,
    compare,
    flip_p,
    holm,
    mean_and_interval,
)


def of_seeds(*values: float) -> Crossed:
    """Return one number for each seed."""
    return Crossed(np.array(values), ("seed",))


def test_seeds_alone_by_students_t() -> None:
    found = compare(of_seeds(1.0, 2.0, 3.0))
    half = 4.302652729911275 / math.sqrt(3)  # t of 2 degrees of freedom, a standard deviation of 1
    assert (found.interval.low, found.interval.high) == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert found.seeds == found.interval
    assert found.p == pytest.approx(0.0741799, abs=1e-6)  # t = 2 sqrt(3) with 2 degrees of freedom
    assert (found.resampled, found.num_agreeing, found.verdict) == ("3 seed", 3, "not shown")
    assert mean_and_interval([1.0, 2.0, 3.0]) == (2.0, pytest.approx(half))


def test_seeds_and_classes_by_hand() -> None:
    values = np.array([[1.0, 2.0, 6.0], [3.0, 5.0, 7.0]])  # means of seeds 3 and 5, of classes 2, 3.5, 6.5
    seeds = 2.0 / 2  # variance of the seeds' means over their number
    classes = (4.0 + 0.25 + 6.25) / 2 / 3
    noise = (4 * 0.25) / 2 / 6  # twice 0.5 and twice -0.5 are left, with 2 degrees of freedom, in 6 values
    t_seeds, t_classes = stats.t.ppf(0.975, 1), stats.t.ppf(0.975, 2)
    expected = math.sqrt(t_seeds**2 * seeds + t_classes**2 * classes - t_seeds**2 * noise)
    found = Uncertainty.of(Crossed(values, ("seed", CLASSES)))
    assert (found.mean, found.half()) == (4.0, pytest.approx(expected))
    assert found.half(found.p) == pytest.approx(4.0)  # the interval that just reaches 0


def test_noise_never_makes_the_interval_smaller_than_one_factor_alone() -> None:
    values = np.array([[1.0, -1.0], [-1.0, 1.0], [0.1, 0.0]])
    found = Uncertainty.of(Crossed(values, ("seed", CLASSES)))
    (seeds, two), (classes, one) = found.parts
    assert found.residual > max(seeds, classes)
    own = [stats.t.ppf(0.975, freedom) * math.sqrt(part) for part, freedom in ((seeds, two), (classes, one))]
    assert found.half() == pytest.approx(max(own))


def test_pairs_of_seeds_are_no_independent_seeds() -> None:
    f = np.array([0.0, 1.0, 5.0])
    values = f[:, None] + np.zeros((3, 3))  # only F's seed matters
    half = Uncertainty.of(Crossed(values, ("target.seed", "attack.seed"))).half()
    assert half == pytest.approx(mean_and_interval(f.tolist())[1])
    assert half > 2 * mean_and_interval(values.ravel().tolist())[1]


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    found = compare(Crossed(np.full((3, 5), 0.25), ("seed", CLASSES)))
    assert found.interval == found.bootstrap == found.seeds == Interval(0.25, 0.25)
    assert (found.num_seeds, found.num_agreeing, found.resampled) == (3, 3, "3 seed x 5 classes")
    assert (found.p, found.p_flip, found.verdict) == (0.0, 0.25, "holds")
    turned = compare(Crossed(np.full((2, 5), 0.25), ("seed", CLASSES)), sign=-1.0)
    assert (turned.interval.high, turned.num_agreeing, turned.verdict) == (-0.25, 0, "reversed")


@pytest.mark.parametrize("value", [0.1, 0.9776, 1 / 3, -1e-9])
def test_equal_values_have_no_spread_whatever_their_sum_rounds_to(value: float) -> None:
    found = Uncertainty.of(Crossed(np.full(3, value), ("seed",)))
    assert (found.mean, found.half()) == (value, 0.0)


def test_no_difference_at_all_is_equal_and_is_no_test() -> None:
    found = compare(Crossed(np.zeros((2, 4)), ("seed", CLASSES)))
    assert (found.interval, found.verdict) == (Interval(0.0, 0.0), "equal")
    assert math.isnan(found.p)
    assert math.isnan(found.p_flip)


def test_one_seed_resamples_classes_only_and_says_so() -> None:
    found = compare(Crossed(np.array([1.0, 2.0, 6.0]), (CLASSES,)))
    half = 4.302652729911275 * math.sqrt(7 / 3)
    assert (found.difference, found.interval.high) == (3.0, pytest.approx(3 + half))
    assert (found.num_seeds, found.resampled) == (1, "3 classes")
    assert found.note == "one seed: only classes are resampled"
    assert all(math.isnan(value) for value in (found.seeds.low, found.p_flip))


def test_one_class_of_one_seed_has_nothing_to_resample() -> None:
    found = compare(Crossed(np.array([3.0]), (CLASSES,)))
    assert (found.difference, found.resampled, found.verdict) == (3.0, "nothing", "not shown")
    assert found.note == "one seed: no interval"
    assert all(math.isnan(value) for value in (found.interval.low, found.bootstrap.low, found.p))


def test_the_bootstrap_by_hand() -> None:
    # Seeds of one class each: the mean of two draws is a, b or halfway, with 1/4, 1/4 and 1/2.
    assert bootstrap_interval(of_seeds(0.0, 4.0)) == Interval(0.0, 4.0)
    values = np.random.default_rng(1).standard_normal((3, 20))
    found = bootstrap_interval(Crossed(values, ("seed", CLASSES)))
    means = resampled_means(Crossed(values, ("seed", CLASSES)))
    assert (means < found.low).mean() == pytest.approx(0.025, abs=1e-3)
    assert (means > found.high).mean() == pytest.approx(0.025, abs=1e-3)


def test_infinite_values_show_nothing() -> None:
    found = compare(Crossed(np.array([[np.inf, 1.0], [1.0, 1.0]]), ("seed", CLASSES)))
    assert found.verdict == "not shown"
    assert all(math.isnan(value) for value in (found.p, found.p_flip, found.bootstrap.low))


def test_signs_of_seeds_are_all_tried() -> None:
    values = [3.0, 1.0, -0.5]
    sums = [abs(np.dot(signs, values)) for signs in itertools.product((1, -1), repeat=3)]
    assert flip_p(of_seeds(*values)) == np.mean([one >= 3.5 for one in sums]) == 0.5
    assert flip_p(of_seeds(0.1, 0.2, 0.3, 0.4, 0.5)) == 2 / 32
    assert math.isnan(flip_p(of_seeds(1.0)))
    apart = np.array([1.0, 1.0, 1.0])[:, None] + np.array([0.0, 5.0, -5.0])  # seeds of G do not agree
    assert flip_p(Crossed(apart, ("target.seed", "attack.seed"))) > flip_p(of_seeds(1.0, 1.0, 1.0)) == 0.25


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
    none = Interval()
    assert Comparison(0.5, Interval(low, high), none, none, 0.04, 0.25, 3, 3, "", ()).verdict == verdict


NOISE = 0.3
EXPERIMENTS = 1000


def made_up(
    generator: np.random.Generator, num_seeds: tuple[int, ...], num_classes: int, *spreads: float
) -> Crossed:
    """Return differences without any effect: the same classes differ under all seeds, seeds over all classes.

    `spreads` are the standard deviations of each seed and, last, of classes.
    """
    shape = (*num_seeds, num_classes)
    values = NOISE * generator.standard_normal(shape)
    for axis, spread in enumerate(spreads):
        own = [size if other == axis else 1 for other, size in enumerate(shape)]
        values += spread * generator.standard_normal(own)
    return Crossed(values, (*("target.seed", "attack.seed")[: len(num_seeds)], CLASSES))


def coverage(found: list[Interval]) -> float:
    """Return how often intervals contain 0, the truth; else a verdict would be false."""
    return float(np.mean([one.low <= 0 <= one.high for one in found]))


@pytest.mark.parametrize("num_seeds", [(3,), (5,), (3, 3)])
def test_intervals_hold_where_values_are_missing(num_seeds: tuple[int, ...]) -> None:
    """Each seed has half of the classes, as where the class draw is a replicate, or a pair is missing."""
    generator = np.random.default_rng(6)
    tried = []
    for _ in range(400):
        values = made_up(generator, num_seeds, 20, *[0.3] * len(num_seeds), 1.0).values
        if len(num_seeds) == 2:
            values[2, 2] = math.nan
        else:
            for own in values:
                own[generator.permutation(20)[:10]] = math.nan
        tried.append(Crossed(values, (*("target.seed", "attack.seed")[: len(num_seeds)], CLASSES)))
    assert 0.93 <= coverage([Uncertainty.of(one).interval for one in tried]) <= 0.995


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """Classes are the same under all seeds. Of the bootstrap, printed beside, fewer experiments are made."""
    generator = np.random.default_rng(20)
    print("\nF seeds x G seeds x classes, sd of seeds, of classes: coverage of 95 % intervals (bootstrap)")
    designs: list[tuple[tuple[int, ...], float]] = [((n,), sd) for n in (3, 5, 8) for sd in (0.1, 0.3)]
    for (num_seeds, seed_sd), num_classes, class_sd in itertools.product(
        [*designs, ((3, 3), 0.1), ((3, 3), 0.3)], (10, 62), (0.3, 1.0)
    ):
        spreads = (*[seed_sd] * len(num_seeds), class_sd)
        tried = [made_up(generator, num_seeds, num_classes, *spreads) for _ in range(EXPERIMENTS)]
        covered = coverage([Uncertainty.of(one).interval for one in tried])
        replicates = [resampled_means(one, 200) for one in tried[:200]]
        percentile = coverage([Interval(*np.quantile(means, [0.025, 0.975])) for means in replicates])
        words = " x ".join(map(str, (*num_seeds, num_classes)))
        print(f"{words}, {seed_sd}, {class_sd}: {covered:.3f} ({percentile:.3f})")
        most = 0.975 if num_seeds[0] > 3 else 0.995  # three seeds may be taken for worse than they are
        assert 0.94 <= covered <= most, (num_seeds, num_classes, seed_sd, class_sd)
