"""Points of curves' lines: which of them are one, by hand, and the coverage of distances with that."""

from collections.abc import Sequence

import numpy as np
import pytest

from orchestrator.config.report import Report
from orchestrator.report.crossed import ByClass
from orchestrator.report.curve_points import Point, pooled
from orchestrator.report.equal_utility import distances
from orchestrator.report.means import cross_replicates
from orchestrator.report.settings import Setting
from orchestrator.report.statistics import Uncertainty


def alone(value: float) -> ByClass:
    return ByClass(np.zeros(1, dtype=np.int64), np.array([value]))


def point(name: str, xs: Sequence[float], ys: Sequence[float], first: int = 0) -> Point:
    """Return the point of utilities and leakages of seeds, numbered from `first`."""
    pairs = zip(xs, ys, strict=True)
    values: dict[Setting, tuple[ByClass, ByClass]] = {
        (("seed", seed),): (alone(x), alone(y)) for seed, (x, y) in enumerate(pairs, first)
    }
    return Point(name, float(np.mean(xs)), float(np.mean(ys)), values)


LOW = point("a", [0.5, 0.5, 0.5], [0.1, 0.1, 0.1])
LATE = point("b", [0.8, 0.81, 0.82], [0.5, 0.6, 0.7])


def later(*rises: float) -> Point:
    """Return a point whose seeds are that much more accurate than LATE's."""
    return point("c", [x + rise for x, rise in zip((0.8, 0.81, 0.82), rises, strict=True)], [0.6, 0.7, 0.8])


def test_neighbours_that_are_not_told_apart_are_one_point() -> None:
    """Rises of 0.01 on average with a standard error of 0.04 / sqrt(3) = 0.023; seeds keep their means."""
    first, second = pooled([LOW, LATE, later(0.01, -0.03, 0.05)], Report())
    assert (first, second.name) == (LOW, "b and c")
    assert (second.x, second.y) == (pytest.approx(0.815), pytest.approx(0.65))
    own = [(float(x.values[0]), float(y.values[0])) for x, y in second.values.values()]
    assert [x for x, _ in own] == pytest.approx([0.805, 0.795, 0.845])
    assert [y for _, y in own] == pytest.approx([0.55, 0.65, 0.75])


@pytest.mark.parametrize(("rise", "number"), [(0.034, 2), (0.036, 3)])
def test_three_standard_errors_tell_apart(rise: float, number: int) -> None:
    """Seeds' own accuracy does not matter, only how their rises differ: 0.06 / sqrt(3) = 0.0346."""
    assert len(pooled([LOW, LATE, later(rise - 0.02, rise, rise + 0.02)], Report())) == number


def test_points_of_other_seeds_and_of_one_seed_stay_as_they_are() -> None:
    other = point("c", [0.81, 0.81, 0.84], [0.6, 0.7, 0.8], first=7)
    assert pooled([LATE, other], Report()) == [LATE, other]
    one, two = point("a", [0.5], [0.1]), point("b", [0.5001], [0.2])
    assert pooled([one, two], Report()) == [one, two]


SLOPE, SPREAD, EXPERIMENTS = 2.2, 0.042, 150  # of leakage over utility; of utility, each point of each seed


def drawn(generator: np.random.Generator, xs: Sequence[float]) -> list[Point]:
    """Return points with noise in utility of a line that is straight."""
    ys = [0.05 + SLOPE * (x - 0.4) for x in xs]
    noise = SPREAD * generator.standard_normal((len(xs), 3))
    points = [point("", [x + e for e in own], [y] * 3) for x, y, own in zip(xs, ys, noise, strict=True)]
    return sorted(points, key=lambda one: one.x)


def covered(lines: Sequence[Sequence[Point]]) -> list[bool]:
    """Return whether intervals of the distances of two lines, which are one, contain 0."""
    found = []
    for one in distances(*lines):
        values = one.values()
        own = [float(value.values[0]) for value in values.values()]
        crossed = cross_replicates([dict(seed) for seed in values], list(values.values()), own, Report())
        interval = Uncertainty.of(crossed).interval
        found.append(interval.low <= 0 <= interval.high)
    return found


def test_distances_are_covered_where_points_lie_closer_than_seeds() -> None:
    generator = np.random.default_rng(3)
    plain: list[bool] = []
    told_apart: list[bool] = []
    for _ in range(EXPERIMENTS):
        lines = [drawn(generator, xs) for xs in ((0.5, 0.79, 0.80), (0.45, 0.755, 0.76))]
        plain += covered(lines)
        told_apart += covered([pooled(points, Report()) for points in lines])
    print(f"\ncoverage: {np.mean(told_apart):.3f}, of points that are not pooled {np.mean(plain):.3f}")
    assert np.mean(plain) < 0.87
    assert np.mean(told_apart) > 0.89
