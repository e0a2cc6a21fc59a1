"""Statistics of means and differences over crossed factors: intervals, p-values, Holm's correction.

Factors are the axes that repeat a setting (seeds) and the attacked classes (with faces: people). A verdict's
interval has the part of the mean's variance that seeds cause (of F and of G together, with Satterthwaite's
degrees of freedom) and the part of classes, each with its own quantile of Student's t (K. S. Banerjee, 1961),
less what interactions and noise add to both: half^2 = t_s^2 V_s + t_c^2 V_c - max(t_s, t_c)^2 V_e. Its
p-value is the level at which it touches 0. A percentile bootstrap stands beside it: over three seeds it is
too narrow, since three draws among three cannot show how seeds spread (docs/studies.md: coverage of both).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Self

import numpy as np
from scipy import special

from orchestrator.report.crossed import CLASSES, Crossed
from orchestrator.report.resampling import resampled_means

CONFIDENCE = 0.95
MOST_FLIPPED = 14  # levels whose signs are all tried: 16,384 ways
STEPS = 60  # of halving the logarithm of a p-value
LEAST_P = 1e-15
ROUNDING = 1e-9  # share by which equal sums may differ
NAN = float("nan")
WIDE = [
    *("bootstrap_low", "bootstrap_high", "seeds_low", "seeds_high", "p_flip", "p"),
    *("survives_holm", "resampled", "fixed", "note"),
]  # columns of comparisons that only the CSV has room for

Verdict = Literal["holds", "reversed", "not shown", "equal", "no trials"]


def half_column(name: str) -> str:
    """Return the column that holds half the confidence interval of a column's means."""
    return f"{name} +-"


@dataclass(frozen=True)
class Interval:
    """Ends of a 95 % interval; NaN where there is nothing to resample."""

    low: float = NAN
    high: float = NAN


@dataclass(frozen=True)
class Comparison:
    """A paired mean difference with its 95 % intervals; positive as claimed."""

    difference: float
    interval: Interval  # over all factors: the verdict's
    bootstrap: Interval  # percentiles over all factors
    seeds: Interval  # over seeds alone, classes held fixed
    p: float  # two-sided, of `interval`, before Holm; NaN where nothing was tested
    p_flip: float  # exact, of the signs of seeds; NaN with one seed
    num_seeds: int
    num_agreeing: int  # seeds whose own mean difference is positive
    resampled: str  # factors with their numbers of levels, or `nothing`
    factors: tuple[str, ...]  # axes that these are, and classes

    @property
    def verdict(self) -> Verdict:
        """Return on which side of 0 the interval lies; `equal` where nothing differs at all."""
        low, high = self.interval.low, self.interval.high
        if low == high == 0:
            return "equal"  # both settings are one computation, such as an aligned inverter of full scores
        if low > 0:
            return "holds"
        return "reversed" if high < 0 else "not shown"

    @property
    def note(self) -> str:
        """Return what one seed leaves out; empty with several."""
        return one_seed_note(self.factors)


def one_seed_note(resampled: Sequence[str]) -> str:
    """Return what one seed leaves of an interval; empty with several."""
    if not resampled:
        return "one seed: no interval"
    return "one seed: only classes are resampled" if tuple(resampled) == (CLASSES,) else ""


def compare(crossed: Crossed, *, sign: float = 1.0) -> Comparison:
    """Compare two settings by their paired differences."""
    signed = crossed.times(sign)
    by_seed = signed.repeated()
    own = by_seed.values[by_seed.seen]
    error = Uncertainty.of(signed)
    is_equal = not crossed.filled.any()
    return Comparison(
        difference=signed.mean,
        interval=error.interval,
        bootstrap=bootstrap_interval(signed),
        seeds=Uncertainty.of(by_seed).interval,
        p=NAN if is_equal else error.p,
        p_flip=NAN if is_equal else flip_p(by_seed),
        num_seeds=len(own),
        num_agreeing=int((own > 0).sum()),
        resampled=signed.in_words,
        factors=signed.resampled,
    )


@dataclass(frozen=True)
class Uncertainty:
    """A mean over crossed factors with the parts of its variance."""

    mean: float
    parts: tuple[tuple[float, float], ...]  # of seeds and of classes: variance, degrees of freedom
    residual: float  # variance by interactions and noise, which is in each of the parts

    @classmethod
    def of(cls, crossed: Crossed) -> Self:
        """Estimate each factor's part from the spread of its levels' means.

        Sums over a level stand for means where values are missing, as in multiway clustered errors (Cameron,
        Gelbach and Miller, 2011). Without several levels, or with infinite values, there are no parts.
        """
        if not crossed.drawn or not np.isfinite(crossed.filled).all():
            return cls(crossed.mean, (), 0.0)
        around = np.where(crossed.seen, crossed.values - crossed.mean, 0.0)
        groups: dict[bool, list[tuple[float, int]]] = {}
        for axis in crossed.drawn:
            size = crossed.values.shape[axis]
            squares = float((crossed.level_sums(axis, around) ** 2).sum())
            part = (size / (size - 1) * squares / crossed.count**2, size - 1)
            groups.setdefault(crossed.factors[axis] == CLASSES, []).append(part)
        free = crossed.count - 1 - sum(crossed.values.shape[axis] - 1 for axis in crossed.drawn)
        residual = float((crossed.residuals() ** 2).sum()) / free / crossed.count if free > 0 else 0.0
        return cls(crossed.mean, tuple(joined(parts, residual) for parts in groups.values()), residual)

    def half(self, level: float = 1 - CONFIDENCE) -> float:
        """Return half the interval that misses the truth with this probability; NaN without parts."""
        if not self.parts:
            return NAN
        squares = [float(special.stdtrit(freedom, 1 - level / 2)) ** 2 for _, freedom in self.parts]
        own = [square * variance for square, (variance, _) in zip(squares, self.parts, strict=True)]
        return math.sqrt(max(*own, sum(own) - (len(own) - 1) * max(squares) * self.residual, 0.0))

    @property
    def error(self) -> float:
        """The standard error of the mean; 0 without parts."""
        variances = [variance for variance, _ in self.parts]
        return math.sqrt(max(0.0, *variances, sum(variances) - (len(variances) - 1) * self.residual))

    @property
    def interval(self) -> Interval:
        """The 95 % interval."""
        half = self.half()
        return Interval(self.mean - half, self.mean + half)

    @property
    def p(self) -> float:
        """Two-sided p-value of a mean of 0: the level at which the interval touches it; 0 without spread."""
        if not self.parts:
            return NAN
        if self.half() == 0:
            return 0.0 if self.mean else 1.0
        low, high = math.log(LEAST_P), 0.0
        for _ in range(STEPS):
            middle = (low + high) / 2
            is_outside = self.half(math.exp(middle)) < abs(self.mean)
            low, high = (low, middle) if is_outside else (middle, high)
        return math.exp(high)


def joined(parts: Sequence[tuple[float, int]], residual: float) -> tuple[float, float]:
    """Return the variance of several factors together with its degrees of freedom (Satterthwaite, 1946)."""
    variances = [variance for variance, _ in parts]
    variance = max(*variances, sum(variances) - (len(parts) - 1) * residual, 0.0)
    spread = sum(own**2 / freedom for own, freedom in parts)
    return variance, variance**2 / spread if spread else float(parts[0][1])


def bootstrap_interval(crossed: Crossed) -> Interval:
    """Return the percentiles of the resampled means."""
    if not crossed.drawn or not np.isfinite(crossed.filled).all():
        return Interval()
    means = resampled_means(crossed)
    low, high = np.nanquantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def flip_p(by_seed: Crossed) -> float:
    """Return the share of all choices of signs for a factor's means whose sum is as large as theirs.

    Two-sided and exact; of several factors the larger one. With n seeds it is at least 2 / 2^n. NaN with one
    seed, with infinite values, and for more levels than can be tried.
    """
    sizes = [by_seed.values.shape[axis] for axis in by_seed.drawn]
    if not sizes or max(sizes) > MOST_FLIPPED or not np.isfinite(by_seed.filled).all():
        return NAN
    shares = []
    for axis, size in zip(by_seed.drawn, sizes, strict=True):
        sums, counts = by_seed.level_sums(axis, by_seed.filled), by_seed.level_sums(axis, by_seed.seen)
        flipped = np.abs(_signs(size) @ (sums / counts))
        shares.append(float((flipped >= flipped[0] * (1 - ROUNDING)).mean()))
    return max(shares)


@lru_cache(maxsize=MOST_FLIPPED)
def _signs(size: int) -> np.ndarray:
    """Return every choice of signs, (2^size, size); the first has no minus."""
    return np.array(list(itertools.product((1.0, -1.0), repeat=size)))


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of independent values and half of its 95 % t-interval; NaN for no values, and for the
    interval of one."""
    crossed = Crossed(np.asarray(values, dtype=np.float64), ("values",))
    return crossed.mean, Uncertainty.of(crossed).half()


def holm(values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values in the same order; NaN was not tested and stays."""
    tested = sorted((p, place) for place, p in enumerate(values) if not np.isnan(p))
    adjusted = [NAN] * len(values)
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        adjusted[place] = largest
    return adjusted
