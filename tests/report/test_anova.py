"""Analysis of variance over seeds that are crossed with settings: how often it is wrong, and what it says."""

import itertools

import numpy as np
import pytest
from scipy import stats

from orchestrator.report.anova import LEAST_GAP_LEVELS, LEAST_SHARE_LEVELS, Anova

SWEEPS = 300


def seeds(num: int) -> list[dict[str, int]]:
    """Return one axis of seeds."""
    return [{"seed": at} for at in range(num)]


def false_alarms(values: list[np.ndarray], replicates: list[dict[str, int]]) -> float:
    """Return the share of blocks, (settings ..., replicates), whose first axis is called significant."""
    return float(np.mean([Anova(own, replicates).part([(0,)]).p < 0.05 for own in values]))


def test_an_axis_is_tested_against_its_own_spread_over_seeds() -> None:
    values = np.random.default_rng(0).normal(size=(2, 4, 5)) + np.arange(5) * 3.0
    means = values.mean(axis=1)
    own = Anova(values, seeds(5)).part([(0,)])
    assert own.p == pytest.approx(stats.ttest_rel(means[0], means[1]).pvalue)
    assert own.freedom == 1


def test_near_copies_of_a_seed_are_no_evidence() -> None:
    """A seed's model stands behind all eight values of the second axis: 3 numbers for each value, not 24."""
    generator = np.random.default_rng(1)
    values = [
        np.repeat(generator.normal(size=(2, 1, 3)), 8, axis=1) + 0.1 * generator.normal(size=(2, 8, 3))
        for _ in range(SWEEPS)
    ]
    assert false_alarms(values, seeds(3)) < 0.085  # 0.05 and 2.7 standard errors


def test_two_axes_of_seeds_both_make_an_error() -> None:
    generator = np.random.default_rng(2)
    values = [
        np.repeat(
            generator.normal(size=(2, 1, 3, 1))
            + generator.normal(size=(2, 1, 1, 3))
            + 0.3 * generator.normal(size=(2, 1, 3, 3)),
            4,
            axis=1,
        ).reshape(2, 4, 9)
        for _ in range(SWEEPS)
    ]
    pairs = [
        {"target.seed": one, "attack.seed": other} for one, other in itertools.product(range(3), range(3))
    ]
    assert false_alarms(values, pairs) < 0.085
    real = [own + np.array([-3.0, 3.0])[:, None, None] for own in values]
    assert false_alarms(real, pairs) > 0.8
    assert np.isnan(Anova(values[0][..., :5], pairs[:5]).part([(0,)]).p)  # crossed in part


def two_axes(generator: np.random.Generator, second: float, num: int) -> np.ndarray:
    """Return a block of 2 x 2 settings whose axes have mean effects of 1 and of `second`."""
    first, other = (mean + 0.3 * generator.normal(size=num) for mean in (1.0, second))
    signs = np.array([-0.5, 0.5])
    values = signs[:, None, None] * first + signs[None, :, None] * other
    return np.asarray(values + 0.05 * generator.normal(size=values.shape))


@pytest.mark.parametrize("num", [2, LEAST_GAP_LEVELS - 1, LEAST_GAP_LEVELS])
def test_equal_axes_are_seldom_told_apart(num: int) -> None:
    generator = np.random.default_rng(3)
    called = 0
    for _ in range(SWEEPS):
        anova = Anova(two_axes(generator, 1.0, num), seeds(num))
        first, other = sorted([(0,), (1,)], key=lambda key: -anova.part([key]).squares)
        called += anova.is_ahead(first, [other])
    assert called == 0 if num < LEAST_GAP_LEVELS else called / SWEEPS < 0.085


def test_a_larger_axis_is_found_with_enough_seeds() -> None:
    generator = np.random.default_rng(4)
    found = [Anova(two_axes(generator, 0.2, 8), seeds(8)).is_ahead((0,), [(1,)]) for _ in range(50)]
    assert np.mean(found) > 0.8


def test_few_seeds_have_no_percentiles_and_none_is_below_0() -> None:
    values = np.random.default_rng(5).normal(size=(2, 2, LEAST_SHARE_LEVELS))
    groups = {"a": [(0,)], "b": [(1,)]}
    assert Anova(values[..., 1:], seeds(LEAST_SHARE_LEVELS - 1)).intervals(groups) == {}
    found = Anova(values, seeds(LEAST_SHARE_LEVELS)).intervals(groups)
    assert all(0 <= one.low < one.high <= 1 for one in found.values())


def test_without_spread_any_effect_is_certain_and_none_is_none() -> None:
    values = np.zeros((2, 2, 3))
    values[1] += 1
    anova = Anova(values, seeds(3))
    assert (anova.part([(0,)]).p, anova.part([(1,)]).p) == (0.0, 1.0)
