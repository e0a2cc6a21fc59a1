"""Leakage at equal utility: the vertical distance of two lines of a robustness curve (TL-DMI, Figure 1).

A line is straight between neighbouring points, in the order of their mean utility. Each point of one line
that lies within the other's range of utility is set against that line's height there: h = y_p + (x - x_p)
slope, slope = (y_q - y_p) / (x_q - x_p), from means over replicates and classes. With the slopes held fixed a
distance is linear in the values of each replicate and class, so that its interval is that of every comparison
(`statistics`): a value of y counts with its weight, and one of x with the slope, since a point that seems
more accurate than it is lies too far to the right. Left out is how the slopes themselves vary, so that they
are taken between points whose utility is told apart (`curve_points`, with the coverage).
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from orchestrator.config.base import is_same
from orchestrator.config.report import Report, RobustnessCurve
from orchestrator.metrics.names import MetricName
from orchestrator.report.crossed import ByClass
from orchestrator.report.curve_points import Point, Values, combined, points_of
from orchestrator.report.curves import curve_lines
from orchestrator.report.held import without_empty
from orchestrator.report.means import cross_replicates
from orchestrator.report.per_image import PerImage
from orchestrator.report.settings import Setting, held_fixed
from orchestrator.report.statistics import Comparison, compare
from orchestrator.sweep.records import TrialRecord

NAN = float("nan")
ALL = "mean of these"
"""Row that averages the distances of a line: the headline."""


@dataclass(frozen=True)
class Distance:
    """Height of the reference less that of another line at one utility, as a sum over points."""

    at: str  # whose utility
    x: float
    heights: tuple[float, float]  # of the reference and of the line
    weights: tuple[tuple[Point, float, float], ...]  # a point with the weights of its x and of its y

    def values(self) -> dict[Setting, ByClass]:
        """Return the distance by replicate and class, for the replicates that all points have."""
        shared = [one for one in self.weights[0][0].values if all(one in p.values for p, *_ in self.weights)]
        return {one: combined([self._part(one, *part) for part in self.weights]) for one in shared}

    def _part(self, replicate: Setting, point: Point, of_x: float, of_y: float) -> ByClass:
        x, y = point.values[replicate]
        return ByClass(y.identities, of_x * (x.values - point.x) + of_y * y.values)


def equal_table(
    curve: RobustnessCurve, records: Sequence[TrialRecord], images: PerImage, report: Report
) -> pd.DataFrame:
    """Return for each line but the reference one row for each shared point, and first one of their mean.

    A positive difference says that the reference leaks more at equal utility. Lines without a shared utility
    have one row that says so. The curve has a reference; empty where no trial has it.
    """
    axes, lines = curve_lines(curve, records, report)
    read = Values(
        curve, images, [one for points in lines.values() for many in points.values() for one in many]
    )
    drawn = {line: points_of(read, axes, points, report) for line, points in lines.items()}
    reference = next((points for line, points in drawn.items() if is_same(line, curve.reference)), None)
    rows: list[dict[str, object]] = []
    for line, points in drawn.items():
        if reference is not None and points is not reference:
            rows += [{curve.line: line} | row for row in _rows(curve, reference, points, report)]
    return without_empty(pd.DataFrame(rows))


def distances(reference: Sequence[Point], line: Sequence[Point]) -> list[Distance]:
    """Return the distances at every point of either line that lies within the other's range of utility, from
    the least utility to the largest; each line's points are in the order of x."""
    found = [_distance(point, line, 1.0) for point in reference if _within(point, line)]
    found += [_distance(point, reference, -1.0) for point in line if _within(point, reference)]
    return sorted(found, key=lambda one: one.x)


def _within(point: Point, line: Sequence[Point]) -> bool:
    return line[0].x <= point.x <= line[-1].x and line[0].x < line[-1].x


def _distance(point: Point, line: Sequence[Point], sign: float) -> Distance:
    """Return `sign` times the point's height less the line's there."""
    left, right = next(pair for pair in itertools.pairwise(line) if pair[0].x <= point.x <= pair[1].x)
    share = (point.x - left.x) / (right.x - left.x) if right.x > left.x else 0.0
    slope = (right.y - left.y) / (right.x - left.x) if right.x > left.x else 0.0
    height = (1 - share) * left.y + share * right.y
    own = [(point, -sign * slope, sign)]
    others = [
        (end, sign * weight * slope, -sign * weight) for end, weight in ((left, 1 - share), (right, share))
    ]
    heights = (point.y, height) if sign > 0 else (height, point.y)
    return Distance(point.name, point.x, heights, (*own, *others))


def _rows(
    curve: RobustnessCurve, reference: Sequence[Point], line: Sequence[Point], report: Report
) -> Iterator[dict[str, object]]:
    """Yield the rows of one line: the mean of its distances, then each."""
    found = distances(reference, line)
    if not found:
        spans = [f"{points[0].x:.4g} to {points[-1].x:.4g}" for points in (reference, line)]
        yield _without_answer(curve, f"no shared {curve.x}: {spans[0]} and {spans[1]}")
        return
    values = [one.values() for one in found]
    shared = [one for one in values[0] if all(one in other for other in values)]
    mean = {one: combined([own[one] for own in values], 1 / len(values)) for one in shared}
    xs = [one.x for one in found]
    head = {"at": ALL, f"{curve.x} from": min(xs), f"{curve.x} to": max(xs)}
    heights = np.mean([one.heights for one in found], axis=0)
    yield head | _answer(curve, heights, mean, report)
    for one, own in zip(found, values, strict=True):
        head = {"at": one.at, f"{curve.x} from": one.x, f"{curve.x} to": one.x}
        yield head | _answer(curve, one.heights, own, report)


def _answer(
    curve: RobustnessCurve, heights: Sequence[float], values: Mapping[Setting, ByClass], report: Report
) -> dict[str, object]:
    """Return the heights of both lines and the difference with its interval."""
    row: dict[str, object] = {"reference": float(heights[0]), "line": float(heights[1])}
    if not values:
        return row | _verdict(None, "no replicate has all points")
    parts = list(values.values())
    own = [float(one.values.mean()) for one in parts]
    crossed = cross_replicates([dict(one) for one in values], parts, own, report)
    sign = -1.0 if MetricName.parse(curve.y).metric.leaks == "down" else 1.0
    comparison = compare(crossed, sign=sign)
    return row | _verdict(comparison, comparison.note)


def _verdict(comparison: Comparison | None, note: str) -> dict[str, object]:
    if comparison is None:
        row: dict[str, object] = dict.fromkeys(("difference", "low", "high", "p"), NAN)
        empty = {"seeds_agreeing": 0, "seeds": 0, "verdict": "no trials", "resampled": "nothing", "fixed": ""}
        return row | empty | {"note": note}
    return {
        "difference": comparison.difference,
        "low": comparison.interval.low,
        "high": comparison.interval.high,
        "p": comparison.p,
        "seeds_agreeing": comparison.num_agreeing,
        "seeds": comparison.num_seeds,
        "verdict": comparison.verdict,
        "resampled": comparison.resampled,
        "fixed": held_fixed(comparison.factors),
        "note": note,
    }


def _without_answer(curve: RobustnessCurve, reason: str) -> dict[str, object]:
    head: dict[str, object] = {"at": "", f"{curve.x} from": NAN, f"{curve.x} to": NAN}
    return head | {"reference": NAN, "line": NAN} | _verdict(None, reason)
