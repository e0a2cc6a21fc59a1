"""Points of a robustness curve's lines: mean utility and leakage with their values by replicate and class.

Neighbours on a line whose utility is not told apart are one point, their mean: the line between them would be
as steep as chance has it. On made-up straight lines with 3 seeds, two points of which differ by 0.01 in
utility and seeds by 0.04, 95 % intervals of a distance cover 0.90 of the time with this and 0.81 without;
where points are told apart either covers 0.93 and more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from orchestrator.config.base import Scalar
from orchestrator.config.report import Report, RobustnessCurve
from orchestrator.report.crossed import TOGETHER, ByClass
from orchestrator.report.means import cross_replicates
from orchestrator.report.per_image import PerImage
from orchestrator.report.settings import Setting, in_words, replicate_of
from orchestrator.report.statistics import Uncertainty
from orchestrator.sweep.records import TrialRecord

APART = 3.0
"""Standard errors of their paired difference by which the utility of neighbours differs at least."""


@dataclass(frozen=True)
class Point:
    """A point of a line: its mean utility and leakage, and both by replicate (and class)."""

    name: str
    x: float
    y: float
    values: Mapping[Setting, tuple[ByClass, ByClass]]  # replicate -> its values of x and of y


class Values:
    """Reads trials' utility and leakage: by class where every trial kept both so, else a number each."""

    def __init__(self, curve: RobustnessCurve, images: PerImage, records: Sequence[TrialRecord]) -> None:
        self._metrics = (curve.x, curve.y)
        kept = [[images.by_class(one, metric) for metric in self._metrics] for one in records]
        self._images, self._have_classes = images, all(None not in pair for pair in kept)

    def of(self, record: TrialRecord) -> tuple[ByClass, ByClass]:
        """Return both, of the same classes."""
        x, y = (self._images.by_class(record, metric) for metric in self._metrics)
        if x is None or y is None or not self._have_classes:
            x, y = (_alone(record.metrics[metric]) for metric in self._metrics)
        return x.among(y), y.among(x)


def points_of(
    read: Values,
    axes: Sequence[str],
    points: Mapping[tuple[Scalar, ...], Sequence[TrialRecord]],
    report: Report,
) -> list[Point]:
    """Return a line's points from the least utility to the largest, those pooled that are not told apart."""
    found = []
    for place, members in points.items():
        values = {tuple(replicate_of(one.axes, report.repeats).items()): read.of(one) for one in members}
        x, y = (float(np.mean([pair[part].values.mean() for pair in values.values()])) for part in (0, 1))
        found.append(Point(in_words(dict(zip(axes, place, strict=True))), x, y, values))
    return pooled(sorted(found, key=lambda point: point.x), report)


def pooled(points: Sequence[Point], report: Report) -> list[Point]:
    """Return points in the order of their utility with neighbours that are not told apart as one."""
    groups: list[list[Point]] = []
    for point in points:
        if groups and not _is_apart(_mean(groups[-1]), point, report):
            groups[-1].append(point)
        else:
            groups.append([point])
    return [_mean(group) for group in groups]


def _is_apart(one: Point, other: Point, report: Report) -> bool:
    shared = [replicate for replicate in one.values if replicate in other.values]
    if not shared:
        return True
    rises = [other.values[replicate][0].minus(one.values[replicate][0]) for replicate in shared]
    own = [float(rise.values.mean()) for rise in rises]
    crossed = cross_replicates([dict(replicate) for replicate in shared], rises, own, report)
    return crossed.mean > APART * Uncertainty.of(crossed).error


def _mean(points: Sequence[Point]) -> Point:
    if len(points) == 1:
        return points[0]
    shared = [replicate for replicate in points[0].values if all(replicate in one.values for one in points)]
    weight = 1 / len(points)
    values = {
        replicate: (
            combined([one.values[replicate][0] for one in points], weight),
            combined([one.values[replicate][1] for one in points], weight),
        )
        for replicate in shared
    }
    x, y = (float(np.mean(part)) for part in ([one.x for one in points], [one.y for one in points]))
    return Point(TOGETHER.join(one.name for one in points), x, y, values)


def combined(parts: Sequence[ByClass], weight: float = 1.0) -> ByClass:
    """Return the weighted sum of the classes that all have."""
    classes = reduce(np.intersect1d, [part.identities for part in parts])
    values = [part.values[np.isin(part.identities, classes)] for part in parts]
    return ByClass(classes, weight * np.sum(values, axis=0))


def _alone(value: float) -> ByClass:
    return ByClass(np.zeros(1, dtype=np.int64), np.array([value], dtype=np.float64))
