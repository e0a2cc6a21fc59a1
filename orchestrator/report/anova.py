"""Analysis of variance of a complete block whose settings are repeated over the same seeds.

Seeds are crossed with settings: a seed's model stands behind every setting, so the trials of a setting are no
independent repeats. Each source has therefore its own error, its interaction with the replicates: a source of
d degrees of freedom over n seeds is tested with d and d (n - 1) (G. Keppel, 1991, design A x S). Over several
crossed factors of seeds the error is that of all of them, with Satterthwaite's degrees of freedom (quasi F,
1946), never below one factor's. Orthonormal contrasts of each axis, the first one constant, split squares.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import special

from orchestrator.config.base import Scalar
from orchestrator.report.crossed import Crossed, cross
from orchestrator.report.resampling import resampled_means
from orchestrator.report.statistics import CONFIDENCE, NAN, Interval, Uncertainty, holm, joined

DRAWS = 2000  # resampled sets of replicates
LEAST_SHARE_LEVELS = 8  # of replicates: with fewer, percentiles of shares cover far less than they say
LEAST_GAP_LEVELS = 5  # of replicates: with fewer, two equal axes are told apart too often
ROUNDING = 1e-12  # of squares, beside those of the largest value: equal numbers have no variance

Places = tuple[int, ...]
"""Numbers of axes that vary together."""


@dataclass(frozen=True)
class Part:
    """What one source, or several together, has of the variance."""

    squares: float
    freedom: int
    noise: float = NAN  # mean square of its error
    p: float = NAN


class Anova:
    """The sums of squares of a block, their tests and their intervals."""

    def __init__(self, values: np.ndarray, replicates: Sequence[Mapping[str, Scalar]]) -> None:
        """Split values, (settings of each axis ..., replicates); `replicates`: axes that repeat each."""
        self._replicates = list(replicates)
        largest = float((values**2).max())
        values = values - values.mean()
        total = float((values**2).sum())
        self.tiny = ROUNDING**2 * largest * values.size
        self.total = total if total > self.tiny else 0.0
        self.values, self.shape, self.num = values, values.shape[:-1], values.shape[-1]
        turned = values
        for axis, size in enumerate(self.shape):
            turned = np.moveaxis(np.tensordot(turned, contrasts(size), axes=(axis, 1)), -1, axis)
        self._turned = turned  # of the same shape

    @cached_property
    def places(self) -> list[Places]:
        """Axes, alone and together."""
        axes = range(len(self.shape))
        return [own for order in range(1, len(self.shape) + 1) for own in itertools.combinations(axes, order)]

    @cached_property
    def replicate_squares(self) -> float:
        """Squares of the replicates' own means."""
        return float((self._turned[(0,) * len(self.shape)] ** 2).sum())

    @property
    def levels(self) -> int:
        """Levels of the factor of replicates that has fewest; 1 without several."""
        shape = [size for size in self._crossed(np.zeros(self.num)).values.shape if size > 1]
        return min(shape, default=1)

    def part(self, keys: Sequence[Places]) -> Part:
        """Return what these sources have together."""
        own = self._coefficients(keys)  # (freedom, replicates)
        squares = self.num * float((own.mean(axis=1) ** 2).sum())
        squares = squares if squares > self.tiny else 0.0
        noise, free = self._error(own)
        if not self.total or math.isnan(noise):
            return Part(squares, len(own))
        noise = noise if noise * free > self.tiny else 0.0
        return Part(squares, len(own), noise, _f_test(squares, noise, len(own), free))

    def _coefficients(self, keys: Sequence[Places]) -> np.ndarray:
        """Return the contrasts of these sources in each replicate, (freedom, replicates)."""
        places = [
            tuple(slice(1, None) if axis in key else slice(0, 1) for axis in range(len(self.shape)))
            for key in keys
        ]
        return np.concatenate([self._turned[place].reshape(-1, self.num) for place in places])

    def _error(self, own: np.ndarray) -> tuple[float, float]:
        """Return the mean square of contrasts around their means over replicates with its degrees of freedom;
        NaN for one replicate, and for seeds that are crossed in part."""
        crossed = [self._crossed(row) for row in own]
        first = crossed[0]
        if not first.drawn or not first.seen.all():
            return NAN, NAN
        values = np.stack([one.values for one in crossed])  # (freedom, levels of each factor ...)
        centered = values - values.mean(axis=tuple(range(1, values.ndim)), keepdims=True)
        per_value = self.num / first.count  # values that are averaged at one place
        parts, left = [], per_value * float((centered**2).sum())
        for axis in first.drawn:
            size = first.values.shape[axis]
            means = centered.mean(axis=tuple(o for o in range(1, values.ndim) if o != axis + 1))
            squares = per_value * float((means**2).sum()) * first.count / size
            freedom = len(own) * (size - 1)
            parts.append((squares / freedom, freedom))
            left -= squares
        rest = len(own) * (first.count - 1) - sum(freedom for _, freedom in parts)
        return joined(parts, max(left, 0.0) / rest if rest else 0.0)

    def intervals(self, groups: Mapping[str, Sequence[Places]]) -> dict[str, Interval]:
        """Return percentiles of shares over resampled replicates; none below `LEAST_SHARE_LEVELS` levels."""
        if self.levels < LEAST_SHARE_LEVELS or not self.total:
            return {}
        cells = self.values.reshape(-1, self.num)
        crossed = [self._crossed(own) for own in cells]
        means = np.stack([resampled_means(one, DRAWS) for one in crossed], axis=1)
        squares = np.mean(
            [resampled_means(Crossed(one.values**2, one.factors), DRAWS) for one in crossed], axis=0
        )
        center = means.mean(axis=1, keepdims=True)
        whole = (squares - center[:, 0] ** 2) * math.prod(self.shape)
        whole = np.where(whole > 0, whole, np.nan)
        turned = (means - center).reshape(-1, *self.shape)
        for axis, size in enumerate(self.shape, start=1):
            turned = np.moveaxis(np.tensordot(turned, contrasts(size), axes=(axis, 1)), -1, axis)
        found = {}
        for name, keys in groups.items():
            places = [
                (
                    slice(None),
                    *(slice(1, None) if axis in key else slice(0, 1) for axis in range(len(self.shape))),
                )
                for key in keys
            ]
            own = sum((turned[place] ** 2).reshape(len(turned), -1).sum(axis=1) for place in places)
            found[name] = _percentiles(own / whole)
        return found

    def is_ahead(self, first: Places, others: Sequence[Places]) -> bool:
        """Return whether a source's squares are shown to exceed those of each other one (Holm).

        By the t-interval of the replicates' own gaps, each less what spread alone adds to squares. Fewer than
        `LEAST_GAP_LEVELS` levels of replicates show nothing.
        """
        if self.levels < LEAST_GAP_LEVELS:
            return False
        own = self._own_squares(first)
        gaps = [Uncertainty.of(self._crossed(own - self._own_squares(other))) for other in others]
        adjusted = holm([gap.p for gap in gaps])
        return all(gap.mean > 0 and p < 1 - CONFIDENCE for gap, p in zip(gaps, adjusted, strict=True))

    def _own_squares(self, key: Places) -> np.ndarray:
        """Return the squared effects in each replicate without bias, (replicates,)."""
        own = self._coefficients([key])
        return np.asarray((own**2).sum(axis=0) - own.var(axis=1, ddof=1).sum())

    def _crossed(self, values: np.ndarray) -> Crossed:
        return cross(list(zip(self._replicates, map(float, values), strict=True)))


def contrasts(size: int) -> np.ndarray:
    """Return an orthonormal basis, (size, size), whose first row is constant (Helmert)."""
    rows = [np.full(size, 1 / math.sqrt(size))]
    for number in range(1, size):
        row = np.zeros(size)
        row[:number], row[number] = 1.0, -number
        rows.append(row / math.sqrt(number * (number + 1)))
    return np.stack(rows)


def _f_test(squares: float, noise: float, freedom: int, free: float) -> float:
    """Return the p-value of squares against their error; without an error 0 for any squares at all."""
    if noise <= 0:
        return 0.0 if squares else 1.0
    return float(special.fdtrc(freedom, free, squares / freedom / noise))


def _percentiles(values: np.ndarray) -> Interval:
    """Return the middle 95 % of shares, which are at least 0."""
    low, high = np.nanquantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(max(float(low), 0.0), max(float(high), 0.0))
