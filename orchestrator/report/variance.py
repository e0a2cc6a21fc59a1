"""Variance components: how much of a metric's spread is of seeds, judges, classes, images, and the rest.

By the method of moments on one setting's values over seeds and images: each source's levels differ by its own
effect and by what the other sources leave in their means. Negative estimates are written as 0. The residual
holds interactions (of seeds with classes and images) and noise. Sources that the sweep does not tell apart
are one row, and its note says so. What several judges measure of a trial is a metric of its own, over all of
them, in which the judge is one more crossed factor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pandas as pd

from orchestrator.config.base import Scalar
from orchestrator.config.report import Report
from orchestrator.config.study import SHORTHANDS
from orchestrator.metrics.names import BY_JUDGES, MetricName
from orchestrator.report.crossed import CLASSES, TOGETHER, ByClass, Crossed, cross
from orchestrator.report.held import held_by_metric, without_empty
from orchestrator.report.judges import EVERY, JUDGE, JUDGES, further_judges
from orchestrator.report.per_image import PerImage, class_means, present
from orchestrator.report.settings import by_setting, replicate_of
from orchestrator.sweep.adversary import HELD
from orchestrator.sweep.records import TrialRecord

NAN = float("nan")
SAME_IMAGES = {"seed", "target.seed", "attack.seed", "judge.seed", "auxiliary.seed", JUDGES}
"""Factors under which every value is of the same images."""


@dataclass(frozen=True)
class Component:
    """Variance of one source."""

    source: str
    levels: int
    variance: float  # NaN where it cannot be estimated
    note: str = ""


def variance_table(
    report: Report, metrics: Sequence[str], records: Sequence[TrialRecord], images: PerImage
) -> pd.DataFrame:
    """Return a row for each source of each metric and setting: levels, standard deviation, share of the
    variance, note; empty where nothing repeats."""
    rows: list[dict[str, object]] = []
    for setting, members in by_setting(records, report.repeats).items():
        for metric in metrics:
            having = [one for one in members if metric in one.metrics]
            for shown, judges in _by_judges(metric, having).items() if having else ():
                found = components(having, metric, images, report, judges)
                head: dict[str, object] = {**dict(setting), "metric": shown}
                held = held_by_metric(having, metric)
                rows += [head | row | held | {"note": one.note} for one, row in _shares(found)]
    return without_empty(pd.DataFrame(rows), [HELD])


def _by_judges(metric: str, records: Sequence[TrialRecord]) -> dict[str, dict[str, str]]:
    """Return the metric as it is shown -> judge -> full name: for itself none, and for all judges, where
    further ones measured it, each of them."""
    name = MetricName.parse(metric)
    every = {JUDGE: metric} | {one: str(name.of_judge(one)) for one in further_judges(records)}
    known = {
        judge: full for judge, full in every.items() if any(full in record.metrics for record in records)
    }
    is_judged = name.metric.name in BY_JUDGES and not name.instance and len(known) > 1
    return {metric: {}} | ({f"{metric}, {EVERY}": known} if is_judged else {})


def _shares(found: Sequence[Component]) -> list[tuple[Component, dict[str, object]]]:
    """Return each source with its columns: source, levels, standard deviation, share of the variance."""
    total = sum(one.variance for one in found if one.variance > 0)
    return [
        (
            one,
            {
                "source": one.source,
                "levels": one.levels,
                "deviation": float(np.sqrt(one.variance)),
                "share": one.variance / total if total else NAN,
            },
        )
        for one in found
    ]


def components(
    records: Sequence[TrialRecord],
    metric: str,
    images: PerImage,
    report: Report,
    judges: Mapping[str, str] = MappingProxyType({}),
) -> list[Component]:
    """Return the sources of a metric's variance over the trials of one setting; none if nothing repeats.

    There is a trial, and all have the metric. `judges`: several judges -> the metric as each of them measured
    it, a factor of its own. Raise as `PerImage.of`.
    """
    axes = [replicate_of(record.axes, report.repeats) for record in records]
    cells = [
        (record, own | ({JUDGES: judge} if judge else {}), name)
        for record, own in zip(records, axes, strict=True)
        for judge, name in (judges or {"": metric}).items()
        if name in record.metrics
    ]
    replicates = [own for _, own, _ in cells]
    kept = [images.of(record, name) for record, _, name in cells]
    rows = [present(one, _field(metric)) for one in kept if one is not None and len(one)]
    if not rows or len(rows) < len(cells):
        numbers = [record.metrics[name] for record, _, name in cells]
        return _of_numbers(cross(list(zip(replicates, numbers, strict=True))))
    labels = [one["label"] for one in rows]
    values = [one[_field(metric)].astype(np.float64) for one in rows]
    if _are_same(replicates, labels):
        by_image = [ByClass(np.arange(len(own)), own) for own in values]
        return _of_same_images(cross(list(zip(replicates, by_image, strict=True))), labels[0])
    by_class = [images.by_class(record, name) for record, _, name in cells]
    within = _mean([_within(one, own) for one, own in zip(labels, values, strict=True)])
    there = [(own, one) for own, one in zip(replicates, by_class, strict=True) if one is not None]
    return _of_other_images(cross(there), within)


def _field(metric: str) -> str:
    place = MetricName.parse(metric).file()
    assert place is not None  # there are rows
    return place.field


def _are_same(replicates: Sequence[Mapping[str, Scalar]], labels: Sequence[np.ndarray]) -> bool:
    """Return whether every trial has values of the same images, in one order."""
    values: dict[str, set[str]] = {}
    for axis, value in (item for one in replicates for item in one.items()):
        values.setdefault(axis, set()).add(str(value))
    swept = {axis for axis, distinct in values.items() if len(distinct) > 1}
    return swept <= SAME_IMAGES and all(np.array_equal(labels[0], other) for other in labels[1:])


def _of_numbers(crossed: Crossed) -> list[Component]:
    """Return the components of one number for each trial."""
    if len(crossed.drawn) > 1:
        return [*_of_seeds(crossed, crossed.drawn), _residual(crossed)]
    note = "one number for each: not told apart from all else that differs"
    return [replace(one, note=note) for one in _of_seeds(crossed, crossed.drawn)]


def _of_same_images(crossed: Crossed, labels: np.ndarray) -> list[Component]:
    """Return the components of values over seeds and images, the last factor, which have labels (images,)."""
    last = len(crossed.factors) - 1
    seeds = [axis for axis in crossed.drawn if axis != last]
    means, counts = _means(crossed, last)
    left = _residual(crossed).variance * _mean(1 / counts) if seeds else 0.0
    together = "" if seeds else " and residual"
    note = "" if seeds else "one seed: not told apart"
    found = [*_of_seeds(crossed, seeds)] if seeds else [Component("seeds", 1, NAN, "one seed")]
    num_classes, within = len(np.unique(labels)), _within(labels, means)
    if np.isnan(within):
        alone = "; ".join(filter(None, ("one image of each class: not told apart", note)))
        spread = _positive(_variance(means) - left)
        found.append(Component(f"classes and images{together}", num_classes, spread, alone))
    else:
        _, sizes, by_class = class_means(labels, means)
        spread = _positive(_variance(by_class) - within * _mean(1 / sizes))
        found.append(Component(CLASSES, num_classes, spread))
        found.append(Component(f"images{together}", len(labels), _positive(within - left), note))
    return [*found, *([_residual(crossed)] if seeds else [])]


def _of_other_images(crossed: Crossed, within: float) -> list[Component]:
    """Return the components of class means over seeds and classes, the last factor, if images differ."""
    residual = _residual(crossed)
    found = _of_seeds(crossed, crossed.drawn)
    note = "other images in each trial: not told apart"
    return [*found, Component("images and residual", residual.levels, within, note)]


def _of_seeds(crossed: Crossed, axes: Sequence[int]) -> list[Component]:
    """Return the component of each of these factors."""
    left = _residual(crossed).variance if len(crossed.drawn) > 1 else 0.0
    found = []
    for axis in axes:
        means, counts = _means(crossed, axis)
        name = crossed.factors[axis]
        fields = [field for part in name.split(TOGETHER) for field in SHORTHANDS.get(part, (part,))]
        note = f"{' and '.join(fields)} move together: not told apart" if len(fields) > 1 else ""
        spread = _positive(_variance(means) - left * _mean(1 / counts))
        found.append(Component(name, len(means), spread, note))
    return found


def _residual(crossed: Crossed) -> Component:
    """Return what effects of all factors leave, as a variance of single values."""
    free = crossed.count - 1 - sum(crossed.values.shape[axis] - 1 for axis in crossed.drawn)
    squares = float((crossed.residuals() ** 2).sum())
    return Component("residual", crossed.count, squares / free if free > 0 else NAN)


def _means(crossed: Crossed, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of a factor's levels and how many values each is of."""
    counts = crossed.level_sums(axis, crossed.seen)
    return crossed.level_sums(axis, crossed.filled) / counts, counts


def _within(labels: np.ndarray, values: np.ndarray) -> float:
    """Return the variance of images of one class, pooled over classes; NaN for one image of each."""
    classes, _, means = class_means(labels, values)
    free = len(values) - len(classes)
    return float(((values - means[np.searchsorted(classes, labels)]) ** 2).sum()) / free if free else NAN


def _variance(values: np.ndarray) -> float:
    return float(np.var(values, ddof=1)) if len(values) > 1 and np.isfinite(values).all() else NAN


def _mean(values: Sequence[float] | np.ndarray) -> float:
    return float(np.mean(values))


def _positive(variance: float) -> float:
    """Return an estimate of a variance, which may come out negative, as one."""
    return max(variance, 0.0) if not np.isnan(variance) else NAN
