"""Bootstrap over crossed factors: each factor's levels are drawn once for a replicate, weights multiply.

A replicate counts how often each level of each factor was drawn (A. B. Owen, The pigeonhole bootstrap, 2007);
its mean weighs a value by the product of its levels' counts, so that replicates are matrix products. Arrays
of one shape share every draw.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from orchestrator.report.crossed import Crossed

REPLICATES = 10_000
ROWS = 500  # replicates computed at once: their counts stay in the processor's cache
MOST_KEPT = 8_000_000  # counts of a factor that are kept between arrays, eight bytes each
SEED = 20190822  # the same records give the same interval


def resampled_means(crossed: Crossed, replicates: int = REPLICATES) -> np.ndarray:
    """Return the means of replicates, (replicates,) float64; NaN where none of the drawn was measured."""
    order = sorted(range(crossed.values.ndim), key=lambda axis: crossed.values.shape[axis])
    values = crossed.filled.transpose(order).reshape(-1, crossed.values.shape[order[-1]])
    seen = None if crossed.seen.all() else crossed.seen.transpose(order).reshape(values.shape).astype(float)
    means = []
    sizes = [crossed.values.shape[axis] for axis in order]
    for counts in _counts(tuple(zip(order, sizes, strict=True)), replicates):
        *few, many = counts
        weights = np.ones((len(many), 1))
        for part in few:
            weights = (weights[:, :, None] * part[:, None, :]).reshape(len(many), -1)
        total = ((many @ values.T) * weights).sum(axis=1)
        number = crossed.count if seen is None else ((many @ seen.T) * weights).sum(axis=1)
        means.append(total / np.where(number, number, np.nan))
    return np.concatenate(means)


def _counts(factors: tuple[tuple[int, int], ...], replicates: int) -> Iterator[list[np.ndarray]]:
    """Yield the counts of all factors, (axis, levels) each, for some replicates after the other."""
    parts = []
    for axis, size in factors:
        draw = _kept if replicates * size <= MOST_KEPT else _drawn
        parts.append(iter(draw(axis, size, replicates)))
    yield from (list(counts) for counts in zip(*parts, strict=True))


@lru_cache(maxsize=4)
def _kept(axis: int, size: int, replicates: int) -> tuple[np.ndarray, ...]:
    return tuple(_drawn(axis, size, replicates))


def _drawn(axis: int, size: int, replicates: int) -> Iterator[np.ndarray]:
    """Yield how often each of `size` levels is among as many draws, (<= ROWS, size) float64."""
    generator = np.random.default_rng((SEED, axis, size))
    for start in range(0, replicates, ROWS):
        rows = min(ROWS, replicates - start)
        levels = generator.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        counts = np.bincount(levels.ravel(), minlength=rows * size)
        yield counts.reshape(rows, size).astype(np.float64)
