"""Crossed values: an array with a named axis for each factor that repeats a setting, and one for classes.

The same people stand behind every seed, and every seed of F can meet every seed of G: factors are crossed, so
each level has one effect on all the values that share it. What was not measured is NaN.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from orchestrator.config.base import Scalar

CLASSES = "classes"
TOGETHER = " and "  # between the axes of one factor
SWEEPS = 20  # of removing effects one factor after the other; whole arrays need one


@dataclass(frozen=True, eq=False)
class ByClass:
    """A number for each class."""

    identities: np.ndarray  # (k,) int64, ascending: the same class of the same data set has the same one
    values: np.ndarray  # (k,) float64

    def minus(self, other: "ByClass") -> "ByClass":
        """Return the differences of the classes that both have."""
        shared, mine, theirs = np.intersect1d(
            self.identities, other.identities, assume_unique=True, return_indices=True
        )
        return ByClass(shared, self.values[mine] - other.values[theirs])

    def among(self, other: "ByClass") -> "ByClass":
        """Return the numbers of the classes that both have."""
        is_shared = np.isin(self.identities, other.identities, assume_unique=True)
        return ByClass(self.identities[is_shared], self.values[is_shared])


@dataclass(frozen=True, eq=False)
class Crossed:
    """Values over crossed factors."""

    values: np.ndarray  # float64, an axis for each factor, NaN where nothing was measured
    factors: tuple[str, ...]

    @cached_property
    def seen(self) -> np.ndarray:
        """Where a value was measured, of the same shape."""
        return ~np.isnan(self.values)

    @cached_property
    def count(self) -> int:
        """Number of measured values."""
        return int(self.seen.sum())

    @cached_property
    def mean(self) -> float:
        """Mean of the measured values; of equal ones exactly their value, so that they have no spread."""
        if not self.count:
            return float("nan")
        measured = self.values[self.seen]
        return float(np.clip(self.filled.sum() / self.count, measured.min(), measured.max()))

    @cached_property
    def filled(self) -> np.ndarray:
        """Values with 0 where nothing was measured."""
        return np.where(self.seen, self.values, 0.0)

    @property
    def drawn(self) -> list[int]:
        """Axes with several levels: those that can be resampled."""
        return [axis for axis, size in enumerate(self.values.shape) if size > 1]

    @property
    def resampled(self) -> tuple[str, ...]:
        """Axes, and classes, that intervals resample."""
        return tuple(part for axis in self.drawn for part in self.factors[axis].split(TOGETHER))

    @property
    def in_words(self) -> str:
        """Return factors of several levels with their numbers, `3 seed x 62 classes`."""
        shape = self.values.shape
        return " x ".join(f"{shape[axis]} {self.factors[axis]}" for axis in self.drawn) or "nothing"

    def times(self, sign: float) -> "Crossed":
        """Return the values multiplied by a number."""
        return Crossed(sign * self.values, self.factors)

    def without(self, factor: str) -> "Crossed":
        """Return means over a factor, which holds its levels fixed."""
        if factor not in self.factors:
            return self
        axis = self.factors.index(factor)
        sums, counts = self.filled.sum(axis), self.seen.sum(axis)
        means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
        return Crossed(means, self.factors[:axis] + self.factors[axis + 1 :])

    def repeated(self) -> "Crossed":
        """Return means over classes: a number for each combination of replicates."""
        return self.without(CLASSES)

    def level_sums(self, axis: int, values: np.ndarray) -> np.ndarray:
        """Return sums over all other axes, (levels of the axis,)."""
        return np.asarray(values.sum(axis=tuple(other for other in range(values.ndim) if other != axis)))

    def residuals(self) -> np.ndarray:
        """Return what the sum of one effect for each level leaves of the values, 0 where not measured."""
        left = np.where(self.seen, self.values - self.mean, 0.0)
        counts = {axis: np.maximum(self.level_sums(axis, self.seen), 1) for axis in self.drawn}
        for _ in range(1 if self.seen.all() else SWEEPS):
            for axis, number in counts.items():
                shape = [-1 if other == axis else 1 for other in range(left.ndim)]
                effects = (self.level_sums(axis, left) / number).reshape(shape)
                left = np.where(self.seen, left - effects, 0.0)
        return left


def cross(cells: Sequence[tuple[Mapping[str, Scalar], ByClass | float]]) -> Crossed:
    """Return the array of cells, of one at least: values of the replicate axes, with numbers by class or one
    number each.

    An axis with one value is no factor. Two axes are one factor where each value of the second comes with one
    value of the first only: both change together, or each seed of F has its own seeds of G. The factor has
    the levels of the first and both names. Cells at one place are averaged.
    """
    places = _places([axes for axes, _ in cells])
    numbers = [value if isinstance(value, ByClass) else _alone(value) for _, value in cells]
    identities = np.unique(np.concatenate([one.identities for one in numbers]))
    shape = (*(int(levels.max()) + 1 for levels in places.values()), len(identities))
    sums, counts = np.zeros(shape), np.zeros(shape)
    for cell, one in enumerate(numbers):
        place = tuple(int(levels[cell]) for levels in places.values())
        columns = np.searchsorted(identities, one.identities)
        sums[place][columns] += one.values
        counts[place][columns] += 1
    values = np.divide(sums, counts, out=np.full(shape, np.nan), where=counts > 0)
    if any(isinstance(value, ByClass) for _, value in cells):
        return Crossed(values, (*places, CLASSES))
    return Crossed(values[..., 0], tuple(places))


def _alone(value: float) -> ByClass:
    """Return a number of no class in particular."""
    return ByClass(np.zeros(1, dtype=np.int64), np.array([value], dtype=np.float64))


def _places(cells: Sequence[Mapping[str, Scalar]]) -> dict[str, np.ndarray]:
    """Return for each factor the level of each cell, (cells,) int."""
    axes = dict.fromkeys(axis for cell in cells for axis in cell)
    levels = {axis: _levels([cell.get(axis) for cell in cells]) for axis in axes}
    factors: dict[str, list[int]] = {}
    for axis, places in sorted(levels.items(), key=lambda item: max(item[1])):
        outer = next((name for name, known in factors.items() if _is_nested(places, known)), None)
        if outer is not None:
            factors = {f"{n}{TOGETHER}{axis}" if n == outer else n: known for n, known in factors.items()}
        elif max(places):
            factors[axis] = places
    return {name: np.array(places) for name, places in factors.items()}


def _levels(values: Sequence[Scalar | None]) -> list[int]:
    """Return each value's number in the order of first appearance."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(str(value), len(numbers)) for value in values]


def _is_nested(inner: Sequence[int], outer: Sequence[int]) -> bool:
    """Return whether each inner level is met with one outer level only."""
    return len(set(zip(inner, outer, strict=True))) == len(set(inner))
