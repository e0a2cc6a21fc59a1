"""Bootstrap over crossed factors: the same replicates as by drawing levels one after the other."""

import math

import numpy as np
import pytest

from orchestrator.report import resampling
from orchestrator.report.crossed import CLASSES, Crossed
from orchestrator.report.resampling import SEED, resampled_means


def levels(axis: int, size: int, replicates: int) -> np.ndarray:
    """Return the drawn levels of a factor, (replicates, size)."""
    generator = np.random.default_rng((SEED, axis, size))
    rows = [min(resampling.ROWS, replicates - start) for start in range(0, replicates, resampling.ROWS)]
    return np.concatenate([generator.integers(size, size=(number, size)) for number in rows])


@pytest.mark.parametrize("kept", [0, 10**9])
@pytest.mark.parametrize("shape", [(7,), (3, 40), (40, 3), (3, 2, 5), (1, 4)])
@pytest.mark.parametrize("is_whole", [True, False])
def test_replicates_are_those_of_taking_drawn_levels(
    shape: tuple[int, ...], kept: int, is_whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "MOST_KEPT", kept)
    resampling._kept.cache_clear()
    values = np.random.default_rng(len(shape)).random(shape)
    if not is_whole:
        values.flat[0] = math.nan
    drawn = [levels(axis, size, 700) for axis, size in enumerate(shape)]
    expected = []
    for number in range(700):
        taken = values[np.ix_(*(places[number] for places in drawn))]
        expected.append(math.nan if np.isnan(taken).all() else float(np.nanmean(taken)))
    crossed = Crossed(values, tuple("abc"[: len(shape)]))
    for _ in range(2):
        np.testing.assert_allclose(resampled_means(crossed, 700), expected, rtol=1e-12)


def test_the_spread_is_that_of_every_factor_once() -> None:
    """The variance of a mean of n draws among n numbers is their variance over n, and effects add."""
    seeds, classes = np.array([0.0, 1.0, 5.0]), np.random.default_rng(3).standard_normal(50)
    drawn = resampled_means(Crossed(seeds[:, None] + classes, ("seed", CLASSES)))
    expected = seeds.var() / 3 + classes.var() / 50
    assert drawn.var() == pytest.approx(expected, rel=0.04)
    assert drawn.mean() == pytest.approx(seeds.mean() + classes.mean(), abs=0.05)
