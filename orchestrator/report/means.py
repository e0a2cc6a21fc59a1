"""Means over the trials of a setting, with half a 95 % interval over seeds and, for values by image, classes.

The mean is that of the trials' own numbers. One seed has no interval: classes alone would say nothing of how
another training turns out.
"""

from collections.abc import Sequence

import numpy as np

from orchestrator.config.report import Report
from orchestrator.report.crossed import CLASSES, ByClass, Crossed, cross
from orchestrator.report.per_image import PerImage
from orchestrator.report.settings import Axes, replicate_of
from orchestrator.report.statistics import Uncertainty
from orchestrator.sweep.records import TrialRecord

DEFAULTS = Report()


def mean_and_half(
    records: Sequence[TrialRecord], metric: str, images: PerImage | None = None, report: Report = DEFAULTS
) -> tuple[float, float]:
    """Return a metric's mean over trials and half its interval; trials that lack the metric count nothing.

    NaN for no values, and for the interval of one seed.
    """
    having = [record for record in records if metric in record.metrics]
    if not having:
        return float("nan"), float("nan")
    mean = float(np.mean([record.metrics[metric] for record in having]))
    crossed = crossed_values(having, metric, images, report)
    has_seeds = any(axis != CLASSES for axis in crossed.resampled)
    return mean, Uncertainty.of(crossed).half() if has_seeds else float("nan")


def crossed_values(
    records: Sequence[TrialRecord], metric: str, images: PerImage | None, report: Report
) -> Crossed:
    """Return a metric over replicates and, where every trial kept its values by image and the study does not
    hold all classes fixed, over classes. Every trial has the metric."""
    has_classes = images is not None and not report.population
    kept = [images.by_class(record, metric) if images and has_classes else None for record in records]
    own = [record.metrics[metric] for record in records]
    return cross_trials([record.axes for record in records], kept, own, report)


def cross_trials(
    axes: Sequence[Axes], by_class: Sequence[ByClass | None], own: Sequence[float], report: Report
) -> Crossed:
    """Return numbers of trials, or of pairs of trials, over the replicates of their axes: by class where each
    has some of a class, else one number each. Where the classes are all there are they are averaged."""
    return cross_replicates([replicate_of(one, report.repeats) for one in axes], by_class, own, report)


def cross_replicates(
    replicates: Sequence[Axes], by_class: Sequence[ByClass | None], own: Sequence[float], report: Report
) -> Crossed:
    """Return numbers over replicates, each with its axes, as `cross_trials` does."""
    kept = [one for one in by_class if one is not None and len(one.values)]
    if len(kept) < len(replicates):
        return cross(list(zip(replicates, own, strict=True)))
    crossed = cross(list(zip(replicates, kept, strict=True)))
    return crossed.repeated() if report.population else crossed
